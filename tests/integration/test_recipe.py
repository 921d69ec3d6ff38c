"""A recipe does what is not done yet, and nothing twice: stages skipped, repeated, resumed, set aside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from potstill.errors import UserError
from potstill.signals.live import LiveTeacher
from tests.processes import command_line, started

from .interrupted import cut_off

RUN = ("run", "recipe=digits", "debug=one_batch", "bar=none", "logger=none", "run.dir=recipe")
STAGES = ["teacher", "baseline", "student", "evaluate"]


@pytest.fixture
def start(potstill):
    """Starts the recipe with further overrides; the stages that ran, those that were skipped, and what was shown."""

    def run(*overrides: str) -> tuple[list[str], list[str], str]:
        outcome = potstill(*RUN, *overrides)
        assert outcome.code == 0, outcome
        return told(outcome.out)

    return run


def told(shown: str) -> tuple[list[str], list[str], str]:
    ran = [name for name in STAGES if f"Stage '{name}': potstill" in shown]
    skipped = [name for name in STAGES if f"Stage '{name}': skipped" in shown]
    return ran, skipped, shown


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """The directory in which the recipe was run once, and its output set aside."""
    directory = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        with started(command_line, *RUN, shown=directory / "shown.txt") as process:
            process.join(200)
            assert process.exitcode == 0, (directory / "shown.txt").read_text()
    (directory / "recipe").rename(directory / "kept")
    return directory


@pytest.fixture
def done(first, start, monkeypatch):  # noqa: ARG001
    """The recipe, done by a process before this one: where it was and as it was left. Returns what it showed."""
    monkeypatch.chdir(first)
    shutil.copytree("kept", "recipe")
    yield told(Path("shown.txt").read_text())
    shutil.rmtree(first / "recipe")


def kept(pattern: str) -> list[Path]:
    return sorted(Path("recipe").glob(pattern))


def forget_evaluation() -> None:
    """As if the recipe had been killed before it."""
    manifest = json.loads(Path("recipe/manifest.json").read_text())
    del manifest["stages"]["evaluate"]
    Path("recipe/manifest.json").write_text(json.dumps(manifest))
    Path("recipe/evaluation.json").unlink()


@pytest.mark.slow
def test_a_recipe_repeats_only_what_has_changed(done, start):
    assert done[:2] == (STAGES, [])
    evaluation = Path("recipe/evaluation.json").read_bytes()
    assert set(json.loads(evaluation)["models"]) == {"teacher", "student", "baseline", "majority"}

    assert start()[:2] == ([], STAGES)
    assert Path("recipe/evaluation.json").read_bytes() == evaluation

    own_option = 'recipe.stages.student.extra=["loss.term.kd.temperature=4.0"]'
    assert start(own_option)[:2] == (["student", "evaluate"], ["teacher", "baseline"])
    assert len(kept("student.2*")) == 1, "the output of the other temperature is set aside"
    assert [path.read_bytes() for path in kept("evaluation.2*.json")] == [evaluation]

    assert start(own_option, "seed=1")[:2] == (STAGES, [])
    assert len(kept("teacher.2*")) == 1
    assert start("logger=csv", own_option, "seed=1")[:2] == ([], STAGES), "a logger decides nothing"


@pytest.mark.slow
def test_a_data_file_that_changes_repeats_the_stages_that_read_it(start):
    rows = [{"image": [[n / 80, label, 0, 0]] * 4, "label": label} for n in range(80) for label in (0, 1)]
    write = Path("train.jsonl").write_text
    write("\n".join(map(json.dumps, rows)))
    data = ["data=files", "data.task=image_classification", "data.columns={text: null, image: image}"]
    extra = json.dumps([*data, "data.source.train=train.jsonl"])
    ours = [f"recipe.stages.{name}.extra={extra}" for name in STAGES[:3]]
    assert start(*ours)[0] == STAGES
    assert start(*ours)[1] == STAGES
    write("\n".join(map(json.dumps, rows[:-2])))
    assert start(*ours)[0] == STAGES


@pytest.mark.slow
@pytest.mark.parametrize("error", [RuntimeError("out of luck"), KeyboardInterrupt(), UserError("a", 1, "no.", "yes")])
def test_a_stage_that_fails_stops_the_recipe_and_is_resumed(error, done, start, potstill, monkeypatch, capsys):  # noqa: ARG001
    def fail(*_) -> None:
        raise error

    forget_evaluation()
    with monkeypatch.context() as patch:
        patch.setattr("potstill.commands.evaluate.main", fail)
        if isinstance(error, RuntimeError):
            with pytest.raises(RuntimeError):
                potstill(*RUN)
            shown = capsys.readouterr().out
        else:
            outcome = potstill(*RUN)
            assert outcome.code == (130 if isinstance(error, KeyboardInterrupt) else 2)
            shown = outcome.out
    assert "Stage 'evaluate' did not finish" in shown
    command = next(line for line in shown.splitlines() if line.startswith("  potstill run "))
    assert command.split()[2:-1] == ["recipe=digits", "debug_preset=one_batch", "bar_preset=none", "logger=none"]
    assert command.split()[-1] == f"run.dir={Path('recipe').absolute()}"
    assert start()[:2] == (["evaluate"], STAGES[:3])


@pytest.mark.slow
def test_a_stage_cut_off_in_mid_training_goes_on_from_its_checkpoint(start, potstill):
    few_steps = ("debug=few_steps",)
    with cut_off(15):
        potstill(*RUN, *few_steps)
    assert not Path("recipe/teacher/student").exists()
    assert not Path("recipe/baseline").exists()
    ran, _, shown = start(*few_steps, "logger=csv")
    assert ran == STAGES[1:]
    assert "Stage 'teacher': goes on with" in shown
    assert "Going on after step 10" in shown
    assert kept("teacher.2*") == []
    [resume] = json.loads(Path("recipe/teacher/manifest.json").read_text())["resumes"]
    assert resume["from_step"] == 10
    assert start(*few_steps)[:2] == ([], STAGES)


@pytest.mark.slow
def test_a_stage_cut_off_under_another_fingerprint_is_set_aside(start, potstill):
    with cut_off("export"):
        potstill(*RUN)
    ran, _, shown = start("seed=1")
    assert ran == STAGES
    assert "made from something else" in shown
    assert len(kept("teacher.2*")) == 1


@pytest.mark.slow
def test_a_stage_that_was_done_when_the_recipe_was_killed_is_not_repeated(done, start):  # noqa: ARG001
    manifest = json.loads(Path("recipe/manifest.json").read_text())
    manifest["stages"] = {"teacher": {**manifest["stages"]["teacher"], "is_done": False}}
    Path("recipe/manifest.json").write_text(json.dumps(manifest))
    assert start()[1] == ["teacher"]


CACHED = """
stages:
  signals:
    command: cache
    overrides: [experiment=digits, {teacher}]
  student:
    command: train
    overrides: [experiment=digits, {teacher}, "teacher.cache.dir={{signals}}"]
