"""Going on with an interrupted run: from its last checkpoint, and from nothing else than it was made of."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.config.rerun import differences, read_config
from potstill.config.schema import TrainConfig
from potstill.errors import UserError
from potstill.tracking.checkpoint_file import CheckpointFile
from potstill.tracking.checkpoints import LAST
from potstill.tracking.manifest import manifest_of

log = logging.getLogger(__name__)


def check_resumable(config: TrainConfig) -> None:
    """UserError where the run is no run, is finished, or was started with another config than `config`.

    Keys in `config.run.allow_changed` may differ; a name of a group stands for all keys in it.
    """
    run_dir = Path(config.run.dir)
    before = read_config(run_dir, "--resume")
    changed = sorted(differences(before, config))
    refused = [key for key in changed if not _allowed(key, config.run.allow_changed)]
    if refused:
        problem = f"is not what the run was started with: {refused[0]}={_value(before, refused[0])}."
        if refused[1:]:
            problem += f" Nor are: {', '.join(refused[1:])}."
        problem += " Half of the training would be of one kind and half of another."
        fix = f"Leave it as it was, or say that you mean it: --allow-changed {' --allow-changed '.join(refused)}"
        raise UserError(refused[0], _value(config, refused[0]), problem, fix)
    if manifest_of(run_dir).get("status") == "finished" and not changed:
        fix = f"To train on: {resume_command(run_dir)} optim.max_steps=... --allow-changed optim.max_steps"
        raise UserError("--resume", str(run_dir), "is finished.", fix)


def check_same_data(before: dict[str, str], now: dict[str, str], allowed: list[str]) -> None:
    """UserError where data or teacher, under the same names, hold something else than at the run's start."""
    for name, fingerprint in before.items():
        key = "data" if name == "data" else "teacher"
        if now.get(name, fingerprint) != fingerprint and not _allowed(key, allowed):
            problem = "has changed since the run was started: the rest of the training would be of something else."
            raise UserError(key, name, problem, f"Restore it, or say that you mean it: --allow-changed {key}")


@dataclass(frozen=True)
class Start:
    """Where a run that goes on begins: after `step` optimizer steps, from `checkpoint` (None: it had written none)."""

    step: int
    checkpoint: Path | None


def last_saved(run_dir: Path) -> Start:
    """Raises UserError where the last checkpoint is not whole."""
    path = run_dir / "checkpoints" / LAST
    if not path.exists():
        log.info("No checkpoint in %s yet: training begins at step 0.", run_dir)
        return Start(0, None)
    step = CheckpointFile().load_checkpoint(path)["global_step"]
    log.info("Going on after step %d, from %s", step, path)
    return Start(step, path)


def resume_command(run_dir: Path) -> str:
    return shlex.join(["potstill", "train", "--resume", str(run_dir)])


def _allowed(key: str, allowed: list[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in allowed)


def _value(config: TrainConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    return value
