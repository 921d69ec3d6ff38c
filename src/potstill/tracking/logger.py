"""Loggers for the Lightning trainer: Weights & Biases, or a file. What `conf/logger/` names."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from potstill.errors import UserError
from potstill.tracking.checkpoints import MONITORS
from potstill.tracking.identity import Identity, identify, shown
from potstill.tracking.login import resolve_mode
from potstill.tracking.metrics_file import MetricsFile, read_rows
from potstill.tracking.secrets import redact

log = logging.getLogger(__name__)

# A diverged trial of a sweep is a result, not a crash.
EXIT_CODES = {"finished": 0, "diverged": 0, "pruned": 0, "failed": 1, "interrupted": 130}


class RunLogger(WandbLogger):
    """Lightning's W&B logger around a run of its own, which knows how large an artifact may be.

    The best of what validation measured so far is in the summary as `best/val/loss` and `best/val/accuracy`. W&B's own
    `define_metric("val/loss", summary="min")` would turn `val/loss` into `{"min": ...}`, which the final number under
    that name then replaces; and it begins anew with every part of a run that went on.

    artifact_max_mb: the student is uploaded up to this size, in megabytes (1e6 bytes); 0: never.
    is_lost: the client's own process has died; nothing more is handed to it, and training goes on.
    """

    def __init__(self, artifact_max_mb: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.artifact_max_mb = artifact_max_mb
        self.best: dict[str, float] = {}
        self.is_lost = False

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.is_lost:
            return
        try:
            super().log_metrics(metrics, step)
            self.keep(best_of(self.best, metrics))
        except ConnectionError as error:
            self.is_lost = True
            _say_lost(self.experiment, f"ended with {error!r}, the training goes on")

    @rank_zero_only
    def keep(self, best: Mapping[str, float]) -> None:
        """Write the best values of metrics into the summary, where they are not there yet."""
        if best != self.best:
            self.best = dict(best)
            self.experiment.summary.update({f"best/{name}": value for name, value in best.items()})


def wandb_logger(
    save_dir: str,
    name: str | None,
    group: str | None,
    job_type: str,
    *,
    resume_step: int | None = None,
    project: str = "potstill",
    entity: str | None = None,
    tags: Sequence[str] = (),
    mode: str = "auto",
    artifact_max_mb: float = 100,
    finish_timeout_s: float = 300,
) -> RunLogger:
    """Start a W&B run whose files live in `save_dir/wandb`, on rank 0, and return a logger for it.

    The run is the logger's own even where the process already has one (an unfinished job of a multirun). Offline, one
    log line says how to view and how to upload it.

    resume_step: not None: go on with the W&B run that `save_dir` began, if it began one. Steps that are trained again
        are drawn a second time, at the same place.
    finish_timeout_s: how long the end of a run waits for the network; what was not sent by then stays on the disk.

    Raises UserError for a `mode` that does not exist, and where W&B refuses the run (no network, a bad key), and
    `StoppedError` where `save_dir` cannot be written.
    """
    if finish_timeout_s <= 0:
        raise UserError("logger.finish_timeout_s", finish_timeout_s, "must be positive.", "For example: 300")
    mode, run = resolve_mode(mode), None
    if rank_zero_only.rank == 0:
        identity = identify(Path(save_dir), job_type, mode, goes_on=resume_step is not None)
        facts = {"name": name, "group": group, "job_type": job_type, "tags": list(tags)}
        run = _start(identity, finish_timeout_s, dir=save_dir, project=project, entity=entity, **facts)
    logger = RunLogger(artifact_max_mb, experiment=run, project=project, save_dir=save_dir)
    logger.keep(best_before(Path(save_dir), resume_step))
    return logger


def csv_logger(
    save_dir: str,
    name: str | None = None,
    group: str | None = None,
    job_type: str = "train",
    *,
    resume_step: int | None = None,
) -> MetricsFile:
    """Metrics in `save_dir/metrics.csv`, one row a step; with `resume_step`, after the rows of earlier steps.

    The other arguments are those of `wandb_logger`; a file in the run's own directory has no use for them.
    """
    del name, group, job_type
    return MetricsFile(save_dir, resume_step)


def with_metrics_file(logger: Logger | None, save_dir: str, resume_step: int | None = None) -> list[Logger]:
    """`logger` and, beside a W&B run, the file `metrics.csv` that every run directory has. None: no logger at all."""
    if logger is None or isinstance(logger, CSVLogger):
        return [logger] if logger else []
    return [logger, csv_logger(save_dir, resume_step=resume_step)]


def best_of(best: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
    """`best` after `metrics`: lowest or highest, as MONITORS says; what is not finite is never best."""
    after = dict(best)
    for name, mode in MONITORS.items():
        if name in metrics and math.isfinite(value := float(metrics[name])):
            after[name] = {"min": min, "max": max}[mode](value, best.get(name, value))
    return after


def best_before(directory: Path, resume_step: int | None) -> dict[str, float]:
    """The best that `directory/metrics.csv` has of the steps before `resume_step`; of a new run, nothing."""
    best: dict[str, float] = {}
    if resume_step is None:
        return best
    for row in read_rows(directory / "metrics.csv"):
        if int(row["step"]) < resume_step:
            best = best_of(best, {name: float(text) for name, text in row.items() if name in MONITORS and text})
    return best


def wandb_runs(loggers: Iterable[Logger]) -> list[wandb.Run]:
    """The W&B runs among `loggers` that can be written to; none on ranks other than 0."""
    if rank_zero_only.rank != 0:
        return []
    return [logger.experiment for logger in loggers if isinstance(logger, RunLogger) and not logger.is_lost]


def finish(loggers: Iterable[Logger], status: str = "finished") -> None:
    """End the W&B runs among `loggers`, with `status` (`finished`, `diverged`, `failed`, `interrupted`) in the summary.

    To be called in `finally`: an unfinished run would stay open until the process ends, after all jobs of a multirun.
    A W&B that cannot be reached, or that broke, is one warning and no error: what was trained counts more.
    """
    for run in wandb_runs(loggers):
        try:
            run.summary["status"] = status
            run.finish(exit_code=EXIT_CODES[status])
        except Exception as error:  # of whatever kind: the client runs as a process of its own, which can die
            _say_lost(run, "could not be reached" if isinstance(error, TimeoutError) else f"ended with {error!r}")


def _start(identity: Identity, finish_timeout_s: float, **facts: Any) -> wandb.Run:
    mode = identity.mode
    Path(facts["dir"]).mkdir(parents=True, exist_ok=True)
    resume: Any = {"id": identity.id, "resume": "allow"} if identity.id else {}
    settings = _settings(mode, finish_timeout_s)
    try:
        run = wandb.init(mode=mode, reinit="create_new", settings=settings, **resume, **facts)  # type: ignore[arg-type]
    except wandb.Error as error:
        fix = "Log in with `wandb login`, or set logger.mode=offline and upload later."
        raise UserError("logger.mode", mode, f"W&B does not take the run: {error}", fix) from error
    identity.keep(run)
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    if mode == "offline":
        log.info("W&B is offline. View: wandb leet %s   Upload: wandb sync %s", *identity.view_and_upload(run))
    return run


def _settings(mode: str, finish_timeout_s: float) -> wandb.Settings:
    """Offline, our one line replaces the client's nine. The client records the command line as it is; where that holds
    a credential, the client is told to record nothing of the machine."""
    return wandb.Settings(
        silent=mode == "offline",
        x_disable_meta=redact(sys.argv) != sys.argv,
        finish_timeout=finish_timeout_s,
        finish_timeout_raises=True,
    )


def _say_lost(run: wandb.Run, reason: str) -> None:
    where = shown(Path(run.settings.sync_dir))
    log.warning("W&B %s; what it has is in %s  Upload: wandb sync --include-online %s", reason, where, where)
