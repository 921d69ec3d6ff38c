"""What runs came to, read from their directories: sweeps, recipes' runs, single runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from potstill.errors import UserError
from potstill.evaluation.ranking import costs, slices_worst_first
from potstill.evaluation.ranking import numbers as flat_metrics
from potstill.nested import flat
from potstill.sweeps.record import RECORD, Job, jobs_of, read_sweep, run_status
from potstill.tracking.manifest import manifest_of

LOG = "train.log"
# What of a config says where things go or what a sweep gets, and not what a run is made of.
UNDECISIVE = ("run", "logger", "returns")
TEACHER = "teacher"  # a recipe's stage that trains what the others are distilled from, and is no rival of theirs


@dataclass(frozen=True)
class Result:
    """One run, as far as it came.

    name: unique among those compared. place: its directory or address. status: one of `record.STATUSES`. reason: why
    it is not finished. overrides: its own. choices: config group -> option. config: dotted key -> value, resolved,
    without what depends on where it was written. metrics: finite numbers only. data: fingerprint of what it was
    validated on. worst_slice: of its evaluation, `{"slice", "metric", "value", "n"}`.
    """

    name: str
    place: str
    status: str
    reason: str | None = None
    overrides: list[str] = field(default_factory=list)
    choices: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    data: str | None = None
    worst_slice: dict[str, Any] | None = None

    @property
    def seed(self) -> int | None:
        return self.config.get("seed")


def read_results(paths: Sequence[Path]) -> list[Result]:
    """Every run under `paths`, none left out. Raises UserError where a path holds none."""
    results = []
    for path, prefix in zip(paths, prefixes(paths), strict=True):
        found = list(_under(path))
        if not found:
            raise UserError("paths", str(path), "is a sweep in which nothing was started.", "Give another directory.")
        results += [replace(each, name=_joined(prefix, each.name) or path.resolve().name) for each in found]
    return results


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are finite numbers."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def decisive(config: Mapping[str, Any], own_places: Sequence[str] = ()) -> dict[str, Any]:
    """The flat config without what says where things go; own directories in values become `.`, `..` and so on."""

    def anywhere(value: Any) -> Any:
        for number, place in enumerate(own_places, 1):
            value = value.replace(place, "." * number) if isinstance(value, str) else value
        return value

    parts = {name: node for name, node in config.items() if name.split(".")[0] not in UNDECISIVE}
    return {key: anywhere(value) for key, value in flat(parts).items()} if parts else {}


def choices_of(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Group -> option: as the run recorded them, or else those overrides whose key is none of the config's."""
    recorded = (config.get("run") or {}).get("choices")
    pairs = recorded or dict(text.lstrip("+").split("=", 1) for text in overrides if "=" in text)
    keys = flat(config)
    return {
        group: str(option)
        for group, option in pairs.items()
        if group not in keys and group.split("/")[0].split(".")[0] not in (*UNDECISIVE, "hydra")
    }


def prefixes(paths: Sequence[Path]) -> list[str]:
    """What tells the runs of several paths apart: the last part, or all of the path where that is not enough."""
    if len(paths) == 1:
        return [""]
    names = [path.resolve().name for path in paths]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _under(path: Path) -> Iterator[Result]:
    if (path / "config.yaml").is_file():
        yield _run(path, "", _overrides(path))
    elif _stages(path):
        yield from _recipe(Job(0, path, [], "finished"), "")
    elif (path / RECORD).is_file():
        for job in jobs_of(read_sweep(path)):
            yield from _recipe(job, str(job.number)) if _stages(job.directory) else [_of_job(job)]
    else:
        problem = "is no directory." if not path.is_dir() else "holds neither a sweep nor a run."
        fix = "Give what `potstill train` or `potstill train -m` wrote, such as runs/train/2026-01-31_12-00-00"
        raise UserError("paths", str(path), problem, fix)


def _of_job(job: Job) -> Result:
    found = _run(job.directory, str(job.number), job.overrides)
    reason = job.error or (found.reason if job.status != "finished" else None)
    metrics = numbers(job.values) | found.metrics if job.status == "finished" else found.metrics
    return replace(found, status=job.status, reason=reason, metrics=metrics)


def _recipe(job: Job, name: str) -> Iterator[Result]:
    """The stages that trained, and the job itself where it did not come to its end."""
    stages = _stages(job.directory)
    for stage in stages:
        if (job.directory / stage).is_dir() and stage != TEACHER:
            yield _run(job.directory / stage, _joined(name, stage), job.overrides, stage)
    if job.status != "finished" and not (job.status == "killed" and all(stages.values())):
        yield Result(name, str(job.directory), job.status, job.error, job.overrides)


def _run(directory: Path, name: str, overrides: list[str], stage: str | None = None) -> Result:
    """stage: of the recipe whose directory this run's is in."""
    manifest, config = manifest_of(directory), _config(directory)
    own_places = [config["run"]["dir"], *([str(Path(config["run"]["dir"]).parent)] if stage else [])] if config else []
    evaluation = _json((directory.parent if stage else directory) / "evaluation.json")
    measured, worst_slice = _evaluated(evaluation, stage or "student")
    seconds = {"train/seconds": manifest.get("training", {}).get("seconds")}
    status = run_status(directory)
    return Result(
        name=name,
        place=str(directory),
        status=status,
        reason=None if status == "finished" else _reason(directory),
        overrides=overrides,
        choices=choices_of(config, _overrides(directory)) | ({"stage": stage} if stage else {}),
        config=decisive(config, own_places) if config else dict(text.split("=", 1) for text in overrides),
        metrics=numbers({**seconds, **measured, **manifest.get("metrics", {})}),
        data=manifest.get("validated_on"),
        worst_slice=worst_slice,
    )


def _evaluated(evaluation: dict[str, Any], model: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """`evaluation/*` and `cost/*` of the model, and its worst slice."""
    report = evaluation.get("models", {}).get(model)
    if report is None:
        return {}, None
    measured = {f"evaluation/{name}": value for name, value in flat_metrics(report["overall"]).items()}
    measured |= {f"cost/{name}": value for name, value in costs(evaluation, model).items()}
    metric, names = evaluation["metric"], slices_worst_first(evaluation, model)
    if not names:
        return measured, None
    worst = report["slices"][names[0]]
    return measured, {"slice": names[0], "metric": metric, "value": worst[metric], "n": worst["n"]}


def _reason(directory: Path) -> str:
    if not directory.is_dir():
        return "was never started"
    return f"see {directory / LOG}" if (directory / LOG).is_file() else f"{directory} holds no {LOG}"


def _stages(directory: Path) -> dict[str, bool]:
    """Of a recipe's run: name of each stage that trains -> whether it is done."""
    stages = manifest_of(directory).get("stages", {})
    return {name: stage["is_done"] for name, stage in stages.items() if stage["command"] == "train"}


def _config(directory: Path) -> dict[str, Any]:
    return _plain(directory / "config.yaml") or {}


def _overrides(directory: Path) -> list[str]:
    return [text for text in _plain(directory / "overrides.yaml") or [] if not text.startswith("run.")]


def _plain(file: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else None


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
