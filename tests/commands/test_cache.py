"""potstill cache: filled ahead or on the way, for any run that asks the same teacher; looked at, verified, pruned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from potstill.commands.shared import forget
from potstill.signals.live import LiveTeacher
from tests.config.test_cache_effects import CAUSAL, TOP_K
from tests.conftest import Outcome

from .test_shared import WORDS, write_texts

Potstill = Callable[..., Outcome]
HERE = "teacher.cache.dir=signals"


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    forget()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples the live teacher is asked about, one number a question."""
    numbers: list[int] = []
    signal_of = LiveTeacher.signal

    def counting(self, batch, needs):
        numbers.append(len(batch))
        return signal_of(self, batch, needs)

    monkeypatch.setattr(LiveTeacher, "signal", counting)
    return numbers


@pytest.fixture
def texts(saved: Callable[..., str], tmp_path: Path) -> list[str]:
    write_texts(tmp_path / "train.csv", seed=0)
    return [
        *("data=files", f"data.source.train={tmp_path}/train.csv", "data.batch_size=16", "loss=kd", "logger=none"),
        *("teacher=pretrained", f"teacher.path={saved(words=WORDS, initializer_range=0.5)}"),
        *("student=bert_tiny", "student.config.hidden_size=16", "student.config.intermediate_size=32"),
        *("optim.max_epochs=2", "callbacks=none"),
    ]


def weights(run: str) -> dict[str, torch.Tensor]:
    return load_file(Path("runs/train", run, "student/model.safetensors"))


def same(one: str, other: str) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_a_cache_filled_ahead_on_the_way_or_in_memory_ends_with_the_same_weights(
    potstill: Potstill, texts: list[str], asked: list[int]
) -> None:
    assert potstill("train", *texts, "run.name=memory", "teacher.remember=true").code == 0
    for name in ("on_the_way", "again"):
        forget()
        asked.clear()
        assert potstill("train", *texts, f"run.name={name}", "teacher.cache.dir=way").code == 0
        assert bool(asked) == (name == "on_the_way"), "the second run finds all"
    assert potstill("cache", *texts, "teacher.cache.dir=ahead").code == 0
    asked.clear()
    ahead = ["teacher.cache.dir=ahead", "teacher.cache.write=false"]
    assert potstill("train", *texts, "run.name=ahead", *ahead).code == 0
    assert not asked
    assert same("on_the_way", "again")
    assert same("on_the_way", "ahead")
    other_seed = potstill("train", *texts, "run.name=other", "seed=1", "optim.optimizer.lr=0.1", *ahead)
    assert other_seed.code == 0, other_seed.err
    assert not asked, "found by content, whatever the order"
    assert not same("other", "ahead")


@pytest.mark.slow
def test_a_language_model_learns_from_stored_classes_alone(potstill: Potstill, asked: list[int]) -> None:
    """With and without its own logits: the same weights, but for rounding."""
    few = ["data.batch_size=2", "limit_batches=2", "log_every=1"]
    stored = [*CAUSAL, *TOP_K, HERE, *few, "logger=csv", "callbacks=none"]
    assert potstill("cache", *stored, "logger=none").code == 0
    asked.clear()
    steps = ["optim.max_steps=2", "optim.max_epochs=null", "teacher.cache.write=false"]
    for fused in ("true", "false"):
        options = [*stored, *steps, f"hardware.fused_head={fused}", f"run.name=fused_{fused}"]
        outcome = potstill("train", *options)
        assert outcome.code == 0, outcome.err
    assert not asked
    torch.testing.assert_close(weights("fused_true"), weights("fused_false"), rtol=1e-4, atol=1e-6)
    header, *_ = Path("runs/train/fused_true/metrics.csv").read_text().splitlines()
    assert "train/teacher_mass" in header


