"""No work lost: wherever a run is cut off, it goes on from the command line to the end it would have had."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from potstill.tracking.lock import locked
from tests.processes import command_line, started
from tests.tiers import one_and_others

from .interrupted import IMAGES, assert_same_run, at_step, checkpoint, cut_off, metrics, once_there

TEXT = (
    *("train", "data=files", "data.source.train=train.jsonl", "student=bert_tiny", "student.config.hidden_size=16"),
    *("student.config.intermediate_size=32", "student.tokenizer={teacher}", "logger=csv", "log_every=1"),
)
TAUGHT = (*TEXT, "loss=kd", "teacher=pretrained", "teacher.path={teacher}")
TO_STEP = "optim.max_epochs=null"
EPOCHS = (*IMAGES, "optim.max_epochs=3")  # 12 steps
WHOLE, CUT = Path("whole"), Path("cut")

Case = tuple[tuple[str, ...], list[int | str], int]  # options; where to cut; optimizer steps at the end
CASES: dict[str, Case] = {
    "epochs": (EPOCHS, [0, 6, 8, "export"], 12),
    "steps, with workers": (
        (*IMAGES, TO_STEP, "optim.max_steps=11", "validate_every=3", "hardware.num_workers=2"),
        [7, "export"],
        11,
    ),
    "length grouping, an old checkpoint": (
        (*TEXT, "data.batch_size=4", "data.length_grouping=true", TO_STEP, "optim.max_steps=36", "validate_every=34"),
        [31, 35],
        36,
    ),
    "stopped early": (
        (
            *(*IMAGES, "optim.max_epochs=6", "callbacks=early_stopping", "callbacks.early_stopping.patience=1"),
            *("callbacks.early_stopping.min_delta=9.0", "callbacks.early_stopping.monitor=val/loss"),
        ),
        [5, "export"],
        8,
    ),
    "remembered logits": (
        (*TAUGHT, "teacher.remember=true", "data.batch_size=8", "optim.max_epochs=3", "validate_every=4"),
        [3, 6, 15],
        33,
    ),
    "schedules, a learned temperature": (
        (
            *(*TAUGHT, "loss/term=[ce,kd,ctkd]", "loss.term.ce.weight={schedule: warm_up, end: 1.0, steps: 9}"),
            *("loss.term.kd.temperature={schedule: cosine, start: 8.0, end: 1.0}", "data.batch_size=8"),
            *("optim.max_epochs=2", "validate_every=4"),
        ),
        [6, 15],
        22,
    ),
}


@pytest.fixture(scope="module")
def teacher(saved) -> str:
    return saved(words=["eel", "cat", "dog", "owl"], initializer_range=0.5)


@pytest.fixture
def train(potstill, tmp_path, teacher):
    """Trains with the options of a case into a directory, in a folder that has its data."""
    words = ["eel", "cat", "dog", "owl"]
    texts = [" ".join(words[(n >> shift) % 4] for shift in range(0, 2 * (2 + n % 7), 2)) for n in range(120)]
    rows = [json.dumps({"text": text, "label": ("no", "yes")[n % 2]}) for n, text in enumerate(texts)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))

    def run(options: tuple[str, ...], run_dir: Path, *more: str) -> Any:
        given = [text.format(teacher=teacher) if "{teacher}" in text else text for text in options]
        return potstill(*given, f"run.dir={run_dir}", *more)

    return run


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """A run of EPOCHS that nothing cuts off, for many to be compared with."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    with started(command_line, *EPOCHS, f"run.dir={run}") as process:
        process.join(120)
        assert process.exitcode == 0
    return run


