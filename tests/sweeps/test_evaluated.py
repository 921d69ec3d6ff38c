"""What of a directory is an evaluated run, and which of them may stand side by side."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from potstill.errors import UserError
from potstill.evaluation.between_runs import Evaluated
from potstill.sweeps.evaluated import is_evaluated, read_evaluated, refuse_different
from potstill.tracking.remote import evaluation_of
from tests.reporting.evaluated import evaluated


def write(directory: Path, items: int = 3, **changes: object) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "evaluation.json").write_text(json.dumps({**evaluated(), **changes}))
    models = {"student": {"rows": 1, "right": 1.0, "nll": 0.5, "answer": 0, "confidence": 0.9}}
    lines = [json.dumps({"item": f"{n:x}", "text": "", "slices": {}, "models": models}) for n in range(items)]
    (directory / "items.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def test_a_sweep_with_an_evaluation_in_it_is_no_evaluated_run(tmp_path: Path) -> None:
    assert is_evaluated(write(tmp_path / "a"))
    assert not is_evaluated(tmp_path)
    (tmp_path / "a" / "sweep.json").write_text("{}")
    assert not is_evaluated(tmp_path / "a")


def test_another_test_set_is_refused_with_how_far_the_two_overlap(tmp_path: Path) -> None:
    runs = [read_evaluated(write(tmp_path / name, items)) for name, items in (("a", 3), ("b", 2))]
    refuse_different([runs[0], runs[0]])
    with pytest.raises(UserError, match=r"another test set .*2 of 2 items are in both"):
        refuse_different(runs)
    other = Evaluated("c", "c", {**runs[0].evaluation, "metric": "perplexity"}, runs[0].items)
    with pytest.raises(UserError, match="another metric"):
        refuse_different([runs[0], other])


def test_what_an_earlier_potstill_wrote_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="earlier potstill"):
        read_evaluated(write(tmp_path / "a", schema_version=1))
    (write(tmp_path / "b") / "items.jsonl").unlink()
    with pytest.raises(UserError, match=r"items\.jsonl"):
        read_evaluated(tmp_path / "b")


def test_an_evaluation_of_wandb_is_read_as_its_directory_would_be(tmp_path: Path) -> None:
    source = write(tmp_path / "a")

    def download(root: Path) -> None:
        for file in source.iterdir():
            (Path(root) / file.name).write_bytes(file.read_bytes())

    kept = SimpleNamespace(type="evaluation", download=download)
    remote = SimpleNamespace(name="kd-evaluate", logged_artifacts=lambda: [SimpleNamespace(type="model"), kept])
    found = evaluation_of(remote, "wandb:team/project/runs/x")
    assert (found.name, found.place) == ("kd-evaluate", "wandb:team/project/runs/x")
    assert (found.evaluation, found.items) == (read_evaluated(source).evaluation, read_evaluated(source).items)
    with pytest.raises(UserError, match="logged no evaluation"):
        evaluation_of(SimpleNamespace(name="a", logged_artifacts=lambda: []), "wandb:x")
