"""Bad input, typed at the real command line: exit code 2, one screen with key, value and fix, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import pytest

MAX_LINES, MAX_COLUMNS = 25, 100
TEXT = ("data=files", "data.source.train=train.jsonl", "student=bert_tiny", "debug=one_batch")
TEACHER = ("teacher=pretrained", "teacher.path={teacher}", "loss=kd")


@pytest.fixture(scope="module")
def models(saved) -> list[tuple[str, str]]:
    """What stands for a path in the tables below, and the path."""
    others = ("{other_words}", saved(words=["cat", "eel"])), ("{other_labels}", saved(labels=["a", "b"]))
    return [("{teacher}", saved()), *others]


@pytest.fixture
def refused(potstill, tmp_path: Path, models) -> Callable[..., str]:
    """Runs a command that must be refused, in a directory with a data set of two classes; returns what was shown."""
    words = [("eel", "no"), ("cat", "yes")]
    rows = [{"text": " ".join([word] * (n + 1)), "label": label} for n in range(60) for word, label in words]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "empty.jsonl").write_text("")
    before = set(tmp_path.rglob("*"))

    def run(*arguments: str) -> str:
        outcome = potstill(*(reduce(lambda text, pair: text.replace(*pair), models, given) for given in arguments))
        assert outcome.code == 2, outcome
        assert "Traceback" not in outcome.err + outcome.out
        assert "Error executing job" not in outcome.err
        assert len(outcome.err.strip().splitlines()) <= MAX_LINES
        assert [line for line in outcome.err.splitlines() if len(line) > MAX_COLUMNS and " " in line] == []
        assert set(tmp_path.rglob("*")) == before, "something is left behind"
        return outcome.words

    return run


TWELVE = {
    "misspelt key": (["optim.max_step=3"], ["optim.max_step='3'", "Nearest: 'optim.max_steps'"]),
    "misspelt option": (["data=digtis"], ["data='digtis'", "Nearest: 'digits'"]),
    "wrong type": (["optim.max_epochs=many"], ["optim.max_epochs='many'", "whole number", "optim.max_epochs=10"]),
    "leftover term": (
        ["loss=ce", "loss.term.kd.temperature=4"],
        ["loss.term.kd.temperature='4'", "'loss/term=[ce,kd]'"],
    ),
    "missing file": (
        [*TEXT, "data.source.train=trian.jsonl"],
        ["data.source.train='trian.jsonl'", "no such file", "Nearest: 'train.jsonl'"],
    ),
    "missing column": (
        [*TEXT, "student.tokenizer={teacher}", "data.columns.text=txt"],
        ["data.columns.text='txt'", "Nearest: 'text'"],
    ),
    "bad split": (
        [*TEXT, "student.tokenizer={teacher}", "data.validation_fraction=1.5"],
        ["data.validation_fraction=1.5", "between 0 and 1", "data.validation_fraction=0.1"],
    ),
    "label unknown to the teacher": (
        [*TEXT, *TEACHER, "teacher.path={other_labels}"],
        ["teacher.path=", "does not know these labels of the data: no, yes", "It knows a, b"],
    ),
    "tokenizers that differ": (
        [*TEXT, *TEACHER, "student.tokenizer={other_words}"],
        ["student.tokenizer=", "differs from the teacher's", "student.tokenizer="],
    ),
    "tap that does not exist": (
        [
            *(*TEXT, *TEACHER, "loss/term=[ce,hidden_mse]", "loss.term.hidden_mse.teacher_tap=bert.encoder.layer.1"),
            "loss.term.hidden_mse.student_tap=bert.encoder.layers.1",
        ],
        ["loss.term.hidden_mse.student_tap='bert.encoder.layers.1'", "Nearest: 'bert.encoder.layer.1'", "inspect"],
    ),
    "width of copied layers": (
        [*TEXT, *TEACHER, "student=teacher_layers", "+student.config.hidden_size=32"],
        ["student.config.hidden_size=32", "16"],
    ),
    "empty data set": ([*TEXT, "data.source.train=empty.jsonl"], ["data.source.train='empty.jsonl'", "empty"]),
}

MORE = {
    "leftover term, added": (
        ["loss=ce", "+loss.term.kd.temperature=4"],
        ["loss.term.kd={'temperature': 4}", "'loss/term=[ce,kd]'"],
    ),
    "widths of taps": (
        [
            *(*TEXT, *TEACHER, "loss/term=[ce,hidden_mse]", "loss.term.hidden_mse.teacher_tap=bert.encoder.layer.1"),
            *("loss.term.hidden_mse.student_tap=bert.encoder.layer.1", "loss.term.hidden_mse.projector=none"),
        ],
        ["loss.term.hidden_mse.projector='none'", "128", "16", "projector=linear"],
    ),
    "added key": (["+typo=3"], ["typo=3", "no key"]),
    "added key, nested": (["+optim.max_step=3"], ["optim.max_step=3", "Nearest: 'optim.max_steps'"]),
    "deleted group": (["~optim"], ["optim.max_steps=None", "optim.max_steps=1000"]),
    "unset path of the teacher": (["teacher=pretrained"], ["teacher.path='???'", "teacher.path=..."]),
    "unset path of the student": (["student=pretrained"], ["student.path", "student.path=..."]),
    "unset taps": (["loss/term=[ce,hidden_mse]"], ["loss.term.hidden_mse.student_tap=None"]),
    "group is null": (["hardware=null"], ["hardware='null'", "There are: cpu, cpu_fsdp2"]),
    "group without an option": (["optim"], ["optim=''", "There are: adamw, sgd"]),
    "seed": (["seed=abc"], ["seed='abc'", "seed=0"]),
    "truth": (["hardware.compile=maybe"], ["hardware.compile='maybe'", "neither true nor false"]),
    "not null": (["data.source=null"], ["data.source='null'", "must not be null"]),
    "number as text": (["optim.optimizer.lr='1e-3'"], ["optim.optimizer.lr='1e-3'", "not a number", "1.0e-3"]),
    "impossible number": (["optim.optimizer.lr=-1.0"], ["optim.optimizer=", "'lr': -1.0", "Invalid learning rate"]),
    "option of another optimizer": (["+optim.optimizer.momentum=0.9"], ["optim.optimizer.momentum=0.9", "AdamW"]),
    "misspelt option of a term": (
        ["loss=kd", "loss.term.kd.temprature=2"],
        ["loss.term.kd.temprature='2'", "Nearest: 'loss.term.kd.temperature'"],
    ),
    "kd without a teacher": (
        ["loss=kd"],
        ["teacher.path=None", "teacher=pretrained teacher.path=DIRECTORY", "loss=ce"],
    ),
    "forbidden target": (["data.source._target_=os.system"], ["data.source._target_='os.system'", "Allowed prefixes"]),
    "monitor of the test data": (["callbacks.best.monitor=test/loss"], ["callbacks.best.monitor='test/loss'"]),
    "logger's mode": (["logger.mode=onlin"], ["logger.mode='onlin'", "Nearest: 'online'"]),
    "logger's option": (["logger.project=3"], ["logger.project=3", "not text"]),
    "option of nothing": (["logger=none", "logger.project=x"], ["logger.project='x'", "null"]),
    "precision": (["hardware.precision=17"], ["hardware.precision='17'", "There are: 16-mixed, 32"]),
    "an accelerator's attention on a CPU": (
        [*TEXT, "hardware.packed_attention=flex"],
        ["hardware.packed_attention='flex'", "on CPUs", "hardware.packed_attention=groups"],
    ),
    "accelerator": (["hardware.accelerator=abc"], ["hardware.accelerator='abc'", "hardware=cpu"]),
    "unreadable override": (["seed=[1"], ["seed='[1'", "key=value"]),
    "a = in a list": (["logger.tags=[a=1,b=2]"], ["logger.tags='[a=1,b=2]'", """'logger.tags=["a=1","b=2"]'"""]),
    "misspelt key of an architecture": (["+student.config.hidden_size=3"], ["student.config.hidden_size=3", "Nearest"]),
    "flag": (["--cfgg"], ["'--cfgg'", "Nearest: '--cfg'"]),
    "run to start from": (["--from", "nowhere"], ["--from=", "nowhere", "holds no config.yaml"]),
}


@pytest.mark.parametrize("name", TWELVE)
def test_the_twelve_faults_that_users_make(name, refused):
    overrides, expected = TWELVE[name]
    shown = refused("train", *overrides)
    assert [text for text in expected if text not in shown] == [], shown


@pytest.mark.parametrize("name", MORE)
def test_further_faults_of_a_training(name, refused):
    overrides, expected = MORE[name]
    shown = refused("train", *overrides)
    assert [text for text in expected if text not in shown] == [], shown


def test_ranks_that_would_each_make_up_a_name_are_refused(refused, monkeypatch):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("potstill.commands.train.train", lambda *_: pytest.fail("it would wait for the other rank"))
    shown = refused("train", "hardware.devices=2", "hardware.strategy=ddp", "student=vit_digits_tiny")
    assert "run.name=None is made of the time, and each of 2 processes" in shown
    assert "run.name=NAME" in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["traim"], ["'traim'", "Nearest: 'train'"]),
        (["evaluate"], ["run='???'", "run=..."]),
        (["evaluate", "run=nowhere"], ["nowhere", "holds no config.yaml"]),
        (["run", "recipe=digts"], ["recipe='digts'", "Nearest: 'digits'"]),
        (["run", "teacher.path=x"], ["teacher.path='x'", "recipe.stages.STAGE.extra"]),
        (["run", "recipe.stages.teacher.command=trian"], ["recipe.stages.teacher.command='trian'", "'train'"]),
        (["run", 'recipe.stages.student.extra=["optim.max_step=3"]'], ["optim.max_step", "optim.max_steps"]),
        (["run", 'recipe.stages.student.overrides=["teacher.path={taecher}"]'], ["taecher", "'teacher'"]),
        (["inspect", "data=digtis"], ["data='digtis'", "Nearest: 'digits'"]),
        (["inspect", "teacher=pretrained"], ["teacher.path='???'"]),
    ],
)
def test_faults_at_the_other_commands(arguments, expected, refused):
    shown = refused(*arguments)
    assert [text for text in expected if text not in shown] == [], shown


def test_debug_shows_where_the_fault_was_found(potstill):
    outcome = potstill("train", "--debug", "optim.max_step=3")
    assert outcome.code == 2
    assert "Traceback" in outcome.err
    assert "optim.max_step='3'" in outcome.err


@pytest.mark.slow
def test_a_directory_in_use_is_not_written_over(potstill, tmp_path):
    assert potstill("train", "debug=one_batch", "run.dir=mine").code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    outcome = potstill("train", "debug=one_batch", "run.dir=mine", "seed=1")
    assert outcome.code == 2
    assert f"run.dir='{tmp_path / 'mine'}' holds a run already." in outcome.words
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_baseline_trained_on_another_split_is_not_compared(potstill):
    for name, seed in (("student", 0), ("baseline", 0), ("other", 1)):
        labels = ["data.labels_per_class=5", f"seed={seed}"]
        assert potstill("train", "debug=one_batch", f"run.dir={name}", *labels).code == 0
    outcome = potstill("evaluate", "run=student", "baseline=other", "logger=none")
    assert outcome.code == 2
    assert "baseline='other'" in outcome.err
    assert "other data, labels or splits" in outcome.words
    assert not Path("student/evaluation.json").exists()
    assert potstill("evaluate", "run=student", "baseline=baseline", "bar=none", "logger=none").code == 0


@pytest.mark.slow
def test_a_user_sees_no_traceback(tmp_path):
    command = [sys.executable, "-m", "potstill", "train", "loss=kd"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[0].startswith("teacher.path=None")
    assert list(tmp_path.iterdir()) == []
