"""What a run was made of: enough to repeat it, or to see why it cannot be repeated."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import potstill
from potstill.tracking.secrets import redact
from potstill.tracking.storage import not_written, written_aside

SCHEMA_VERSION = 1
STATUSES = ("finished", "diverged", "pruned", "interrupted", "failed")

PACKAGES = (
    "potstill",
    "torch",
    "transformers",
    "tokenizers",
    "pytorch-lightning",
    "datasets",
    "safetensors",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "wandb",
    "numpy",
    "scipy",
    "scikit-learn",
)


def manifest(
    *,
    seeds: Mapping[str, int],
    fingerprints: Mapping[str, str],
    licences: Mapping[str, str | None] | None = None,
    parents: Sequence[str] = (),
    command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The manifest of a run that starts now; `closed` completes it.

    fingerprints: of the data and the models, by name. licences: by the same names, None where unknown. parents: run
    directories this run read. command: default, this process's command line; credentials are hidden.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        "started_at": _now(),
        "finished_at": None,
        "command": redact(list(sys.argv if command is None else command)),
        "git": _git_states(),
        "versions": _versions(),
        "platform": _platform(),
        "seeds": dict(seeds),
        "fingerprints": dict(fingerprints),
        "licences": dict(licences or {}),
        "parents": list(parents),
    }


def resumed(manifest: Mapping[str, Any], from_step: int, *, command: Sequence[str] | None = None) -> dict[str, Any]:
    """A copy of the `manifest` of a run that goes on after `from_step` optimizer steps; `closed` completes it.

    What the first start wrote stands. `resumes` gains an entry: when, from where, by which command, and of git and
    versions what is no longer as it was before.
    """
    now = {"git": _git_states(), "versions": _versions()}
    then = {name: _latest(manifest, name) for name in now}
    resume = {
        "at": _now(),
        "from_step": from_step,
        "command": redact(list(sys.argv if command is None else command)),
        **{name: value for name, value in now.items() if value != then[name]},
    }
    resumes = [*manifest.get("resumes", []), resume]
    return {**manifest, "status": "running", "finished_at": None, "resumes": resumes}


def closed(manifest: Mapping[str, Any], status: str) -> dict[str, Any]:
    """A copy of `manifest` that says how the run ended, one of STATUSES, and when."""
    if status not in STATUSES:
        raise ValueError(f"{status!r} is none of {', '.join(STATUSES)}")
    return {**manifest, "status": status, "finished_at": _now()}


def manifest_of(run_dir: Path) -> dict[str, Any]:
    """The manifest of a run; empty where it ended before it wrote one, or where there is no run."""
    file = run_dir / "manifest.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def git_state(directory: Path) -> dict[str, Any] | None:
    """`{"commit": hash, "dirty": bool}` of the checkout that holds `directory`; None outside of one.

    Dirty: a tracked file differs from the commit. Untracked files do not count; a working directory is full of them.
    """
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "dirty": bool(_git(directory, "status", "--porcelain", "--untracked-files=no"))}


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` to `path` as JSON, whole or not at all.

    Numbers that are not finite become null (JSON has no NaN), paths become text. Keys keep their order.
    """
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False, default=os.fspath) + "\n")


def write_lines(path: str | Path, entries: Iterable[Any]) -> None:
    """Write each of `entries` to `path` as one line of JSON, all or none."""
    write_text(path, "".join(json.dumps(_finite(entry), allow_nan=False) + "\n" for entry in entries))


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` whole or not at all: under a temporary name, synchronised, then renamed.

    Raises `StoppedError` where the disk does not take it; the file that was there before then still is.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise not_written(path, error) from error


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _latest(manifest: Mapping[str, Any], name: str) -> Any:
    """What `manifest` last said of `name`: at the latest resume that named it, else at the start."""
    said = [entry[name] for entry in [manifest, *manifest.get("resumes", [])] if name in entry]
    return said[-1] if said else None


def _git_states() -> dict[str, Any]:
    return {"potstill": _own_checkout(), "working_directory": git_state(Path.cwd())}


def _versions() -> dict[str, str | None]:
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _own_checkout() -> dict[str, Any] | None:
    """Of potstill's own source. Installed from a wheel, it may lie in a checkout of something else."""
    source = Path(potstill.__file__)
    is_tracked = _git(source.parent, "ls-files", "--error-unmatch", source.name) is not None
    return git_state(source.parent) if is_tracked else None


def _git(directory: Path, *arguments: str) -> str | None:
    """What git prints, or None where there is no git, no checkout or no commit."""
    try:
        result = subprocess.run(["git", "-C", directory, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _platform() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"system": platform.platform(), "machine": platform.machine(), "cpu_count": os.cpu_count(), "gpus": gpus}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
