"""A checkpoint that was saved can be loaded, whatever happened while the next one was being written."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
import torch

from potstill.errors import StoppedError, UserError
from potstill.tracking.checkpoint_file import CheckpointFile
from tests.processes import started

from .saver import save_for_ever

SMALL, LARGE = 1_000, 1_000_000  # float32 values: 4 kB and 4 MB


def checkpoint(num_values: int = SMALL, value: float = 1.0) -> dict:
    return {"state_dict": {"w": torch.full((num_values,), value)}, "global_step": 3}


def saved(path: Path, value: float = 1.0) -> Path:
    CheckpointFile().save_checkpoint(checkpoint(value=value), path)
    return path


def value_in(path: Path) -> float:
    values = CheckpointFile().load_checkpoint(path)["state_dict"]["w"]
    assert (values == values[0]).all()
    return float(values[0])


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 2 MB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", directory], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


def test_what_is_saved_is_loaded_and_the_later_save_counts(tmp_path):
    path = saved(tmp_path / "checkpoints/last.ckpt", 1.0)
    saved(path, 2.0)
    assert value_in(path) == 2.0
    assert CheckpointFile().load_checkpoint(path)["global_step"] == 3
    assert os.listdir(path.parent) == ["last.ckpt"]
    CheckpointFile().remove_checkpoint(path)
    CheckpointFile().remove_checkpoint(path)
    assert os.listdir(path.parent) == []


def test_a_full_disk_keeps_the_earlier_checkpoint_and_leaves_no_litter(small_disk):
    path = saved(small_disk / "last.ckpt")
    with pytest.raises(
        StoppedError, match=r"last\.ckpt.*No space left.*needs 4\.0 MB.*Free there: [12]\.\d MB.*\n.*kept"
    ):
        CheckpointFile().save_checkpoint(checkpoint(LARGE), path)
    assert value_in(path) == 1.0
    assert os.listdir(small_disk) == ["last.ckpt"]


@pytest.fixture
def short_files():
    """No file of this process may be longer than 1 MB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_may_not_grow_keeps_the_earlier_checkpoint_and_leaves_no_litter(tmp_path, short_files):  # noqa: ARG001
    path = saved(tmp_path / "last.ckpt")
    with pytest.raises(StoppedError, match=r"File too large(.|\n)*It needs 4\.0 MB"):
        CheckpointFile().save_checkpoint(checkpoint(LARGE), path)
    assert value_in(path) == 1.0
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_run_directory_that_was_removed_is_not_made_again(tmp_path):
    with pytest.raises(StoppedError, match="No such file or directory"):
        saved(tmp_path / "run/checkpoints/last.ckpt")
    assert os.listdir(tmp_path) == []


def test_a_fault_in_what_is_saved_is_no_fault_of_the_disk(tmp_path):
    path = saved(tmp_path / "last.ckpt")
    with pytest.raises(Exception, match="pickle") as caught:
        CheckpointFile().save_checkpoint({"state_dict": {}, "function": lambda: None}, path)
    assert not isinstance(caught.value, StoppedError)
    assert value_in(path) == 1.0
    assert os.listdir(tmp_path) == ["last.ckpt"]


@pytest.mark.slow
def test_a_kill_at_any_moment_of_saving_leaves_a_checkpoint_that_loads(tmp_path):
    path, moments, num_litter = tmp_path / "last.ckpt", random.Random(0), 0
    for _ in range(10):
        path.unlink(missing_ok=True)
        with started(save_for_ever, path, LARGE) as saver:
            while not path.exists():
                assert saver.is_alive()
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.1))
        value_in(path)
        num_litter += len(os.listdir(tmp_path)) > 1
    assert num_litter > 0, "no kill fell into a save: the test has shown nothing"
    saved(path)
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_the_temporary_of_a_process_that_lives_is_left_alone(tmp_path):
    living = tmp_path / f".best.ckpt.{os.getppid()}.tmp"
    living.touch()
    saved(tmp_path / "last.ckpt")
    assert living.exists()


@pytest.mark.parametrize("num_bytes", [0, 1, 100, 3_000])
def test_a_torn_checkpoint_is_refused_and_the_other_named(tmp_path, num_bytes):
    path, other = saved(tmp_path / "last.ckpt"), saved(tmp_path / "best.ckpt")
    os.truncate(path, num_bytes)
    with pytest.raises(UserError, match=r"is empty|is torn") as caught:
        CheckpointFile("--resume").load_checkpoint(path)
    assert caught.value.key == "--resume"
    assert str(other) in caught.value.fix


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "last.ckpt"
    with pytest.raises(UserError, match="does not exist"):
        CheckpointFile().load_checkpoint(path)
    path.write_text("seed: 0\n" * 1000)
    with pytest.raises(UserError, match="no checkpoint at all"):
        CheckpointFile().load_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.yaml", "seed: 0")
    with pytest.raises(UserError, match="cannot be read"):
        CheckpointFile().load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="no `state_dict`"):
        CheckpointFile().load_checkpoint(path)


def test_weights_that_changed_on_the_disk_are_not_trained_on(tmp_path):
    path = saved(tmp_path / "last.ckpt")
    content = path.read_bytes()
    middle = content.index(torch.ones(10).numpy().tobytes())
    path.write_bytes(content[:middle] + b"\0" * 8 + content[middle + 8 :])
    assert torch.load(path, weights_only=True)["state_dict"]["w"][0] == 0.0  # torch does not notice
    with pytest.raises(UserError, match="checksums are wrong"):
        CheckpointFile().load_checkpoint(path)


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_inside_a_checkpoint_is_not_run(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "callbacks": Harmful(tmp_path / "was_run")}, path)
    with pytest.raises(UserError, match="could run any program"):
        CheckpointFile().load_checkpoint(path, weights_only=False)
    assert not (tmp_path / "was_run").exists()