def status(run: Path) -> str:
    return json.loads((run / "manifest.json").read_text())["status"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_cut_off_ends_as_if_it_had_not_been(case, train, potstill):
    options, cuts, num_steps = CASES[case]
    if "old" in case:
        options = (*options, "callbacks.last.every_steps=16")
    assert train(options, WHOLE).code == 0
    assert checkpoint(WHOLE)["global_step"] == num_steps
    for cut in cuts:
        run = Path(f"cut_{cut}")
        with cut_off(cut):
            train(options, run)
        assert not (run / "student").exists()
        assert potstill("train", "--resume", run).code == 0
        assert_same_run(run, WHOLE)
        assert status(run) == "finished"


@pytest.mark.slow
def test_a_run_cut_off_again_and_again_ends_as_if_it_had_not_been(train, potstill, unbroken):
    options = (*EPOCHS, "callbacks.last.every_steps=1")
    with cut_off(3):
        train(options, CUT)
    for cut in (5, 8, 9):
        with cut_off(cut):
            potstill("train", "--resume", CUT)
    assert potstill("train", "--resume", CUT).code == 0
    assert_same_run(CUT, unbroken)
    resumes = json.loads((CUT / "manifest.json").read_text())["resumes"]
    assert [resume["from_step"] for resume in resumes] == [3, 5, 8, 9]


@pytest.mark.slow
@pytest.mark.parametrize("longer", ["optim.max_epochs=3", "optim.max_steps=11"])
def test_a_finished_training_is_extended(longer, train, potstill):
    """With a constant rate, it becomes the training that would have been longer from the start."""
    by_steps = (TO_STEP, "validate_every=4") if "steps" in longer else ()
    options = (*IMAGES, "optim.schedule=constant", "optim.warmup_fraction=0.0", *by_steps)
    assert train((*options, longer), WHOLE).code == 0
    key, shorter = longer.split("=")[0], "optim.max_steps=6" if by_steps else "optim.max_epochs=2"
    assert train((*options, shorter), CUT).code == 0
    assert potstill("train", "--resume", CUT, longer, "--allow-changed", key).code == 0
    assert_same_run(CUT, WHOLE)


@pytest.mark.slow
def test_the_schedule_of_an_extended_training_is_the_new_one(train, potstill):
    options = (*IMAGES, "optim.schedule=linear", "optim.warmup_fraction=0.0", "optim.optimizer.lr=1.0e-3")
    assert train((*options, "optim.max_epochs=2"), CUT).code == 0
    changes = ["optim.max_epochs=4", "optim.optimizer.lr=2.0e-3"]
    assert potstill("train", "--resume", CUT, *changes, "--allow-changed", "optim").code == 0
    rates = [float(row["train/lr"]) for row in metrics(CUT) if "train/lr" in row]
    assert rates[:8] == pytest.approx([1e-3 * (1 - step / 8) for step in range(8)])
    assert rates[8:] == pytest.approx([2e-3 * (1 - step / 16) for step in range(8, 16)])


def go_on_command(shown: str) -> list[str]:
    [command] = [line for line in shown.splitlines() if line.startswith("  potstill train --resume")]
    return shlex.split(command)[1:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "method", "step"),
    [
        (signal.SIGINT, "training_step", 0),
        (signal.SIGTERM, "training_step", 6),
        (signal.SIGINT, "validation_step", 8),
        (signal.SIGTERM, "training_step", 11),
    ],
)
def test_a_signal_lets_the_step_end_saves_and_says_how_to_go_on(
    number, method, step, train, potstill, unbroken, monkeypatch
):
    sent = []

    def send() -> None:
        if not sent:  # validation has several batches at one step
            sent.append(os.kill(os.getpid(), number))

    with monkeypatch.context() as patch:
        at_step(patch, step, send, method)
        outcome = train(EPOCHS, CUT)
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    assert f"{number.name}: stopping after this step" in outcome.out
    assert status(CUT) == "interrupted"
    assert checkpoint(CUT)["global_step"] in (step, step + 1)
    assert not (CUT / "student").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert potstill(*go_on_command(outcome.out)).code == 0
    assert_same_run(CUT, unbroken)


