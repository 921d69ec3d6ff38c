from __future__ import annotations

import json

from potstill.sweeps.comparison import compare
from potstill.sweeps.results import Result
from tests.sweeps.runs import result

BAD = [
    Result("7", "7", "diverged", "the loss is not finite", ["lr=1e20"]),
    Result("8", "8", "failed", "out of memory", ["lr=1"]),
    Result("9", "9", "missing", "was never started"),
]


def test_what_did_not_finish_is_listed_with_its_reason_and_never_ranked() -> None:
    found = compare([result("0", 0.5), *BAD, result("1", 1.0, metric="val/loss")])
    assert [group["runs"] for group in found["groups"]] == [["0"]]
    listed = {row["run"]: (row["status"], row["reason"]) for row in found["not_ranked"]}
    assert listed.keys() == {"7", "8", "9", "1"}
    assert listed["7"] == ("diverged", "the loss is not finite")
    assert listed["1"] == ("finished", "has no val/accuracy")
    assert len(found["runs"]) == 5


def test_groups_are_ranked_by_their_mean_and_compared_with_the_best() -> None:
    lucky = [result(f"a{seed}", value, seed=seed, lr=1) for seed, value in enumerate((0.99, 0.5, 0.5))]
    steady = [result(f"b{seed}", value, seed=seed, lr=2) for seed, value in enumerate((0.7, 0.71, 0.72))]
    found = compare([*lucky, *steady])
    first, second = found["groups"]
    assert (first["runs"], first["num_seeds"]) == (["b0", "b1", "b2"], 3)
    assert first["best_leads_by"] is None
    assert second["best_leads_by"]["verdict"] == "not told apart at 3 seeds"
    assert found["keys"] == {"optim.optimizer.lr": "lr"}


def test_one_seed_is_said_before_the_first_number() -> None:
    found = compare([result("0", 0.5, lr=1), result("1", 0.6, lr=2)])
    assert "One seed" in found["notes"][0]
    json.dumps(found, allow_nan=False)
    uneven = compare([result("0", 0.5, lr=1), result("1", 0.6, lr=2), result("2", 0.6, lr=2, seed=1)])
    assert "Between 1 and 2 seeds" in uneven["notes"][0]


def test_other_validation_data_is_said() -> None:
    found = compare([result("0", 0.5, lr=1, data="a"), result("1", 0.6, lr=2, data="b")])
    assert any("same data" in note for note in found["notes"])
    seeds = compare([result("0", 0.5, data="a"), result("1", 0.6, seed=1, data="b")])
    assert seeds["notes"] == [], "every seed has a split of its own"


def test_the_front_is_marked_by_the_cost_that_was_asked_for() -> None:
    runs = [
        result("0", 0.9, lr=1, metrics={"val/accuracy": 0.9, "cost/parameters": 9, "cost/latency_ms_p50": 1.0}),
        result("1", 0.8, lr=2, metrics={"val/accuracy": 0.8, "cost/parameters": 5, "cost/latency_ms_p50": 2.0}),
    ]
    assert [group["is_on_front"] for group in compare(runs)["groups"]] == [True, True]
    assert [group["is_on_front"] for group in compare(runs, cost="cost/latency_ms_p50")["groups"]] == [True, False]


def test_one_run_alone_and_none_that_finished_are_compared_all_the_same() -> None:
    alone = compare([result("0", 0.5)])
    assert (alone["groups"][0]["place"], alone["notes"], alone["cost"]) == (1, [], None)
    nothing = compare(BAD)
    assert (nothing["groups"], len(nothing["not_ranked"])) == ([], 3)
