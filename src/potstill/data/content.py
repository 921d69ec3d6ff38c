"""Hashes of content: what splits, label subsets, fingerprints and signals are keyed by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np


def content_hash(*parts: object) -> str:
    """32 hexadecimal digits, equal exactly when the parts are equal.

    Parts may be anything an example holds: text, numbers, nested lists, dictionaries, arrays, PIL images.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = canonical_bytes(part)
        digest.update(f"{len(data)}:".encode())  # the length keeps ("ab", "c") from ("a", "bc")
        digest.update(data)
    return digest.hexdigest()


def hash_all(parts: Iterable[object]) -> str:
    """`content_hash` of a long or lazy sequence."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(content_hash(part).encode())
    return digest.hexdigest()


def canonical_bytes(value: Any) -> bytes:
    """One spelling for one value; the type is part of it, so that 1 and "1" differ."""
    if isinstance(value, bytes):
        return b"bytes " + value
    if hasattr(value, "tobytes"):  # arrays and PIL images; pixels, not the file's compression
        array = np.asarray(value)
        return f"array {array.dtype.str} {array.shape} ".encode() + array.tobytes()
    return json.dumps(value, sort_keys=True).encode()


def unit_interval(key: str, salt: str) -> float:
    """A number in [0, 1) that depends on the key and the salt alone. Different salts give independent numbers."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=salt.encode()).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)
