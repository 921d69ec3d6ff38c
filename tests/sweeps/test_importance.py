from __future__ import annotations

import random
from itertools import product

import pytest

from potstill.sweeps.importance import importances, needs_log
from potstill.sweeps.results import Result
from tests.sweeps.runs import result

KEYS = ["optim.optimizer.lr", "optim.optimizer.kind", "optim.optimizer.decay"]


def runs() -> list[Result]:
    """lr decides, kind matters a little, decay does not."""
    noise = random.Random(0)
    grid = product((1e-5, 1e-3, 1e-1), ("adam", "sgd"), (0, 1))
    return [
        result(str(n), lr**0.5 + 0.02 * (kind == "sgd") + noise.gauss(0, 1e-3), lr=lr, kind=kind, decay=decay)
        for n, (lr, kind, decay) in enumerate(grid)
    ]


@pytest.mark.slow
def test_the_key_that_decides_comes_first_and_one_without_effect_last() -> None:
    found = importances(runs(), KEYS, "val/accuracy")
    assert isinstance(found, dict)
    assert list(found) == KEYS
    assert found[KEYS[0]] > 0.8
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.slow
def test_the_seed_is_a_key_to_read_the_others_against() -> None:
    found = importances([result(str(n), n % 3, seed=n % 3, lr=n // 3) for n in range(9)], KEYS[:1], "val/accuracy")
    assert isinstance(found, dict)
    assert list(found) == ["seed", KEYS[0]]


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_key_of_many_categories_does_not_take_exponential_time() -> None:
    found = importances(
        [result(str(n), n % 2, lr=n % 2, kind=f"teacher {n}") for n in range(30)], KEYS[:2], "val/accuracy"
    )
    assert isinstance(found, dict)
    assert found[KEYS[0]] > 0.9


def test_too_little_to_go_by_is_said() -> None:
    assert importances(runs()[:7], KEYS, "val/accuracy") == "Importance needs 8 finished runs; there are 7."
    same = [result(str(n), 0.5, lr=n) for n in range(8)]
    assert "all have the same" in str(importances(same, KEYS, "val/accuracy"))
    assert "something that varies" in str(importances([result(str(n), n) for n in range(8)], [], "val/accuracy"))


def test_without_optuna_the_sentence_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # noqa: ARG005
    assert importances(runs(), KEYS, "val/accuracy") == "Importance needs optuna: pip install 'potstill[sweeps]'"


def test_orders_of_magnitude_are_taken_by_their_logarithm() -> None:
    assert needs_log([1e-5, 1e-2])
    assert not needs_log([1, 100])
    assert not needs_log([0, 1e6])
