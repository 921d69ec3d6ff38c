"""Items that resemble each other, put together and given a name."""

# F failures, D width of a vector, K clusters, W words

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

from potstill.audit.distance import tfidf_vectors
from potstill.audit.texts import normalise

WIDTH = 100  # of latent semantic vectors
NUM_STARTS = 4  # of k-means, of which the best is kept
NUM_TERMS = 3
MIN_TERM_SHARE = 0.1  # of a cluster; below, a word is one member's own
NUM_NEAREST = 5


@dataclass(frozen=True)
class Clusters:
    """of_item: the cluster of each failure, `[F]`, 0 the largest. distances: to the cluster's centre, `[F]`."""

    of_item: NDArray[np.int64]
    distances: NDArray[np.float64]
    centres: NDArray[np.float64]

    def members(self, cluster: int) -> NDArray[np.int64]:
        """Numbers of its failures, the most typical first."""
        inside = np.flatnonzero(self.of_item == cluster)
        return inside[np.argsort(self.distances[inside], kind="stable")]

    def nearest(self, vectors_ED: NDArray) -> NDArray[np.int64]:
        """The cluster whose centre is nearest to each vector, `[E]`."""
        return _distances(vectors_ED, self.centres).argmin(1)


def latent_vectors(known: Sequence[str], others: Sequence[str], seed: int) -> tuple[NDArray, NDArray]:
    """TF-IDF over the words and pairs of words of `known`, reduced to `WIDTH` dimensions, of length 1.

    Latent semantic analysis (Deerwester et al. 1990): plain vectors of two words for one thing have nothing in common.
    """
    known_ED, others_ED = tfidf_vectors(known, [*others, ""])  # scikit-learn takes no empty list
    width = min(WIDTH, min(known_ED.shape) - 1)
    if width < 1:
        return known_ED.toarray(), others_ED.toarray()[:-1]
    reduced = TruncatedSVD(width, random_state=seed).fit(known_ED)
    return unit(reduced.transform(known_ED)), unit(reduced.transform(others_ED))[:-1]


def cluster(vectors_FD: NDArray, num_clusters: int, seed: int) -> Clusters:
    """By k-means on vectors of length 1; fewer clusters where fewer failures differ."""
    num_distinct = len(np.unique(vectors_FD, axis=0))
    model = KMeans(min(num_clusters, num_distinct), n_init=NUM_STARTS, random_state=seed)  # type: ignore[arg-type]
    labels: list[int] = model.fit_predict(vectors_FD).tolist()
    largest_first = [number for number, _ in Counter(labels).most_common()]
    rank = {number: place for place, number in enumerate(largest_first)}
    of_item = np.array([rank[number] for number in labels], dtype=np.int64)
    centres_KD = model.cluster_centers_[largest_first]
    distances = _distances(vectors_FD, centres_KD)[np.arange(len(of_item)), of_item]
    return Clusters(of_item, distances, centres_KD)


def described(
    clusters: Clusters, failures: Sequence[Mapping[str, Any]], background: Sequence[str]
) -> list[dict[str, Any]]:
    """Of each cluster: its name, terms, size, share of all failures, labels, confusions and nearest members.

    The name is the commonest gold label and the terms: words that tell the cluster from the `background`, texts of
    every kind, by their part of the relative entropy.
    """
    terms = _terms([str(failure["text"]) for failure in failures], clusters, background)
    found = []
    for number, words in enumerate(terms):
        members = [failures[place] for place in clusters.members(number)]
        confusions = Counter((each["gold"], each["student"]) for each in members)
        labels = Counter(str(each["gold"]) for each in members).most_common(NUM_TERMS)
        found.append(
            {
                "cluster": number,
                "name": f"{labels[0][0]}: {', '.join(words)}",
                "terms": words,
                "size": len(members),
                "share": len(members) / len(failures),
                "labels": dict(labels),
                "confusions": [[*pair, count] for pair, count in confusions.most_common(NUM_TERMS)],
                "nearest": [each["text"] for each in members[:NUM_NEAREST]],
            }
        )
    return found


def _terms(texts: list[str], clusters: Clusters, background: Sequence[str]) -> list[list[str]]:
    counter = CountVectorizer(preprocessor=normalise, token_pattern=r"\w+", binary=True)
    has_FW = np.asarray(counter.fit_transform(texts).todense())  # type: ignore[union-attr]
    words, everywhere_W = counter.get_feature_names_out(), _shares(counter.transform(background))
    named = []
    for number in range(len(clusters.centres)):
        share_W = has_FW[clusters.of_item == number].mean(0)
        ahead_W = rel_entr(share_W, everywhere_W)
        best = np.argsort(-ahead_W, kind="stable")[:NUM_TERMS]
        named.append([str(words[place]) for place in best if ahead_W[place] > 0 and share_W[place] >= MIN_TERM_SHARE])
    return named


def unit(vectors_ED: NDArray) -> NDArray:
    """Of length 1; zeros stay as they are."""
    return np.asarray(normalize(vectors_ED))


def _shares(has_EW: Any) -> NDArray:
    return np.asarray(has_EW.mean(0)).ravel()


def _distances(vectors_ED: NDArray, centres_KD: NDArray) -> NDArray:
    return 1 - vectors_ED @ unit(centres_KD).T
