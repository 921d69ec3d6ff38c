"""What a command hands to W&B besides the metrics of each step. Loggers without a W&B run are passed over."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import Logger

from potstill.evaluation.ranking import costs, numbers
from potstill.nested import flat
from potstill.tracking.lineage import log_output
from potstill.tracking.logger import RunLogger, wandb_runs
from potstill.tracking.secrets import redact

log = logging.getLogger(__name__)


def log_config(loggers: Iterable[Logger], config: Mapping[str, Any]) -> None:
    """The resolved config, as plain nested values, credentials hidden. Once a run.

    What runs are told apart by stands at its top: `swept`, flat (`swept.optim.optimizer.lr` is one column), and
    `choices`, the option of every group. In a W&B sweep the swept keys are left to the sweep, which has set and locked
    them.
    """
    plain = redact(hoisted(config))
    for run in wandb_runs(loggers):
        swept = list(run.config.keys()) if run.sweep_id else []
        run.config.update(without_swept(plain, swept), allow_val_change=True)


def log_manifest(loggers: Iterable[Logger], manifest: Mapping[str, Any]) -> None:
    """The manifest as `manifest` in the run's config, where runs are filtered and compared. May be sent again."""
    for run in wandb_runs(loggers):
        run.config.update({"manifest": redact(manifest)}, allow_val_change=True)


def log_summary(loggers: Iterable[Logger], metrics: Mapping[str, Any]) -> None:
    """Final numbers, one a name, that stand for the whole run."""
    for run in wandb_runs(loggers):
        run.summary.update(dict(metrics))


def log_evaluation(loggers: Iterable[Logger], evaluation: Mapping[str, Any]) -> None:
    """What evaluation.json holds: the table `evaluation/slices`, and the overall numbers in the summary."""
    columns, rows = slice_table(evaluation)
    for run in wandb_runs(loggers):
        table = wandb.Table(columns=columns, data=rows, allow_mixed_types=True)  # type: ignore[arg-type]
        run.log({"evaluation/slices": table})
        run.summary.update(evaluation_summary(evaluation))


def log_tables(loggers: Iterable[Logger], tables: Mapping[str, list[dict[str, Any]]]) -> None:
    """Tables by name, each a list of rows that are alike; those without a row are left out."""
    for run in wandb_runs(loggers):
        for name, rows in tables.items():
            if rows:
                data = [list(row.values()) for row in rows]
                run.log({name: wandb.Table(columns=list(rows[0]), data=data, allow_mixed_types=True)})  # type: ignore[arg-type]


def log_student(loggers: Iterable[Logger], directory: str | Path) -> None:
    """The saved student as an artifact of type `model`, unless it is larger than the logger's `artifact_max_mb`.

    Files are read in place, also by a later `wandb sync`: they must not change afterwards.
    """
    files = sorted(path for path in Path(directory).rglob("*") if path.is_file())
    size_mb = sum(path.stat().st_size for path in files) / 1e6
    for logger in loggers:
        if isinstance(logger, RunLogger) and wandb_runs([logger]) and _has_room(logger, size_mb):
            artifact = wandb.Artifact(f"student-{logger.experiment.id}", type="model", metadata={"size_mb": size_mb})
            for path in files:
                name = path.relative_to(directory).as_posix()
                artifact.add_file(str(path), name=name, policy="immutable", skip_cache=True)
            log_output(logger.experiment, artifact)


def slice_table(evaluation: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows, one row a model and slice (`overall` first); None where a model has no such number."""
    entries = [
        (model, name, _flat(numbers))
        for model, result in evaluation["models"].items()
        for name, numbers in {"overall": result["overall"], **result.get("slices", {})}.items()
    ]
    metrics = list(dict.fromkeys(metric for _, _, numbers in entries for metric in numbers))
    return ["model", "slice", *metrics], [
        [model, name, *(numbers.get(metric) for metric in metrics)] for model, name, numbers in entries
    ]


def evaluation_summary(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """`evaluation/<model>/<metric or cost>` and `evaluation/difference/<pair>`, with `/low` and `/high`."""
    summary = {
        f"evaluation/{model}/{name}": value
        for model, result in evaluation["models"].items()
        for name, value in {**_flat(result["overall"]), **_costs(evaluation, model)}.items()
    }
    for pair, difference in evaluation.get("differences", {}).items():
        low, high = difference.get("interval") or (None, None)
        key = f"evaluation/difference/{pair}"
        summary |= {key: difference["value"], f"{key}/low": low, f"{key}/high": high}
    return {name: value for name, value in summary.items() if value is not None}


def _flat(group: Mapping[str, Any]) -> dict[str, Any]:
    """Counts and metrics."""
    counts = {name: group[name] for name in ("n", "num_labelled") if name in group}
    return counts | numbers(dict(group))


def _costs(evaluation: Mapping[str, Any], model: str) -> dict[str, Any]:
    return costs(dict(evaluation), model) if "size" in evaluation["models"][model] else {}


def hoisted(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with `run.swept` and `run.choices` at its top, where they are not empty, and no longer in `run`."""
    rest = dict(config)
    if "run" in config:
        run = rest["run"] = dict(config["run"])
        rest |= {name: value for name in ("swept", "choices") if (value := run.pop(name, None))}
    return rest


def without_swept(config: Mapping[str, Any], swept: Iterable[str]) -> dict[str, Any]:
    """`config` less the values at the dotted keys `swept`.

    A key that chooses a group (`loss=kd`) stands where the config has a dict. The sweep keeps the key; the dict's
    values go under dotted names (`loss.term.kd.weight`), which the W&B pages show alike.
    """
    rest: dict[str, Any] = copy.deepcopy(dict(config))
    for key in swept:
        *parents, leaf = key.split(".")
        node: Any = rest
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict) and leaf in node:
            value = node.pop(leaf)
            rest |= flat(value, key) if isinstance(value, dict) else {}
    return rest


def _has_room(logger: RunLogger, size_mb: float) -> bool:
    if 0 < logger.artifact_max_mb < size_mb:
        log.info("The student (%.1f MB) is not sent to W&B: logger.artifact_max_mb=%s", size_mb, logger.artifact_max_mb)
    return size_mb <= logger.artifact_max_mb
