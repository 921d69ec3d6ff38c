"""Loggers for the Lightning trainer: Weights & Biases, or a file. What `conf/logger/` names."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from potstill.errors import UserError
from potstill.tracking.login import resolve_mode
from potstill.tracking.secrets import redact

log = logging.getLogger(__name__)

# A diverged trial of a sweep is a result, not a crash.
EXIT_CODES = {"finished": 0, "diverged": 0, "failed": 1, "interrupted": 130}


class RunLogger(WandbLogger):
    """Lightning's W&B logger around a run of its own, which knows how large an artifact may be.

    artifact_max_mb: the student is uploaded up to this size, in megabytes (1e6 bytes); 0: never.
    """

    def __init__(self, artifact_max_mb: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.artifact_max_mb = artifact_max_mb


class MetricsFile(CSVLogger):
    """Lightning's CSV logger for a directory that holds other files too.

    An earlier metrics.csv is replaced at the first metric, not before: an evaluation, which logs none, leaves that of
    the training.
    """

    @property
    def experiment(self) -> Any:
        if self._experiment is not None:
            return self._experiment
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Experiment logs directory", category=UserWarning)
            return super().experiment


def wandb_logger(
    save_dir: str,
    name: str | None,
    group: str | None,
    job_type: str,
    *,
    project: str = "potstill",
    entity: str | None = None,
    tags: Sequence[str] = (),
    mode: str = "auto",
    artifact_max_mb: float = 100,
) -> RunLogger:
    """Start a W&B run whose files live in `save_dir/wandb`, on rank 0, and return a logger for it.

    The run is the logger's own even where the process already has one (an unfinished job of a multirun). Offline, one
    log line says how to view and how to upload it. Raises UserError for a `mode` that does not exist, and where W&B
    refuses the run (no network, a bad key).
    """
    mode, run = resolve_mode(mode), None
    if rank_zero_only.rank == 0:
        facts = {"name": name, "group": group, "job_type": job_type, "tags": list(tags)}
        run = _start(mode, dir=save_dir, project=project, entity=entity, **facts)
    return RunLogger(artifact_max_mb, experiment=run, project=project, save_dir=save_dir)


def csv_logger(
    save_dir: str, name: str | None = None, group: str | None = None, job_type: str = "train"
) -> MetricsFile:
    """Metrics in `save_dir/metrics.csv`, one row a step.

    The other arguments are those of `wandb_logger`; a file in the run's own directory has no use for them.
    """
    del name, group, job_type
    return MetricsFile(save_dir, name="", version="")


def with_metrics_file(logger: Logger | None, save_dir: str) -> list[Logger]:
    """`logger` and, beside a W&B run, the file `metrics.csv` that every run directory has. None: no logger at all."""
    if logger is None or isinstance(logger, CSVLogger):
        return [logger] if logger else []
    return [logger, csv_logger(save_dir)]


def wandb_runs(loggers: Iterable[Logger]) -> list[wandb.Run]:
    """The W&B runs among `loggers`; none on ranks other than 0."""
    if rank_zero_only.rank != 0:
        return []
    return [logger.experiment for logger in loggers if isinstance(logger, WandbLogger)]  # type: ignore[misc]


def finish(loggers: Iterable[Logger], status: str = "finished") -> None:
    """End the W&B runs among `loggers`, with `status` (`finished`, `diverged`, `failed`, `interrupted`) in the summary.

    To be called in `finally`: an unfinished run would stay open until the process ends, after all jobs of a multirun.
    """
    for run in wandb_runs(loggers):
        run.summary["status"] = status
        run.finish(exit_code=EXIT_CODES[status])


def _start(mode: str, **facts: Any) -> wandb.Run:
    Path(facts["dir"]).mkdir(parents=True, exist_ok=True)
    try:
        run = wandb.init(mode=mode, reinit="create_new", settings=_settings(mode), **facts)  # type: ignore[arg-type]
    except wandb.Error as error:
        fix = "Log in with `wandb login`, or set logger.mode=offline and upload later."
        raise UserError("logger.mode", mode, f"W&B does not take the run: {error}", fix) from error
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    if mode == "offline":
        _say_offline(run)
    return run


def _settings(mode: str) -> wandb.Settings:
    """Offline, our one line replaces the client's nine. The client records the command line as it is; where that holds
    a credential, the client is told to record nothing of the machine."""
    return wandb.Settings(silent=mode == "offline", x_disable_meta=redact(sys.argv) != sys.argv)


def _say_offline(run: wandb.Run) -> None:
    directory = Path(run.settings.sync_dir)
    if directory.is_relative_to(Path.cwd()):
        directory = directory.relative_to(Path.cwd())
    log.info("W&B is offline. View: wandb leet %s   Upload: wandb sync %s", os.fspath(directory), os.fspath(directory))
