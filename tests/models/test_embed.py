"""Embeddings by an encoder that is neither teacher nor student: each text's own, in the order of the texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from potstill.models import embed as embedding

TEXTS = ["owl owl eel cat dog dog dog cat", "eel", "cat dog owl", "dog"]


def test_texts_that_are_sorted_by_length_come_back_in_their_order(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "CHUNK", 3)
    path = saved(words=("eel", "cat", "dog", "owl"), initializer_range=0.3)

    def embed(*texts: str) -> np.ndarray:
        return embedding.embed(path, texts, key="encoder", progress=lambda steps, _: steps)

    alone = np.concatenate([embed(text) for text in TEXTS])
    np.testing.assert_allclose(embed(*TEXTS), alone, atol=1e-5)
