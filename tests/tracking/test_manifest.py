from __future__ import annotations

import json
import os
import stat
import subprocess
from datetime import datetime

import pytest
import torch
import transformers

from potstill.errors import StoppedError
from potstill.tracking import manifest as module
from potstill.tracking.manifest import closed, git_state, manifest, resumed, write_json


@pytest.fixture
def checkout(tmp_path):
    path = tmp_path / "checkout"
    path.mkdir()
    _git(path, "init", "--quiet")
    (path / "file").write_text("one")
    _git(path, "add", "file")
    _git(path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
    return path


def _git(path, *arguments):
    return subprocess.run(["git", "-C", path, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_a_run_can_be_traced_to_what_made_it(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "confidential")
    made = manifest(
        seeds={"training": 3},
        fingerprints={"data": "d1", "teacher": "t1"},
        licences={"teacher": "mit", "data": None},
        parents=["runs/a"],
        command=["potstill", "train", "seed=3", "note=confidential"],
    )
    assert torch.__version__.startswith(made["versions"]["torch"])  # which may lack the build's `+cpu`
    assert made["versions"]["transformers"] == transformers.__version__
    assert made["command"] == ["potstill", "train", "seed=3", "note=<hidden>"]
    assert (made["seeds"], made["parents"]) == ({"training": 3}, ["runs/a"])
    assert made["fingerprints"] == {"data": "d1", "teacher": "t1"}
    assert made["licences"] == {"teacher": "mit", "data": None}
    assert (made["status"], made["finished_at"]) == ("running", None)


def test_the_end_of_a_run_is_recorded_with_its_status():
    begun = manifest(seeds={}, fingerprints={})
    ended = closed(begun, "diverged")
    assert ended["status"] == "diverged"
    assert datetime.fromisoformat(ended["finished_at"]) >= datetime.fromisoformat(ended["started_at"])
    assert begun["finished_at"] is None


def test_a_run_that_goes_on_keeps_what_its_start_said_and_adds_when_and_from_where(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "confidential")
    begun = {**manifest(seeds={"seed": 3}, fingerprints={"data": "d"}, command=["a"]), "started_at": "2026-01-01"}
    ended = closed(begun, "interrupted")
    again = resumed(ended, 12, command=["potstill", "train", "--resume", "x", "note=confidential"])
    assert (again["status"], again["finished_at"], again["command"]) == ("running", None, ["a"])
    assert {name: again[name] for name in begun if name not in ("status", "finished_at")} == {
        name: begun[name] for name in begun if name not in ("status", "finished_at")
    }
    [entry] = again["resumes"]
    assert set(entry) == {"at", "from_step", "command"}, "git and versions are as they were"
    assert (entry["from_step"], entry["command"][-1]) == (12, "note=<hidden>")
    assert "resumes" not in ended


def test_versions_are_named_at_the_resume_that_changed_them_and_not_again(monkeypatch):
    begun = manifest(seeds={}, fingerprints={})
    monkeypatch.setattr(module, "_version", lambda name: f"{name} of tomorrow")
    first = resumed(begun, 1)
    second = resumed(closed(first, "failed"), 2)
    monkeypatch.undo()
    third = resumed(closed(second, "failed"), 3)
    assert [sorted(entry) for entry in third["resumes"]] == [
        ["at", "command", "from_step", "versions"],
        ["at", "command", "from_step"],
        ["at", "command", "from_step", "versions"],
    ]
    assert third["versions"] == third["resumes"][2]["versions"] != third["resumes"][0]["versions"]


def test_a_run_cannot_end_in_a_way_that_nobody_knows():
    with pytest.raises(ValueError, match="finished"):
        closed(manifest(seeds={}, fingerprints={}), "done")


def test_a_changed_tracked_file_marks_the_checkout_dirty(checkout):
    commit = _git(checkout, "rev-parse", "HEAD")
    assert git_state(checkout) == {"commit": commit, "dirty": False}
    (checkout / "untracked").write_text("output of a run")
    assert git_state(checkout) == {"commit": commit, "dirty": False}
    (checkout / "file").write_text("two")
    assert git_state(checkout) == {"commit": commit, "dirty": True}


def test_outside_of_a_checkout_there_is_no_commit(tmp_path):
    assert git_state(tmp_path) is None


def test_without_git_a_run_still_starts(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout) is None


def test_a_wheel_inside_somebodys_checkout_does_not_take_its_commit(checkout, monkeypatch):
    installed = checkout / ".venv"
    installed.mkdir()
    (installed / "__init__.py").write_text("")
    monkeypatch.setattr(module.potstill, "__file__", str(installed / "__init__.py"))
    assert manifest(seeds={}, fingerprints={})["git"]["potstill"] is None


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "manifest.json"
    write_json(path, {"value": 1})
    with pytest.raises(TypeError):
        write_json(path, {"value": object()})
    assert json.loads(path.read_text()) == {"value": 1}
    path.unlink()
    path.mkdir()  # the rename fails
    with pytest.raises(StoppedError, match="directory"):
        write_json(path, {"value": 2})
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_what_is_not_finite_is_null_and_the_file_is_json_for_every_reader(tmp_path):
    write_json(tmp_path / "a/b.json", {"z": float("nan"), "a": [float("inf"), 0.1234567], "path": tmp_path})
    text = (tmp_path / "a/b.json").read_text()
    assert json.loads(text) == {"z": None, "a": [None, 0.1234567], "path": str(tmp_path)}
    assert text.index('"z"') < text.index('"a"')


def test_others_may_read_the_file_as_any_other(tmp_path):
    write_json(tmp_path / "a.json", {})
    (tmp_path / "b.json").write_text("{}")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.json", "b.json")]
    assert modes[0] == modes[1]
