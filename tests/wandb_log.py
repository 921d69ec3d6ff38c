"""What the W&B client wrote down of a run offline, by the client's own reader."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from wandb.util import get_core_path


def wandb_directories(run_dir: Path) -> list[Path]:
    """One for each process that trained the run."""
    return sorted((run_dir / "wandb").glob("offline-run-*"))


def read_back(run_dir: Path) -> dict[str, Any]:
    """The one W&B run under `run_dir`."""
    [directory] = wandb_directories(run_dir)
    return read_part(directory)


def read_part(directory: Path) -> dict[str, Any]:
    """What one process wrote of a run."""
    return json.loads(_inspect(directory, "--summary"))


def read_records(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one kind in the log of the one W&B run under `run_dir`."""
    [directory] = wandb_directories(run_dir)
    records = map(json.loads, _inspect(directory).splitlines())
    return [record[kind] for record in records if record["type"] == kind]


def _inspect(directory: Path, *options: str) -> str:
    """As `wandb leet inspect --json`, which imports the client for a second, only to start this."""
    [file] = directory.resolve().glob("run-*.wandb")
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", *options]
    command += ["--run-file", str(file), str(file.parent.parent)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
