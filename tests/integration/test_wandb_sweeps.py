"""sweeps/wandb/*.yaml: what W&B's own code makes of them, and that what its agent starts runs as it says."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from potstill.config.compose import composed, typed
from potstill.config.paths import groups
from potstill.config.schema import TrainConfig
from potstill.config.validate import validate
from potstill.tracking.checkpoints import MONITORS
from potstill.tracking.record import slice_table
from tests.processes import command_line, started
from tests.tiers import one_and_others
from tests.wandb_log import read_back, read_records

from .sweep_server import SweepServer, sent, sweeps

REPO = Path(__file__).resolve().parents[2]
FILES = sorted((REPO / "sweeps/wandb").glob("*.yaml"))
POTSTILL = Path(sys.executable).with_name("potstill")
TEACHER = ("train", "experiment=digits_teacher", "debug=one_batch")
QUICK = ("debug=one_batch", "logger=wandb", "optim.max_steps=2", "validate_every=1")
BY_NAME = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())


def points(sweep: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The first `count` points of the search, each proposed after the runs before it have ended, ever better."""
    made: list[sweeps.SweepRun] = []
    for number in range(count):
        run = sweeps.next_run(sweep, made, validate=True)
        assert run is not None
        run.state, run.summary_metrics = sweeps.RunState.finished, {sweep["metric"]["name"]: 1.0 / (1 + number)}
        made.append(run)
    return [sent(run.config) for run in made]


def agents_command(
    sweep: dict[str, Any], point: dict[str, Any], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment that the client's agent would start a process with."""
    from wandb import wandb_agent

    started: dict[str, Any] = {}

    class Starter:
        def __init__(self, **given: Any) -> None:
            started.update(given)

    monkeypatch.setenv("WANDB_DIR", str(directory))
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "")
    monkeypatch.setattr(wandb_agent, "AgentProcess", Starter)
    agent = wandb_agent.Agent(None, None, sweep_id="sweep")
    agent._sweep_command = list(sweep["command"])
    agent._command_run({"run_id": "run0", "program": sweep["program"], "args": point})
    return started["command"], started["env"]


@BY_NAME
def test_a_sweep_file_is_one_to_wandbs_own_eyes(file):
    assert sweeps.schema_violations_from_proposed_config(read(file)) == []
    assert re.match("# .*[?]", file.read_text()), "its question comes first"
    assert read(file)["name"] == file.stem


# Of W&B's Gaussian process: the metrics are made up.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@BY_NAME
def test_every_command_of_the_agent_composes_to_the_point_it_was_given(file, tmp_path, monkeypatch):
    sweep = read(file)
    for point in points(sweep, 5):
        command, environment = agents_command(sweep, point, tmp_path, monkeypatch)
        assert command[:3] == ["/usr/bin/env", ".venv/bin/potstill", "train"]
        assert environment["WANDB_RUN_ID"] == "run0"
        config = composed("train", command[3:])
        validate(typed(config, TrainConfig))
        assert config.run.dir == f"runs/{file.stem}/run0"
        for key, entry in point.items():
            if key not in groups():  # of a group: it is composed, or refused
                assert OmegaConf.select(config, key, throw_on_missing=True) == entry["value"]


