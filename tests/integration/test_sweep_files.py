"""Every file under sweeps/ asks for what can be had: its first point is run, for one step."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.sweeps.record import jobs_of, read_sweep

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"
GRIDS, STUDIES = (sorted((SWEEPS / folder).glob("*.yaml")) for folder in ("grid", "optuna"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of `experiment=digits_teacher`, trained for a step: what the files expect `make demo` to leave."""
    from potstill.cli import main

    run = tmp_path_factory.mktemp("teacher") / "run"
    assert main(["train", "experiment=digits_teacher", "debug=one_batch", f"run.dir={run}"]) == 0
    return run / "student"


@pytest.mark.slow
@pytest.mark.parametrize("file", GRIDS, ids=lambda file: file.stem)
def test_a_grid_runs_its_first_point(potstill, teacher, monkeypatch, request, file):
    if file.stem.startswith("clinc150"):
        request.getfixturevalue("shared")
    monkeypatch.setenv("TEACHER", str(teacher))
    outcome = potstill("sweep", "start", str(file), "debug=one_batch", "run.dir=jobs", "hydra.sweeper.only=[0]")
    first, *rest = jobs_of(read_sweep(Path("jobs").absolute()))
    assert first.status == "finished", outcome.err
    assert {job.status for job in rest} == {"missing"}


@pytest.mark.slow
@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_study_runs_its_first_trial(potstill, teacher, monkeypatch, file):
    monkeypatch.setenv("TEACHER", str(teacher))
    options = ("debug=one_batch", "run.dir=jobs", "hydra.sweeper.num_trials=1")
    outcome = potstill("sweep", "start", str(file), *options)
    assert outcome.code == 0, outcome.err
    assert [job.status for job in jobs_of(read_sweep(Path("jobs").absolute()))] == ["finished"]


def test_every_sweep_is_named_by_its_question():
    readme = (SWEEPS / "README.md").read_text(encoding="utf-8")
    files = [file for folder in ("grid", "optuna", "wandb") for file in sorted((SWEEPS / folder).glob("*.yaml"))]
    assert [file.name for file in files if f"`{file.parent.name}/{file.name}`" not in readme] == []
    lines = {
        file: [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
        for file in files
    }
    assert [file.name for file, comments in lines.items() if "?" not in "".join(comments)] == []
