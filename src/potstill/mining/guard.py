"""No test item leaves, nor a text nearly like one, wherever it was met."""

# E examples

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potstill.audit.contamination import is_copy
from potstill.audit.texts import Texts, normalise
from potstill.errors import UserError
from potstill.generation.overlap import refuse_overlap, text_hash

MAX_TEST_SHARE = 0.5  # of a pool; from here on it is a test set that was given by mistake


@dataclass(frozen=True)
class Guard:
    """test: the prompts of the run's test split. manifest: hashes of test items whose texts are kept elsewhere."""

    test: Sequence[str]
    manifest: Collection[str] = ()

    def is_test(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Which are test items: equal or nearly equal to one, or in the manifest, `[E]`."""
        listed_E = np.array([text_hash(text) in self.manifest for text in texts], dtype=bool)
        return is_copy(Texts(self.test), Texts(texts), "near") | listed_E

    def check(self, texts: Sequence[str], where: str) -> None:
        """Raises UserError where a test item is among what is about to be written: the lock behind `is_test`."""
        hashes = {text_hash(text) for text in self.test if normalise(text)} | set(self.manifest)
        refuse_overlap(enumerate(texts), hashes, where, "Take them out of the data.")


def left_out(
    texts: Sequence[str], guard: Guard, *, train: Sequence[str], validation: Sequence[str]
) -> list[str | None]:
    """Why each text of a pool may not be proposed; None where it may.

    What is nearly a validation item stays out, too: with it in train, validation could not say what was gained.
    Raises UserError where most of the pool are test items.
    """
    normalised = [normalise(text) for text in texts]
    is_test_E = guard.is_test(texts)
    if is_test_E.mean() >= MAX_TEST_SHARE:
        problem = f"holds {len(texts):,} items, and {is_test_E.sum():,} of them are test items."
        raise UserError("pool", "test", problem, "Give inputs that nobody is tested on.")
    is_validation_E = is_copy(Texts(validation), Texts(texts), "near")
    known, seen = {normalise(text) for text in train}, Counter[str]()
    reasons: list[str | None] = []
    for text, is_test, is_validation in zip(normalised, is_test_E, is_validation_E, strict=True):
        seen[text] += 1
        looks = {
            "empty": not text,
            "test item": is_test,
            "validation item": is_validation,
            "in train": text in known,
            "twice": seen[text] > 1,
        }
        reasons.append(next((name for name, found in looks.items() if found), None))
    return reasons
