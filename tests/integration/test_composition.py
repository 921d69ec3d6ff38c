"""How terms are put together, from the command line: schedules, learned temperatures, several teachers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from .interrupted import assert_same_run, checkpoint, cut_off, metrics

RUN = Path("run")
TEXT = (
    *("train", "data=files", "data.source.train=train.jsonl", "student=bert_tiny", "student.config.hidden_size=16"),
    *("student.config.intermediate_size=32", "student.tokenizer={teacher}", "logger=csv", "log_every=1"),
    *("data.batch_size=16", "run.dir=run"),
)
TAUGHT = (*TEXT, "loss=kd", "teacher=pretrained", "teacher.path={teacher}")


@pytest.fixture(scope="module")
def teacher(saved) -> str:
    return saved(words=["eel", "cat", "dog", "owl"], initializer_range=0.5)


@pytest.fixture
def train(potstill, tmp_path, teacher) -> Callable[..., Any]:
    words = ["eel", "cat", "dog", "owl"]
    texts = [" ".join(words[(n >> shift) % 4] for shift in range(0, 2 * (2 + n % 7), 2)) for n in range(120)]
    rows = [{"text": text, "label": ("no", "yes")[n % 2], "origin": "ab"[n // 2 % 2]} for n, text in enumerate(texts)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def run(*options: str) -> Any:
        return potstill(*(text.replace("{teacher}", teacher) for text in options))

    return run


def logged(name: str) -> list[float]:
    return [float(row[name]) for row in metrics(RUN) if name in row]


COSINE = "loss.term.kd.temperature={schedule: cosine, start: 8.0, end: 1.0, steps: 4}"


@pytest.mark.slow
def test_a_schedule_from_the_command_line_is_what_each_step_trains_with(train):
    outcome = train(*TAUGHT, COSINE, "loss.term.ce.weight={schedule: warm_up, end: 0.5}", "optim.max_epochs=1")
    assert outcome.code == 0, outcome
    temperatures, weights = logged("train/temperature/kd"), logged("train/weight/ce")
    expected = [1.0 + 7.0 * (1.0 + math.cos(math.pi * min(step, 4) / 4)) / 2 for step in range(6)]
    assert temperatures == pytest.approx(expected)
    assert weights == pytest.approx([0.5 * step / 6 for step in range(6)])


@pytest.mark.slow
def test_a_number_takes_the_place_of_a_schedule(train):
    assert train(*TAUGHT, COSINE, "loss.term.kd.temperature=4", "optim.max_epochs=1").code == 0
    assert logged("train/temperature/kd") == [], "what stands still is in the config"


@pytest.mark.slow
def test_a_learned_temperature_is_trained_and_kept_and_is_no_part_of_the_student(train):
    outcome = train(*TAUGHT, "loss=ctkd", "loss.term.ctkd.reversal=1.0", "optim.max_epochs=2")
    assert outcome.code == 0, outcome
    temperatures = logged("train/temperature/ctkd")
    assert temperatures[0] == pytest.approx(1.0 + 20.0 / (1.0 + math.exp(-1.0)))
    assert temperatures[-1] != temperatures[0]
    kept = checkpoint(RUN)
    parameter = kept["state_dict"]["objective.terms.ctkd.parameter"].item()
    assert parameter != 1.0
    assert not any("parameter" in name for name in load_file(RUN / "student" / "model.safetensors"))
    decayed, others = kept["optimizer_states"][0]["param_groups"]
    assert decayed["weight_decay"] > 0.0
    assert others["weight_decay"] == 0.0


@pytest.mark.slow
def test_a_schedule_that_cannot_be_is_refused_before_anything_is_loaded(train, monkeypatch):
    monkeypatch.setattr("potstill.commands.train.assemble_source", lambda *_, **__: pytest.fail("data was loaded"))
    for given, shown in {
        "loss.term.kd.temperature={schedule: cosin, start: 8.0, end: 1.0}": "Nearest: 'cosine'",
        "loss.term.kd.temperature={schedule: cosine, start: 8.0, end: 0.0}": "loss.term.kd.temperature=0.0",
        "loss.term.kd.focus={schedule: cosine, start: 8.0, end: 1.0}": "loss.term.kd.focus=",
        "loss.term.ce.weight={schedule: linear, start: 8.0}": "loss.term.ce.weight.end=None",
    }.items():
        outcome = train(*TAUGHT, given)
        assert (outcome.code, "Traceback" in outcome.err) == (2, False)
        assert shown in outcome.words


@pytest.fixture(scope="module")
def teachers(saved) -> dict[str, str]:
    """Two teachers with other opinions, the second with its labels the other way round."""
    words = ["eel", "cat", "dog", "owl"]
    orders = {"a": ["no", "yes"], "b": ["yes", "no"]}
    return {name: saved(words=words, labels=labels, initializer_range=0.5) for name, labels in orders.items()}


@pytest.fixture
def several(teachers) -> tuple[str, ...]:
    members = [f"+teacher.members.{name}.path={path}" for name, path in teachers.items()]
    return (*TEXT, "loss=kd", "teacher=several", *members, "optim.max_epochs=2")


def tokenizer_of(teachers: dict[str, str], options: tuple[str, ...]) -> list[str]:
    return [text.replace("{teacher}", teachers["a"]) for text in options]


COMBINED = {
    "probabilities": ("+teacher.members.b.weight=3.0",),
    "losses": ("teacher.combine=losses", "teacher.remember=true"),
    "route": ("teacher.combine=route", "teacher.route_by=origin", "data.slices=[origin]"),
}


@pytest.mark.slow
@pytest.mark.parametrize("combine", COMBINED)
def test_several_teachers_train_a_student_and_are_recorded_and_evaluated(combine, train, several, teachers, potstill):
    outcome = train(*tokenizer_of(teachers, several), *COMBINED[combine])
    assert outcome.code == 0, outcome
    last = next(row for row in reversed(metrics(RUN)) if "train/loss" in row)
    for name in "ab":
        assert {f"train/teacher/{name}/{what}" for what in ("agreement", "kl", "entropy", "rows")} <= last.keys()
    manifest = json.loads((RUN / "manifest.json").read_text())
    assert set(manifest["parents"]) == set(teachers.values())
    assert set(teachers.values()) <= manifest["fingerprints"].keys()
    assert potstill("evaluate", "run=run", "bar=none", "output=evaluated", "logger=none").code == 0
    models = json.loads(Path("evaluated/evaluation.json").read_text())["models"]
    assert list(models) == ["teacher", "teacher/a", "teacher/b", "student", "majority"]
    assert [models[f"teacher/{name}"]["path"] for name in "ab"] == list(teachers.values())
    assert models["teacher"]["size"]["parameters"] == 2 * models["teacher/a"]["size"]["parameters"]
    if combine == "route":
        slices = {name: models[f"teacher/{name}"]["slices"][f"origin={name}"] for name in "ab"}
        agreement = {name: each["against_teacher"]["agreement"] for name, each in slices.items()}
        assert agreement == {"a": 1.0, "b": 1.0}, "of each example, the teacher is the one that it is routed to"


@pytest.mark.slow
def test_a_run_with_several_teachers_that_remember_goes_on_as_if_it_had_not_been_cut_off(
    train, several, teachers, potstill
):
    options = (*tokenizer_of(teachers, several), *COMBINED["route"], "teacher.remember=true", "validate_every=4")
    assert train(*options, "run.dir=whole").code == 0
    with cut_off(6):
        train(*options, "run.dir=cut")
    assert set(checkpoint(Path("cut"))["callbacks"]["MemoryInCheckpoints"]["of_ranks"][0]) == {"a", "b"}
    assert potstill("train", "--resume", "cut").code == 0
    assert_same_run(Path("cut"), Path("whole"))


WRONG = {
    "no path": (["+teacher.members.c.weight=2.0"], ["teacher.members.c.path", "needs one"]),
    "misspelt": (["+teacher.members.a.wieght=2.0"], ["teacher.members.a.wieght", "Nearest: 'weight'"]),
    "weight": (["+teacher.members.a.weight=0.0"], ["teacher.members.a.weight=0.0"]),
    "dtype": (["+teacher.members.a.dtype=flot32"], ["teacher.members.a.dtype=", "Nearest: 'float32'"]),
    "way": (["teacher.combine=losess"], ["teacher.combine=", "Nearest: 'losses'"]),
    "of one": (["teacher.path=somewhere"], ["teacher.path=", "there are several"]),
    "no column": (["teacher.combine=route"], ["teacher.route_by=None", "data.slices"]),
    "column without effect": (["teacher.route_by=origin"], ["teacher.route_by=", "no effect"]),
    "nobody's": (
        [*COMBINED["route"], "+teacher.members.b.routes=[c]"],
        ["teacher.members=", "without a teacher: those with origin=b"],
    ),
    "twice": ([*COMBINED["route"], "+teacher.members.b.routes=[b,a]"], ["teacher.members.b.routes='a'"]),
    "weight of a route": (
        [*COMBINED["route"], "+teacher.members.b.weight=2.0"],
        ["teacher.members.b.weight", "effect"],
    ),
    "taps": (
        [
            *("loss/term=[kd,hidden_mse]", "loss.term.hidden_mse.student_tap=bert.encoder.layer.1"),
            "loss.term.hidden_mse.teacher_tap=bert.encoder.layer.1",
        ],
        ["loss.term.hidden_mse.teacher_tap=", "there are several"],
    ),
    "copied layers": (["student.init=teacher_layers"], ["student.init=", "needs a teacher"]),
    "a teacher that is not there": (["+teacher.members.c.path=nowhere/at/all"], ["teacher.members.c.path="]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_what_several_teachers_cannot_be_is_refused(name, train, several, teachers):
    given, shown = WRONG[name]
    outcome = train(*tokenizer_of(teachers, several), *given)
    assert (outcome.code, "Traceback" in outcome.err) == (2, False), outcome
    assert [text for text in shown if text not in outcome.words] == []
    assert not RUN.exists()


@pytest.mark.slow
def test_options_of_several_teachers_are_refused_for_one(train):
    assert "teacher.route_by='origin' has no effect on one teacher." in train(*TAUGHT, "teacher.route_by=origin").words
    assert "teacher.combine='losses' has no effect on one" in train(*TAUGHT, "teacher.combine=losses").words
