"""Few classes of a large vocabulary in few bytes: their numbers in 16 bits and a rest, log-probabilities in 8 or 16.

A number's low 16 bits stand alone, in order; what is above them stands behind, 1 bit for a vocabulary of up to 2^17
classes, 2 for one of 2^18, a byte beyond. So NumPy reads whole columns, and nothing is shifted across bytes.
"""

# T classes in all, of any number of rows

from __future__ import annotations

import numpy as np

LOW_BITS, BYTE = 16, 8


def ids_bytes(num_ids: int, vocabulary_size: int) -> int:
    """What so many class numbers take."""
    return 2 * num_ids + -(-num_ids * _rest_bits(vocabulary_size) // BYTE)


def pack_ids(ids_T: np.ndarray, vocabulary_size: int) -> bytes:
    low, rest = (ids_T & 0xFFFF).astype("<u2"), (ids_T >> LOW_BITS).astype(np.uint8)
    if bits := _rest_bits(vocabulary_size):
        shifts = np.arange(0, BYTE, bits, dtype=np.uint8)
        rest = np.pad(rest, (0, -len(rest) % len(shifts))).reshape(-1, len(shifts))
        return low.tobytes() + (rest << shifts).sum(axis=1, dtype=np.uint8).tobytes()
    return low.tobytes()


def unpack_ids(packed: bytes | memoryview, num_ids: int, vocabulary_size: int) -> np.ndarray:
    """`[T]`, int32."""
    low_T = np.frombuffer(packed, "<u2", num_ids).astype(np.int32)
    bits = _rest_bits(vocabulary_size)
    if not bits:
        return low_T
    rest = np.frombuffer(packed, np.uint8, ids_bytes(num_ids, vocabulary_size) - 2 * num_ids, offset=2 * num_ids)
    ids_T = np.take(_ABOVE[bits], rest, axis=0).reshape(-1)[:num_ids]
    return np.bitwise_or(ids_T, low_T, out=low_T)


def _rest_bits(vocabulary_size: int) -> int:
    bits = (vocabulary_size - 1).bit_length() - LOW_BITS
    return max(bits, 0) if bits <= 2 else BYTE


def _above(bits: int) -> np.ndarray:
    """By a byte of rests of so many bits: what each adds to its low part."""
    rests = (np.arange(256)[:, None] >> np.arange(0, BYTE, bits)) & ((1 << bits) - 1)
    return (rests << LOW_BITS).astype(np.int32)


_ABOVE = {bits: _above(bits) for bits in (1, 2, BYTE)}

# Log-probabilities from 0 to -40 in 8 bits: x = -40 (b / 255)^2. The steps grow with the distance from 0, as what a
# step changes shrinks: 0.0006 next to 0, 0.08 at -2.5, 0.3 at the end. Below -40 there is nothing.
LOWEST = -40.0


def to_levels(log_p_T: np.ndarray) -> np.ndarray:
    """The nearest of 256 levels, `[T]`, uint8."""
    return np.rint(255.0 * np.sqrt(np.clip(log_p_T, LOWEST, 0.0) / LOWEST)).astype(np.uint8)


def from_levels(levels_T: np.ndarray) -> np.ndarray:
    """`[T]`, float32. Computed: a table of 256 would be indexed by numbers of 8 bytes, made for each of 1 byte."""
    root_T = levels_T.astype(np.float32)
    root_T *= root_T
    return np.multiply(root_T, np.float32(LOWEST / 255.0**2), out=root_T)
