from __future__ import annotations

import numpy as np
import pytest

from potstill.data.content import content_hash, unit_interval


@pytest.mark.parametrize(
    ("left", "right"),
    [(("ab", "c"), ("a", "bc")), ((1,), ("1",)), ((None,), ("",)), (([1, 2], 3), ([1], 2, 3))],
)
def test_parts_that_read_alike_have_different_hashes(left: tuple, right: tuple) -> None:
    assert content_hash(*left) != content_hash(*right)


def test_an_array_is_told_from_its_transpose_and_from_another_type() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    hashes = {content_hash(array), content_hash(array.reshape(3, 2)), content_hash(array.astype(np.int64))}
    assert len(hashes) == 3


def test_the_hash_stays_what_it_was_in_earlier_versions() -> None:
    """Splits of every user's data hang on it."""
    assert content_hash("text", "a query") == "2129820f359ff92e807014ce218d368c"


def test_an_object_without_a_spelling_is_refused_rather_than_hashed_by_its_address() -> None:
    with pytest.raises(TypeError):
        content_hash(object())


def test_two_salts_cut_independently() -> None:
    keys = [content_hash(number) for number in range(4000)]
    both = sum(unit_interval(key, "test") < 0.5 and unit_interval(key, "validation") < 0.5 for key in keys)
    assert both / len(keys) == pytest.approx(0.25, abs=0.03)