@BY_NAME
def test_a_sweep_looks_at_what_a_run_logs_after_every_validation(file):
    metric = read(file)["metric"]
    assert metric == {"name": metric["name"], "goal": f"{MONITORS[metric['name']]}imize"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("teacher") / "run"
    with started(command_line, *TEACHER, f"run.dir={directory}") as process:
        process.join(120)
        assert process.exitcode == 0
    return str(directory / "student")


@pytest.mark.slow
@pytest.mark.parametrize("file", one_and_others(*FILES), ids=lambda file: file.stem)
def test_the_first_run_of_a_sweep_logs_what_the_sweep_asks_for(file, teacher, tmp_path, monkeypatch):
    sweep = read(file)
    [point] = points(sweep, 1)
    command, environment = agents_command(sweep, point, tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    quick = (*command[2:], *QUICK, "logger.mode=offline")
    with started(command_line, *quick, environment={**environment, "TEACHER": teacher}) as process:
        process.join(120)
        assert process.exitcode == 0
    run_dir = tmp_path / "runs" / file.stem / "run0"
    run, history = read_back(run_dir), history_of(run_dir, sweep["metric"]["name"])
    metrics = json.loads((run_dir / "manifest.json").read_text())["metrics"]
    assert (run["run_id"], run["summary"]["status"]) == ("run0", "finished")
    assert {name: run["summary"][name] for name in metrics} == metrics
    assert isinstance(run["summary"][sweep["metric"]["name"]], float)
    assert len(history) == 3, "one a validation, and that of the weights kept"
    assert {key: run["config"][key] for key in point} == {key: entry["value"] for key, entry in point.items()}


def history_of(run_dir: Path, metric: str) -> list[float]:
    rows = [record["item"] for record in read_records(run_dir, "history")]
    return [row[metric] for row in rows if metric in row]


@pytest.mark.slow
def test_the_jobs_of_a_grid_are_compared_by_plain_columns(potstill, teacher):
    swept = "loss.term.kd.temperature=2,4"
    outcome = potstill(
        *("train", "-m", "experiment=digits", f"teacher.path={teacher}", swept, "run.dir=jobs"),
        *(*QUICK, "logger.mode=offline", "logger.tags=[mine]"),
    )
    assert outcome.code == 0, outcome.err
    for name, temperature in (("0", 2), ("1", 4)):
        directory = Path("jobs", name)
        run, metrics = read_back(directory), json.loads((directory / "manifest.json").read_text())["metrics"]
        assert run["config"]["loss"]["term"]["kd"]["temperature"] == temperature
        assert run["config"]["swept"] == {"loss.term.kd.temperature": temperature}
        assert run["config"]["choices"]["loss"] == "kd"
        assert not {"swept", "choices"} & set(run["config"]["run"])
        assert run["tags"] == ["mine"]
        [start] = read_records(directory, "run")
        assert (start["run_group"], start["job_type"]) == (
            json.loads(Path("jobs/sweep.json").read_text())["name"],
            "train",
        )
        assert {key: run["summary"][key] for key in metrics} == metrics
        assert {"val/loss", "val/accuracy", "train/seconds", "cost/parameters"} <= set(metrics)
        assert run["summary"]["status"] == "finished"
        rows = list(csv.DictReader((directory / "metrics.csv").read_text().splitlines()))
        drawn = [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]]
        assert history_of(directory, "val/accuracy") == pytest.approx(drawn)
        assert run["summary"]["best/val/accuracy"] == pytest.approx(max(drawn))
        assert run["summary"]["best/val/accuracy"] >= metrics["val/accuracy"]
    assert potstill("compare", "jobs", "metric=val/loss", "html=false").code == 0
    ranking = [group["runs"][0] for group in json.loads(Path("jobs/comparison.json").read_text())["groups"]]
    assert ranking == sorted(("0", "1"), key=lambda name: history_of(Path("jobs", name), "val/loss")[-1])


@pytest.mark.slow
def test_an_evaluation_says_what_it_was_made_of_and_has_the_config_of_its_student(potstill):
    quick = (*QUICK, "logger.mode=offline")
    assert potstill("train", "experiment=digits_teacher", *quick, "run.dir=teacher").code == 0
    assert potstill("train", "experiment=digits", "teacher.path=teacher/student", *quick, "run.dir=mine").code == 0
    assert potstill("evaluate", "run=mine", "bar=none", "logger.mode=offline", "output=there").code == 0
    teacher, student, evaluation = (read_back(Path(name)) for name in ("teacher", "mine", "there"))
    data = f"data-{json.loads(Path('mine/manifest.json').read_text())['fingerprints']['data']}"
    students = [f"student-{run['run_id']}" for run in (teacher, student)]
    made = f"evaluation-{evaluation['run_id']}"
    assert evaluation["config"]["lineage"] == {"inputs": [data, *students], "outputs": [made]}
    assert student["config"]["lineage"] == {"inputs": [data, students[0]], "outputs": [students[1]]}
    logged = {record["name"]: record["type"] for record in read_records(Path("there"), "artifact")}
    assert logged == {**logged, data: "dataset", made: "evaluation"}
    _, rows = slice_table(json.loads(Path("there/evaluation.json").read_text()))
    assert evaluation["summary"]["evaluation/slices"]["nrows"] == len(rows)
    assert evaluation["config"]["choices"] == student["config"]["choices"]
    [start] = read_records(Path("there"), "run")
    assert (start["run_group"], start["job_type"]) == ("debug", "evaluate")


@pytest.fixture
def server() -> Iterator[SweepServer]:
    server = SweepServer()
    yield server
    server.kill()


def wandb_command(server: SweepServer, directory: Path, *arguments: object, **environment: str) -> str:
    """What `wandb ARGUMENTS` printed, in `directory`, with a server of its own and none of this process's settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    for name in ("DATA", "CACHE", "CONFIG"):
        own[f"WANDB_{name}_DIR"] = str(directory / "client")
    own |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40, "WANDB_ENTITY": "me", **environment}
    command = [sys.executable, "-m", "wandb", *map(str, arguments)]
    done = subprocess.run(command, cwd=directory, env=own, capture_output=True, text=True, check=True, timeout=200)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_an_agent_runs_what_the_sweep_proposes_and_its_runs_name_each_value_once(server, teacher, tmp_path):
    quick = tmp_path / "quick.yaml"
    quick.write_text(yaml.safe_dump(quickened(read(REPO / "sweeps/wandb/digits_random.yaml"), *QUICK)))
    assert "wandb agent me/potstill/sweep" in wandb_command(server, tmp_path, "sweep", quick)
    wandb_command(server, tmp_path, "agent", "--count", 1, "me/potstill/sweep", TEACHER=teacher)
    config = server.configs["run0"]
    point = {key: entry["value"] for key, entry in server.runs["run0"].config.items()}
    assert {key: config[key] for key in point} == point
    assert "lr" not in config["optim"]["optimizer"], "the sweep's own column has it"
    assert (server.groups["run0"], config["choices"]["loss"]) == ("digits_random", "kd")
    assert len([row for row in server.history["run0"] if "val/accuracy" in row]) == 3
    assert server.artifacts["student-run0"] == "model"


@pytest.mark.slow
@pytest.mark.thorough
def test_a_run_that_hyperband_stops_is_saved_and_called_interrupted(server, teacher, tmp_path):
    sweep = quickened(read(REPO / "sweeps/wandb/digits_hyperband.yaml"), *QUICK, "optim.max_steps=3000")
    for name in ("a", "b", "c"):
        server.history[name] = [{"val/accuracy": 2.0}] * 3000  # no run is as good
        server.runs[name] = sweeps.SweepRun(name=name, state=sweeps.RunState.finished)
    file = tmp_path / "long.yaml"
    file.write_text(yaml.safe_dump(sweep))
    wandb_command(server, tmp_path, "sweep", file)
    wandb_command(server, tmp_path, "agent", "--count", 1, "me/potstill/sweep", TEACHER=teacher)
    run_dir = tmp_path / "runs/digits_hyperband/run3"
    assert json.loads((run_dir / "manifest.json").read_text())["status"] == "interrupted"
    assert (run_dir / "checkpoints/last.ckpt").exists()


def quickened(sweep: dict[str, Any], *overrides: str) -> dict[str, Any]:
    """`sweep` with `overrides` before what varies, run by this environment's potstill."""
    *command, varying = sweep["command"]
    return {**sweep, "program": str(POTSTILL), "command": [*command, *overrides, varying]}