@pytest.mark.slow
def test_what_is_there_is_not_asked_again(potstill: Potstill, texts: list[str], asked: list[int]) -> None:
    assert potstill("cache", *texts, HERE, "limit_batches=2").code == 0
    first = sum(asked)
    assert potstill("cache", *texts, HERE).code == 0
    assert sum(asked) > first > 0
    asked.clear()
    outcome = potstill("cache", *texts, HERE)
    assert outcome.code == 0
    assert not asked
    assert " 0 asked" in outcome.out
    assert "8 bytes a row" in potstill("cache", *texts, "teacher.cache.dir=new").out


@pytest.mark.slow
def test_damage_is_found_by_verify_and_removed_by_prune(potstill: Potstill, texts: list[str]) -> None:
    assert potstill("cache", *texts, HERE).code == 0
    listed = potstill("cache", "list", "signals")
    assert "58 examples, " in listed.out
    assert "logits 8 bytes a row, 1.0000 of it kept" in listed.out
    assert potstill("cache", "verify", "signals").code == 0
    [file] = Path("signals").glob("*/*.signals")
    content = file.read_bytes()
    file.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    outcome = potstill("cache", "verify", "signals")
    assert outcome.code == 1
    assert str(file) in outcome.out
    assert potstill("cache", "prune", "signals").code == 0
    assert not file.exists()
    assert potstill("cache", "verify", "signals").code == 0


@pytest.mark.slow
def test_prune_keeps_what_is_whole_and_used(potstill: Potstill, texts: list[str]) -> None:
    assert potstill("cache", *texts, HERE).code == 0
    [file] = Path("signals").glob("*/*.signals")
    for options in ([], ["unused_days=1"]):
        assert potstill("cache", "prune", "signals", *options).code == 0
        assert file.exists()
    for path in file.parent.iterdir():
        three_days_ago = time.time() - 3 * 86_400
        os.utime(path, (three_days_ago, three_days_ago))
    assert potstill("cache", "prune", "signals", "unused_days=2").code == 0
    assert not file.parent.exists()


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("verify", "nowhere"), "DIR"),
        (("list",), "DIR"),
        (("prune", ".", "unused_days=long"), "unused_days"),
        (("list", ".", "unused_day=3"), "unused_day"),
        (("loss=ce", HERE), "loss.term"),
        ((HERE, "teacher.cache.dir=null"), "teacher.cache.dir"),
    ],
)
def test_what_leaves_nothing_to_do_is_refused(potstill: Potstill, arguments: tuple[str, ...], key: str) -> None:
    outcome = potstill("cache", *arguments)
    assert outcome.code == 2
    assert outcome.words.startswith(key)


@pytest.mark.slow
@pytest.mark.thorough
def test_two_ranks_share_the_work(potstill: Potstill, texts: list[str]) -> None:
    outcome = potstill("cache", *texts, HERE, "hardware.devices=2")
    assert outcome.code == 0, outcome.err
    assert len(list(Path("signals").glob("*/*.signals"))) == 2
    assert " 0 asked" in potstill("cache", *texts, HERE).out


@pytest.mark.slow
@pytest.mark.thorough
def test_a_cache_that_is_killed_goes_on_where_it_was(potstill: Potstill, texts: list[str]) -> None:
    slow = [*texts, HERE, "hardware.micro_batch_examples=1", "data.batch_size=1"]
    command = [sys.executable, "-c", "import potstill.signals.store as s; s.SHARD_BYTES = 100\n"]
    command[2] += "s.Store.__init__.__defaults__ = (100,)\nfrom potstill.cli import main; main()"
    process = subprocess.Popen([*command, "cache", *slow], cwd=Path.cwd())
    while len(list(Path("signals").glob("*/*.signals"))) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert potstill("cache", "verify", "signals").code == 0
    assert potstill("cache", *texts, HERE).code == 0
    assert potstill("cache", "verify", "signals").code == 0
    assert " 0 asked" in potstill("cache", *texts, HERE).out
