"""Runs made up, in memory and on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from potstill.sweeps.results import Result


def result(name: str, value: float, *, metric: str = "val/accuracy", seed: int = 0, **more: Any) -> Result:
    """A finished run. more: `lr=0.1` and the like, or any field of a Result under its own name."""
    fields = {key: more.pop(key) for key in list(more) if key in Result.__dataclass_fields__}
    cost = more.pop("cost", None)
    metrics = {metric: value} | ({} if cost is None else {"cost/parameters": cost})
    keys = {f"optim.optimizer.{key}": each for key, each in more.items()}
    overrides = [f"{key}={each}" for key, each in keys.items()]
    defaults: dict[str, Any] = {"status": "finished", "place": name, "overrides": overrides, "metrics": metrics}
    defaults["config"] = {"seed": seed, "batch_size": 64, **keys}
    return Result(name=name, **{**defaults, **fields})


def write_run(
    directory: Path,
    config: dict[str, Any] | None = None,
    *,
    status: str = "finished",
    metrics: dict[str, float] | None = None,
    overrides: list[str] | None = None,
) -> Path:
    """A run's directory as `potstill train` leaves it, as far as a comparison reads it."""
    directory.mkdir(parents=True, exist_ok=True)
    whole = {"seed": 0, **(config or {}), "run": {"dir": str(directory), **(config or {}).get("run", {})}}
    (directory / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(whole)))
    (directory / "overrides.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(overrides or [])))
    manifest = {"status": status, "metrics": metrics or {}, "validated_on": "a1"}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def write_sweep(directory: Path, jobs: list[list[str]], *, command: str = "train") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    keys = list(dict.fromkeys(text.partition("=")[0] for job in jobs for text in job))
    sweep = {"name": directory.name, "command": command, "overrides": [], "sweeper": "grid", "keys": keys}
    (directory / "sweep.json").write_text(json.dumps({"schema_version": 1, **sweep, "jobs": jobs, "config": {}}))
    return directory


def write_job(directory: Path, overrides: list[str], status: str, *, error: str | None = None, **values: float) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    content = {"number": int(directory.name), "overrides": overrides, "status": status, "error": error}
    content |= {"values": values, "seconds": 1.0}
    (directory / "job.json").write_text(json.dumps({"schema_version": 1, **content}))
