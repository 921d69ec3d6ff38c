"""Class numbers and log-probabilities survive the bytes they are packed into, and take no more than is promised."""

from __future__ import annotations

import numpy as np
import pytest

from potstill.signals.packing import from_levels, ids_bytes, pack_ids, to_levels, unpack_ids

SIZES = {50: 16, 1 << 16: 16, (1 << 16) + 1: 17, 128_256: 17, 151_936: 18, 1 << 18: 18, 262_145: 24}


@pytest.mark.parametrize("num_ids", [0, 1, 3, 7, 8, 64])
@pytest.mark.parametrize("size", SIZES)
def test_every_class_number_comes_back(size: int, num_ids: int) -> None:
    ids = np.random.default_rng(0).integers(size, size=num_ids)
    ids[:2] = [size - 1, 0][:num_ids]
    packed = pack_ids(ids, size)
    assert len(packed) == ids_bytes(num_ids, size)
    assert unpack_ids(memoryview(packed), num_ids, size).tolist() == ids.tolist()


@pytest.mark.parametrize(("size", "bits"), SIZES.items())
def test_no_more_bits_are_spent_than_the_vocabulary_needs(size: int, bits: int) -> None:
    assert ids_bytes(64, size) == 64 * bits // 8


def test_a_log_probability_in_8_bits_is_off_by_half_a_step() -> None:
    log_p = -np.logspace(-4, np.log10(39.9), 500, dtype=np.float32)
    found = from_levels(to_levels(log_p))
    step = 2 * 40.0 * np.sqrt(log_p / -40.0) / 255  # of -40 (b / 255)^2
    assert (np.abs(found - log_p) <= 0.5 * step + 40.0 / 255**2).all()
    assert from_levels(to_levels(np.float32([0.0, -100.0]))).tolist() == [0.0, -40.0]
