"""The comparison on a terminal of 80 columns, in a pipe and without colour."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from potstill.reporting.comparison import mean_text, metric_text, print_comparison
from potstill.sweeps.comparison import compare
from potstill.sweeps.results import Result
from tests.sweeps.runs import result

REASON = "CUDA out of memory. " * 20
WORST = {"slice": "[bold]=[/bold]", "metric": "accuracy", "value": 0.1, "n": 40}


def many(num_seeds: int = 3) -> list[Result]:
    """25 groups that differ in four keys, one of them a long path; and one run that failed."""
    runs = []
    for number in range(25):
        keys = {
            "lr": 10.0 ** -(number % 5),
            "momentum": number % 3,
            "path": f"/a/very/long/path/{number}",
            "fused": True,
        }
        for seed in range(num_seeds):
            more = {"seed": seed, "cost": 1_000_000 * number, "worst_slice": WORST}
            runs.append(result(f"{number}-{seed}", 0.9 - number / 100 + seed / 1000 * (-1) ** number, **keys, **more))
    return [*runs, Result("x", "x", "failed", REASON, ["optim.optimizer.lr=[/red]"])]


def printed(comparison: dict[str, Any], encoding: str = "utf-8", **options: Any) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_comparison(comparison, Console(file=stream, width=80, **options))
    stream.seek(0)
    return stream.read()


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_a_pipe_gets_no_escape_codes_and_no_line_beyond_80_columns(num_seeds: int) -> None:
    text = printed(compare(many(num_seeds)))
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_columns_that_do_not_fit_are_named_and_none_is_cut_to_a_stump() -> None:
    text = " ".join(printed(compare(many())).split())
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "In comparison.json as well: 5 more rows; columns" in text
    assert "best leads by points" in text.partition("5 more rows; columns ")[2]


def test_no_color_is_respected_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(compare(many()), force_terminal=True)
    assert not any(f"\x1b[{code}" in text for code in range(31, 37))


def test_a_terminal_that_knows_only_ascii_gets_only_ascii() -> None:
    assert printed(compare(many()), encoding="ascii").isascii()


def test_one_seed_is_said_at_the_top() -> None:
    lines = printed(compare(many(1))).splitlines()
    assert lines[1].startswith("One seed:")


def test_what_is_not_ranked_is_shown_with_its_reason_and_markup_as_it_is() -> None:
    text = printed(compare(many()))
    assert "failed" in text
    assert "CUDA out of memory." in " ".join(text.split())
    assert "lr=[/red]" in text
    assert "[bold]=[/bold]" in text
    assert "25 of 26" not in text
    assert "75 of 76 runs ranked" in text


def test_a_front_is_marked_and_equal_costs_are_one_sentence() -> None:
    pair = [result("0", 0.9, lr=1, cost=2), result("1", 0.8, lr=2, cost=3)]
    text = printed(compare(pair))
    assert "2 *" in text
    assert "3 *" not in text
    same = printed(compare([result("0", 0.9, lr=1, cost=5442), result("1", 0.8, lr=2, cost=5442)]))
    assert "All have the same cost/parameters: 5,442." in same


def test_nothing_ranked_is_still_a_comparison() -> None:
    text = printed(compare([Result("0", "0", "failed", "no space left")]))
    assert "0 of 1 runs ranked" in text
    assert "no space left" in text


def test_values_carry_the_units_of_their_metrics() -> None:
    assert metric_text("val/accuracy", 0.662) == "66.2 %"
    assert metric_text("cost/parameters", 22_713_216.0) == "22,713,216"
    assert metric_text("train/seconds", 12.34) == "12.3 s"
    assert metric_text("val/loss", None) == "-"
    assert mean_text("val/accuracy", {"mean": 0.662, "deviation": 0.004}) == "66.2 +- 0.4 %"
    assert mean_text("val/loss", {"mean": 1.5, "deviation": None}) == "1.500"