@pytest.mark.slow
def test_a_second_signal_leaves_at_once(train, potstill, monkeypatch):
    def insist() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the step went on")

    with monkeypatch.context() as patch:
        at_step(patch, 6, insist)
        outcome = train(EPOCHS, CUT)
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    assert status(CUT) == "interrupted"
    assert checkpoint(CUT)["global_step"] == 4, "of the last validation: nothing was saved in mid-step"
    assert potstill(*go_on_command(outcome.out)).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_step_leaves_nothing_half_done(number, train, monkeypatch):
    from potstill.commands.train import assemble_models

    def slow_models(*arguments: Any) -> Any:
        os.kill(os.getpid(), number)
        return assemble_models(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("potstill.commands.train.assemble_models", slow_models)
        outcome = train((*IMAGES, "optim.max_epochs=1"), CUT)
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    assert train((*IMAGES, "optim.max_epochs=1"), CUT).code == 0, "the directory is free"


RANKS = {
    "ddp": ("hardware.devices=2", "hardware.strategy=ddp"),
    "fsdp": ("hardware=cpu_fsdp2",),
}
LONG = (*IMAGES, TO_STEP, "optim.max_steps=24", "validate_every=10", "callbacks.last.every_steps=1")


@pytest.mark.slow
def test_a_process_killed_in_a_step_or_a_save_is_resumed(train, potstill, tmp_path):
    assert train(LONG, WHOLE).code == 0
    with started(command_line, *LONG, "run.dir=cut") as process:
        with once_there(tmp_path / CUT / "checkpoints" / "last.ckpt", process.kill):
            process.join(120)
        assert process.exitcode == -signal.SIGKILL
    assert potstill("train", "--resume", CUT).code == 0
    assert_same_run(CUT, WHOLE)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", one_and_others("fsdp", "ddp"))
def test_ranks_killed_and_stopped_by_a_signal_are_resumed(strategy, train, potstill, tmp_path):
    options = (*LONG, *RANKS[strategy], "optim.max_steps=16")
    assert train(options, WHOLE).code == 0
    saved = tmp_path / CUT / "checkpoints" / "last.ckpt"
    with once_there(saved, lambda: os.kill(ranks()[1], signal.SIGKILL)):
        outcome = train(options, CUT)
    assert outcome.code == 1
    assert "Rank 1 was killed by SIGKILL" in outcome.err
    if strategy == "ddp":
        before = checkpoint(CUT)["global_step"]
        with once_more_saved(saved):
            outcome = potstill("train", "--resume", CUT)
        assert outcome.code == 130
        assert status(CUT) == "interrupted"
        assert before < checkpoint(CUT)["global_step"] < 16
        assert not (CUT / "student").exists()
    assert potstill(*go_on_command(outcome.out)).code == 0
    assert_same_run(CUT, WHOLE)


def once_more_saved(path: Path) -> Any:
    """SIGINT to this process once `path` has been replaced."""
    before = path.stat().st_ino
    replaced: Any = type("Replaced", (), {"exists": lambda _: path.stat().st_ino != before})()
    return once_there(replaced, lambda: os.kill(os.getpid(), signal.SIGINT))


def ranks() -> list[int]:
    """Processes of this process that train."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    names = {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in children}
    return [child for child, name in names.items() if "potstill.commands.rank" in name]


@pytest.fixture
def cut_run(train) -> dict[Path, bytes]:
    """A run of text, with a teacher, cut off after its first checkpoint; its files."""
    options = (*TAUGHT, TO_STEP, "optim.max_steps=4", "validate_every=2", "data.batch_size=8")
    with cut_off(3):
        train(options, CUT)
    return files()


def files() -> dict[Path, bytes]:
    """What is in the run; its lock and its log may be touched."""
    paths = (path for path in CUT.rglob("*") if path.is_file() and path.name not in (".lock", "train.log"))
    return {path: path.read_bytes() for path in paths}


@pytest.mark.slow
def test_what_cannot_be_resumed_is_refused_and_nothing_is_written(cut_run, potstill, teacher):
    def refused(*arguments: object) -> str:
        outcome = potstill("train", *arguments)
        assert outcome.code == 2, outcome
        assert "Traceback" not in outcome.err
        assert "go on with" not in outcome.out, "it would be refused again"
        assert files() == cut_run
        return outcome.words

    shown = refused("--resume", CUT, "optim.optimizer.lr=0.5", "data.batch_size=4")
    assert "data.batch_size=4 is not what the run was started with: data.batch_size=8." in shown
    assert "Nor are: optim.optimizer.lr." in shown
    assert "--allow-changed data.batch_size --allow-changed optim.optimizer.lr" in shown
    refused("--resume", CUT, "optim.optimizer.lr=0.5", "--allow-changed", "data")
    assert "holds no config.yaml" in refused("--resume", "nowhere")
    assert "--resume='' needs a value." in refused("--resume")
    assert "--allow-changed='' needs a value." in refused("--resume", CUT, "--allow-changed")
    assert "Nearest: '--resume'" in refused("--resum", CUT)

    with locked(CUT):
        assert "is being written by another process" in refused("--resume", CUT)

    data = Path("train.jsonl").read_text()
    Path("train.jsonl").write_text(data.replace("eel", "owl"))
    assert "data='data' has changed since the run was started" in refused("--resume", CUT)
    Path("train.jsonl").write_text(data)

    added = Path(teacher, "generation_config.json")
    added.write_text("{}")
    shown = refused("--resume", CUT)
    added.unlink()
    assert f"teacher='{teacher}' has changed" in shown
    assert "--allow-changed teacher" in shown

    last = CUT / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    last.write_bytes(whole[:-100])
    outcome = potstill("train", "--resume", CUT)
    assert outcome.code == 2
    assert "is torn" in outcome.err
    assert "Beside it: " in outcome.words
    assert "best.ckpt" in outcome.err
    last.write_bytes(whole)

    assert potstill("train", "--resume", CUT, "optim.optimizer.lr=0.5", "--allow-changed", "optim").code == 0
    assert "is finished." in potstill("train", "--resume", CUT, "optim.optimizer.lr=0.5").err


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB at `cut`, which this machine has to let us mount."""
    disk = tmp_path / CUT
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_space_lets_it_go_on(small_disk, train, potstill, unbroken, monkeypatch):
    def fill() -> None:
        with (small_disk / "ballast").open("wb") as file:
            while file.write(bytes(512)):
                file.flush()

    def fill_up() -> None:
        with pytest.raises(OSError, match="No space"):
            fill()

    with monkeypatch.context() as patch:
        at_step(patch, 6, fill_up)
        outcome = train(EPOCHS, CUT)
    assert outcome.code == 1, outcome
    assert "Traceback" not in outcome.err
    assert "could not be written: No space left on device" in outcome.words
    assert checkpoint(CUT)["global_step"] == 4
    (small_disk / "ballast").unlink()
    assert potstill(*go_on_command(outcome.out)).code == 0
    assert_same_run(CUT, unbroken)


def test_a_directory_that_cannot_be_made_is_refused_before_anything_is_loaded(potstill, monkeypatch):
    Path("file").write_text("in the way")
    monkeypatch.setattr("potstill.commands.train.assemble_source", lambda *_, **__: pytest.fail("data was loaded"))
    outcome = potstill("train", "debug=one_batch", "run.dir=file/run")
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err
    assert "run.dir='file/run' cannot be made: Not a directory." in outcome.err


def test_a_directory_that_cannot_be_written_is_refused_before_anything_is_loaded(small_disk, potstill, monkeypatch):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)  # root writes wherever modes forbid it
    monkeypatch.setattr("potstill.commands.train.assemble_source", lambda *_, **__: pytest.fail("data was loaded"))
    outcome = potstill("train", "debug=one_batch", "run.dir=cut")
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err
    assert "cannot be written to." in outcome.words
    assert "Error executing job" not in outcome.err
