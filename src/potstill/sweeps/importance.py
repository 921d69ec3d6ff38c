"""How much of the spread of a metric each varied key explains: functional ANOVA over a forest."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

from potstill.sweeps.results import Result
from potstill.sweeps.varying import SEED, comparable, value_of

MIN_RUNS = 8
LOG_SPAN = 100.0  # numbers that span more than this are taken, and drawn, by their logarithm
MAX_CATEGORIES = 6  # of one key: optuna's time doubles with each
INSTALL = "pip install 'potstill[sweeps]'"


def importances(results: Sequence[Result], keys: Sequence[str], metric: str) -> dict[str, float] | str:
    """Key -> share of the variance of `metric`, largest first; or the sentence that says why there is none.

    The seed is a key like others: what it explains is the noise to read the rest against.
    Hutter, Hoos and Leyton-Brown 2014, "An Efficient Approach for Assessing Hyperparameter Importance".
    """
    keys = [key for key in [*keys, SEED] if len({comparable(value_of(each, key)) for each in results}) > 1]
    if len(results) < MIN_RUNS:
        return f"Importance needs {MIN_RUNS} finished runs; there are {len(results)}."
    if not keys:
        return "Importance needs something that varies between the runs."
    if len({each.metrics[metric] for each in results}) == 1:
        return f"Importance needs runs that differ in {metric}; all have the same."
    if importlib.util.find_spec("optuna") is None:
        return f"Importance needs optuna: {INSTALL}"
    return _fanova(results, keys, metric)


def is_numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def needs_log(values: Sequence[float]) -> bool:
    """Whether numbers spread over so many orders of magnitude that a linear axis would crowd them."""
    return min(values) > 0 and max(values) > LOG_SPAN * min(values)


def _fanova(results: Sequence[Result], keys: Sequence[str], metric: str) -> dict[str, float]:
    import optuna  # of the extra `sweeps`

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        columns = {key: _column([value_of(each, key) for each in results]) for key in keys}
        distributions = {key: _distribution(values) for key, values in columns.items()}
        study = optuna.create_study()
        for number, result in enumerate(results):
            params = {key: values[number] for key, values in columns.items()}
            value = result.metrics[metric]
            study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=value))
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {key: float(share) for key, share in found.items() if math.isfinite(share)}


def _column(values: Sequence[Any]) -> list[Any]:
    """Numbers as they are; else text, one category a value, or the place in the alphabet where there are too many."""
    if is_numeric(values):
        return [float(value) for value in values]
    texts = [comparable(value) for value in values]
    categories = sorted(set(texts))
    return texts if len(categories) <= MAX_CATEGORIES else [float(categories.index(text)) for text in texts]


def _distribution(values: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if not is_numeric(values):
        return CategoricalDistribution(sorted(set(values)))
    return FloatDistribution(min(values), max(values), log=needs_log(values))
