"""Slices that nobody declared: a real one holds up on the other half, noise does not."""

from __future__ import annotations

import json

import numpy as np

from potstill.audit.found_slices import found_slices


def data(num: int = 2000, seed: int = 0) -> tuple[dict[str, list[str]], list[str], np.random.Generator]:
    generator = np.random.default_rng(seed)
    columns = {
        "domain": generator.choice(["bank", "travel", "home"], num).tolist(),
        "length": generator.choice(["short", "long"], num).tolist(),
        "device": generator.choice(["phone", "desk"], num).tolist(),
    }
    return columns, [f"item {number}" for number in range(num)], generator


def test_a_planted_conjunction_is_found_and_holds_up():
    columns, keys, generator = data()
    planted = np.array([pair == ("bank", "short") for pair in zip(columns["domain"], columns["length"], strict=True)])
    failed = generator.random(2000) < np.where(planted, 0.4, 0.05)
    result = found_slices(columns, failed, keys)
    best = result["slices"][0]
    assert best["conditions"] == [["domain", "bank"], ["length", "short"]]
    assert best["holds_up"]
    assert best["found_on"]["n"] + best["n"] == planted.sum(), "two halves of its items, none in both"
    assert best["error_rate"] > 3 * best["rest"]["value"]
    assert result["n_found_on"] + result["n_tested_on"] == 2000


def test_what_is_found_in_noise_does_not_hold_up():
    false_ones = 0
    for seed in range(40):
        columns, keys, generator = data(num=400, seed=seed)
        found = found_slices(columns, generator.random(400) < 0.2, keys)["slices"]
        assert found, "some slice is found in any noise"
        false_ones += any(each["holds_up"] for each in found)
    assert false_ones <= 5  # 2 expected at the level of 5 %; more than 5 once in 100


def test_a_slice_that_says_the_same_as_another_is_left_out():
    columns, keys, generator = data()
    columns["copy"] = [value.upper() for value in columns["domain"]]
    failed = generator.random(2000) < np.where(np.array(columns["domain"]) == "bank", 0.4, 0.05)
    names = [each["name"] for each in found_slices(columns, failed, keys)["slices"]]
    assert ("domain=bank" in names) != ("copy=BANK" in names)


def test_where_nothing_gathers_nothing_is_found():
    columns, keys, _ = data(num=100)
    for failed in (np.zeros(100), np.ones(100)):
        assert found_slices(columns, failed, keys)["slices"] == []
    assert found_slices({}, np.arange(100) < 50, keys)["slices"] == []
    assert found_slices({"domain": []}, [], [])["error_rate"] is None


def test_the_same_data_give_the_same_slices_in_any_order():
    columns, keys, generator = data(num=500)
    failed = generator.random(500) < 0.3
    order = generator.permutation(500)
    shuffled = {name: [values[n] for n in order] for name, values in columns.items()}
    first = found_slices(columns, failed, keys)
    assert json.dumps(first) == json.dumps(found_slices(shuffled, failed[order], [keys[n] for n in order]))
