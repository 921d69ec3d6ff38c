"""Which W&B run a run directory belongs to: kept there, so that a run which goes on stays one run in W&B."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import wandb

from potstill.tracking.manifest import write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """A W&B run: where its id is kept, the id (None: the client or a sweep's agent chooses), and the client's mode."""

    path: Path
    id: str | None
    mode: str

    def keep(self, run: wandb.Run) -> None:
        """Record the run for a resume. A disabled run is none."""
        if self.mode != "disabled":
            write_json(self.path, {"id": run.id})

    def view_and_upload(self, run: wandb.Run) -> tuple[str, str]:
        """What `wandb leet` and `wandb sync` are to be given: one directory or, of a run that went on, all its parts.

        The client begins a directory at every start. Given together, `wandb sync` uploads them in order, as one run.
        """
        directory = shown(Path(run.settings.sync_dir))
        if self.id is None:
            return directory, directory
        return os.path.dirname(directory), f"{os.path.dirname(directory)}/offline-run-*-{self.id}"


def identify(save_dir: Path, job_type: str, mode: str, *, goes_on: bool) -> Identity:
    """The W&B run of `save_dir` and `job_type`: the recorded one where `goes_on`, else a new one.

    A run of which a part is not uploaded yet goes on offline: uploaded later, that part would end up behind the rest.
    Raises `StoppedError` where `save_dir` cannot be written; the client would silently write somewhere else.
    """
    path = save_dir / "wandb" / f"{job_type}.json"
    if mode == "disabled":
        return Identity(path, None, mode)
    run_id = json.loads(path.read_text())["id"] if goes_on and path.exists() else None
    write_json(path, {"id": run_id})
    if run_id and mode == "online" and (parts := waiting(path.parent, run_id)):
        log.warning("%d part(s) of the W&B run are not uploaded yet: it goes on offline.", len(parts))
        mode = "offline"
    return Identity(path, run_id, mode)


def waiting(directory: Path, run_id: str) -> list[Path]:
    """The offline parts of a W&B run that `wandb sync` has not uploaded: it leaves a mark beside each that it has."""
    parts = sorted(directory.glob(f"offline-run-*-{run_id}"))
    return [part for part in parts if not (part / f"run-{run_id}.wandb.synced").exists()]


def shown(path: Path) -> str:
    """`path` as a user would type it: relative where it lies below the current directory."""
    return os.fspath(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
