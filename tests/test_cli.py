"""What a user meets first: help, versions, completion, exit codes, and the config as it is composed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from potstill import __version__
from potstill.cli import COMMANDS, main
from potstill.config.paths import groups
from tests.processes import command_line, started


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_commands_groups_and_options(arguments, potstill):
    outcome = potstill(*arguments)
    assert outcome.code == 0
    names = [*COMMANDS, *groups(), *(option for options in groups().values() for option in options)]
    assert [name for name in names if name not in outcome.out] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(command, potstill):
    outcome = potstill(command, "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(f"usage: potstill {command} ")


def test_version(potstill):
    assert potstill("--version").out == f"potstill {__version__}\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("potstill tr", ["train"]),
        ("potstill ", list(COMMANDS)),
        ("potstill train data=di", ["data=digits"]),
        ("potstill inspect data=di", ["data=digits"]),
        ("potstill train optim.max_", ["optim.max_steps=", "optim.max_epochs=", "optim.max_skipped="]),
        ("potstill run recipe=dig", ["recipe=digits"]),
        ("potstill audit data=di", ["data=digits"]),
    ],
)
def test_completion(line, expected, potstill, monkeypatch):
    monkeypatch.setenv("COMP_LINE", line)
    outcome = potstill("-sc", "query=bash")
    assert outcome.code == 0
    assert sorted(outcome.out.split()) == sorted(expected)


@pytest.mark.slow
def test_the_completion_script_is_taken_by_bash():
    script = 'eval "$(potstill -sc install=bash)" && complete -p potstill'
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "hydra_bash_completion" in result.stdout


@pytest.mark.parametrize("command", ["train", "inspect"])
def test_the_composed_config_is_printed_with_overrides(command, potstill):
    outcome = potstill(command, "--cfg", "--resolve", "optim.max_epochs=7")
    config = OmegaConf.create(outcome.out)
    assert config.optim.max_epochs == 7
    assert config.callbacks.best.directory == f"runs/train/{config.run.name}/checkpoints"
    assert not list(Path.cwd().iterdir())


def test_inspect_shows_every_module_path_in_full(potstill, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    outcome = potstill("inspect")
    assert "resnet.encoder.stages.1.layers.0.shortcut.convolution" in outcome.out
    assert "5,442 parameters" in outcome.out


@pytest.mark.slow
def test_a_run_from_another_run_is_the_same_run(potstill, caplog):
    overrides = ["debug=one_batch", "optim.optimizer.lr=0.01", "seed=3"]
    assert potstill("train", *overrides, "run.dir=first").code == 0
    outcome = potstill("train", "--from", "first", "run.dir=second")
    assert outcome.code == 0
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    first, second = (yaml.safe_load(Path(name, "config.yaml").read_text()) for name in ("first", "second"))
    for config in (first, second):
        del config["run"]
        for callback in config["callbacks"].values():
            callback.pop("directory", None)
    assert first == second
    assert first["seed"] == 3
    weights = [Path(name, "student", "model.safetensors").read_bytes() for name in ("first", "second")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_config_that_no_longer_means_the_same_is_warned_about(potstill, caplog):
    assert potstill("train", "debug=one_batch", "run.dir=first").code == 0
    saved = OmegaConf.load("first/config.yaml")
    saved.optim.clip_norm = 9.0
    OmegaConf.save(saved, "first/config.yaml")
    assert potstill("train", "--from", "first", "run.dir=second").code == 0
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.endswith("Not as they were: optim.clip_norm")


@pytest.mark.slow
def test_overrides_after_from_win(potstill):
    assert potstill("train", "debug=one_batch", "seed=3", "run.dir=first").code == 0
    assert potstill("train", "--from", "first", "seed=4", "run.dir=second").code == 0
    assert OmegaConf.load("second/config.yaml").seed == 4


def test_a_bug_keeps_its_traceback(potstill, monkeypatch):
    monkeypatch.setattr("potstill.commands.train.assemble_source", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        potstill("train", "debug=one_batch")


@pytest.mark.slow
def test_a_failing_run_leaves_with_1_and_its_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = tmp_path / "shown.txt"
    with started(fail, shown=shown) as process:
        process.join(120)
        assert process.exitcode == 1
    assert "Traceback" in shown.read_text()
    assert "ZeroDivisionError" in shown.read_text()
    assert json.loads((tmp_path / "mine" / "manifest.json").read_text())["status"] == "failed"


def fail() -> int:
    import potstill.commands.train as train

    train.fit = lambda *_: 1 / 0
    return main(["train", "debug=one_batch", "run.dir=mine"])


@pytest.mark.slow
def test_an_interrupted_run_leaves_with_130_and_says_so(tmp_path, monkeypatch):
    overrides = ["logger=csv", "optim.max_epochs=100000", "callbacks.progress.every_steps=1", "run.dir=mine"]
    monkeypatch.chdir(tmp_path)
    shown = tmp_path / "shown.txt"
    with started(command_line, "train", *overrides, shown=shown) as process:
        metrics = tmp_path / "mine" / "train.log"
        deadline = time.monotonic() + 120
        while not (metrics.exists() and "step 2/" in metrics.read_text()):
            assert process.is_alive(), shown.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert process.pid
        os.kill(process.pid, signal.SIGINT)
        process.join(60)
        assert process.exitcode == 130
    assert "Traceback" not in shown.read_text()
    assert "Interrupted." in shown.read_text()
    assert json.loads((tmp_path / "mine" / "manifest.json").read_text())["status"] == "interrupted"
