"""How far each example of a sample is from the nearest one that the student learned from, and whether that shows."""

# T transfer examples, E sample examples, D width of an embedding

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sklearn
from numpy.typing import ArrayLike, NDArray
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

from potstill.audit.rates import rate
from potstill.audit.texts import normalise

NUM_BINS = 5
NUM_FARTHEST = 20
WORKING_MEMORY = 64  # MB of distances held at once


def tfidf_vectors(transfer: Sequence[str], sample: Sequence[str]) -> tuple[Any, Any]:
    """Both as TF-IDF over the words and pairs of words of the transfer set; sparse, `[T, D]` and `[E, D]`.

    A text of words that the transfer set does not have is all zeros: at distance 1 of everything.
    """
    vectoriser = TfidfVectorizer(preprocessor=normalise, token_pattern=r"\w+", ngram_range=(1, 2), sublinear_tf=True)
    return vectoriser.fit_transform(transfer), vectoriser.transform(sample)


def distance_to_nearest(
    transfer_TD: Any,
    sample_ED: Any,
    *,
    embedding: str,
    right: Mapping[str, ArrayLike] | None = None,
    texts: Sequence[str] = (),
    transfer_texts: Sequence[str] = (),
) -> dict[str, Any]:
    """Cosine distance of every sample example to its nearest transfer example; against each model's errors.

    embedding: how the vectors were made, for the record. right: per model whether it was right, `[E]`, `nan` where
    nobody can say. texts, transfer_texts: for the list of the farthest examples.
    Returns JSON types. `errors`: of each model the error rate of five bins of equally many examples, nearest first, and
    Spearman's correlation of distance and error.
    """
    neighbours = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(transfer_TD)
    with sklearn.config_context(working_memory=WORKING_MEMORY):
        distances_E1, nearest_E1 = neighbours.kneighbors(sample_ED)
    distance_E, nearest_E = np.clip(distances_E1[:, 0], 0, None).round(6), nearest_E1[:, 0]
    farthest = np.argsort(-distance_E, kind="stable")[:NUM_FARTHEST]
    return {
        "embedding": embedding,
        "n": len(distance_E),
        "quantiles": {f"{100 * q:.0f} %": float(np.quantile(distance_E, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
        "errors": {name: _errors(distance_E, np.asarray(values, float)) for name, values in (right or {}).items()},
        "farthest": [
            {
                "item": int(item),
                "distance": float(distance_E[item]),
                **({"text": texts[item]} if texts else {}),
                **({"nearest": transfer_texts[nearest_E[item]]} if transfer_texts else {}),
            }
            for item in farthest
        ],
    }


def _errors(distance_E: NDArray, right_E: NDArray) -> dict[str, Any]:
    known_E = np.isfinite(right_E)
    distance_E, wrong_E = distance_E[known_E], right_E[known_E] <= 0
    order_E = np.argsort(distance_E, kind="stable")
    bins = [part for part in np.array_split(order_E, NUM_BINS) if len(part)]
    return {
        "bins": [
            {"low": float(distance_E[part].min()), "high": float(distance_E[part].max()), **rate(wrong_E[part])}
            for part in bins
        ],
        "spearman": _spearman(distance_E, wrong_E),
    }


def _spearman(distance_E: NDArray, wrong_E: NDArray) -> float | None:
    if any(len(np.unique(values_E)) < 2 for values_E in (distance_E, wrong_E)):
        return None  # all alike: nothing to correlate
    return float(spearmanr(distance_E, wrong_E)[0])  # type: ignore[arg-type]