"""
RESNET = ("model_type=resnet", "num_channels=1", "embedding_size=8", "hidden_sizes=[8]", "depths=[1]")
TINY = ", ".join(["teacher.path=null", *(f'"+teacher.config.{text}"' for text in RESNET)])


@pytest.mark.slow
def test_a_teacher_asked_ahead_is_not_asked_by_the_students(potstill, monkeypatch):
    asked = []
    signal_of = LiveTeacher.signal
    monkeypatch.setattr(LiveTeacher, "signal", lambda *given: asked.append(len(given[1])) or signal_of(*given))
    Path("own/recipe").mkdir(parents=True)
    Path("own/recipe/cached.yaml").write_text(CACHED.format(teacher=TINY))
    ours = ("run", "--config-dir", "own", "recipe=cached", "debug=one_batch", "logger=none", "run.dir=recipe")

    def start() -> tuple[str, int]:
        asked.clear()
        outcome = potstill(*ours)
        assert outcome.code == 0, outcome
        return outcome.out, sum(asked)

    _, first = start()
    assert first > 0
    shown, again = start()
    assert again == 0
    assert "Stage 'signals': skipped" in shown
    manifest = json.loads(Path("recipe/manifest.json").read_text())
    manifest["stages"]["signals"]["is_done"] = False
    Path("recipe/manifest.json").write_text(json.dumps(manifest))
    shown, again = start()
    assert "Stage 'signals': potstill cache" in shown
    assert again == 0, "what an interrupted stage had kept is there"
    assert kept("signals.2*") == []
    shutil.rmtree("recipe/signals")
    shutil.rmtree("recipe/student")
    assert start()[1] == first, "one question an example, in the stage; none in the training"


@pytest.mark.slow
def test_a_recipe_ends_with_the_exit_code_of_its_verdict(done, potstill):  # noqa: ARG001
    assert potstill(*RUN, "bar=digits").code == 3
    again = potstill(*RUN, "bar=digits")
    assert again.code == 3, "also where nothing is left to do"
    assert "Stage 'evaluate': skipped" in again.out
