"""`potstill compare` on what `potstill train -m` wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluation.test_between_runs import classes
from tests.evaluation.test_between_runs import run as evaluated_run
from tests.sweeps.runs import write_run

TINY = ("train", "-m", "debug=one_batch", "logger=none", "run.dir=sweep")


@pytest.mark.slow
def test_a_sweep_is_ranked_by_what_its_runs_recorded(potstill):
    assert potstill(*TINY, "optim.optimizer.lr=0.0001,0.01,-1", "seed=0,1").code == 2
    outcome = potstill("compare", "sweep", "metric=val/loss")
    assert outcome.code == 0, outcome.err
    comparison = json.loads(Path("sweep/comparison.json").read_text())
    losses = {}
    for number in range(4):
        job = json.loads(Path(f"sweep/{number}/job.json").read_text())
        lr = next(text.partition("=")[2] for text in job["overrides"] if text.startswith("optim."))
        losses.setdefault(float(lr), []).append(job["values"]["val/loss"])
    means = sorted((sum(values) / 2, lr) for lr, values in losses.items())
    found = [(group["mean"], group["values"]["optim.optimizer.lr"]) for group in comparison["groups"]]
    assert found == [(pytest.approx(mean), lr) for mean, lr in means]
    assert [group["num_seeds"] for group in comparison["groups"]] == [2, 2]
    assert [row["status"] for row in comparison["not_ranked"]] == ["refused", "refused"]
    assert "4 of 6 runs ranked" in outcome.out
    assert "refused" in Path("sweep/comparison.html").read_text()


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two runs of different rates."""
    metrics = {"val/loss": 1.0, "val/accuracy": 0.5}
    return [write_run(tmp_path / f"lr={lr}", {"lr": lr}, metrics=metrics, overrides=[f"lr={lr}"]) for lr in (0.1, 0.2)]


def test_paths_are_given_without_their_key_whatever_they_are_called(potstill, pair):
    quoted = pair[0].rename(pair[0].with_name("it's = mine"))
    outcome = potstill("compare", quoted, "html=false", pair[1], "output=there")
    assert outcome.code == 0, outcome.err
    assert not Path("there/comparison.html").exists()
    comparison = json.loads(Path("there/comparison.json").read_text())
    assert [run["name"] for run in comparison["runs"]] == ["it's = mine", "lr=0.2"]
    assert [group["place"] for group in comparison["groups"]] == [1, 1]


def test_evaluated_runs_stand_side_by_side_on_their_test_items(potstill):
    for name, share in (("a", 0.9), ("b", 0.6)):
        made = evaluated_run(name, classes(0, share))
        Path(name).mkdir()
        Path(name, "evaluation.json").write_text(json.dumps(made.evaluation))
        Path(name, "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in made.items))
    outcome = potstill("compare", "a", "b", "output=there")
    assert outcome.code == 0, outcome.err
    assert "a - b" in outcome.out
    assert "holds up" in outcome.out
    assert json.loads(Path("there/comparison.json").read_text())["pairs"][0]["n"] == 360
    assert "<script" not in Path("there/comparison.html").read_text()
    Path("b", "items.jsonl").write_text(Path("a", "items.jsonl").read_text().partition("\n")[2])
    refused = potstill("compare", "a", "b", "output=elsewhere")
    assert refused.code == 2
    assert "another test set" in refused.words
    assert not Path("elsewhere").exists()


def test_bad_input_is_refused_before_anything_is_written(potstill, pair):
    for arguments, words in (
        ((*pair,), "output=DIR"),
        ((pair[0], "metric=val/accurcy"), "Nearest: 'val/accuracy'"),
        ((pair[0], "metrik=val/loss"), "Nearest: 'metric'"),
        (("nowhere",), "is no directory"),
        ((), "paths"),
        (("wandb:team", "output=there"), "wandb:ENTITY/PROJECT"),
        (("wandb:team/project", "output=there"), "wandb login"),
    ):
        outcome = potstill("compare", *arguments)
        assert outcome.code == 2, arguments
        assert words in outcome.words
    assert not list(Path.cwd().rglob("comparison.*"))


def test_without_plotly_the_page_is_refused_before_the_work_and_the_rest_goes_on(potstill, pair, monkeypatch):
    find = "potstill.commands.compare.importlib.util.find_spec"
    monkeypatch.setattr(find, lambda name: None)  # noqa: ARG005
    outcome = potstill("compare", pair[0])
    assert outcome.code == 2
    assert "pip install 'potstill[sweeps]', or html=false" in outcome.words
    assert potstill("compare", pair[0], "html=false").code == 0


@pytest.mark.slow
def test_a_local_comparison_imports_neither_the_tracker_nor_the_network(pair):
    code = (
        "import sys; from potstill.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code or [name for name in ('wandb', 'requests') if name in sys.modules] or 0)"
    )
    command = [sys.executable, "-c", code, "compare", str(pair[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
