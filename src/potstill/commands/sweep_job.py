"""One job of a sweep: told where it stands, and its end written down, whatever it is."""

from __future__ import annotations

import importlib
import logging
import sys
import time
import traceback
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from potstill.config.combinations import values_of
from potstill.errors import DivergedError, PrunedError, StoppedError, UserError, readable
from potstill.sweeps.record import DONE, JOB, SweepRecord, job_of, own_overrides, write_job
from potstill.tracking.manifest import manifest_of
from potstill.tracking.trial import open_trial

log = logging.getLogger(__name__)


class SweepJob:
    """What Hydra calls for every job, in this process or in a worker that a launcher sends it to."""

    def __init__(self, command: str, sweep: SweepRecord) -> None:
        self.command, self.sweep = command, sweep

    def run(self, config: DictConfig) -> float | tuple[float, ...] | None:
        """The metrics that `config.returns` names; at once, where the job is done. Raises StoppedError where it failed,
        after writing that down."""
        directory, own = self._place(config)
        before = job_of(self.sweep, int(directory.name))
        if before.status in DONE:
            return self._returned(config, before.status, before.values)
        (directory / JOB).unlink(missing_ok=True)
        log.info("\nJob %s%s  %s", directory.name, self._of(), " ".join(own))
        began_at = time.perf_counter()
        try:
            status, error, metrics = self._start(config, directory)
        except Exception as raised:  # and not an interruption: of that the run's own manifest tells
            status, error = "refused" if isinstance(raised, UserError) else "failed", str(raised) or repr(raised)
            write_job(directory, own, status, error=error, seconds=time.perf_counter() - began_at)
            _say(directory, own, raised)
            raise StoppedError(error) from None  # the sweeper should know; text alone gets out of any worker
        write_job(directory, own, status, error=error, values=metrics, seconds=time.perf_counter() - began_at)
        return self._returned(config, status, metrics)

    def _of(self) -> str:
        return f" of 0-{len(self.sweep.jobs) - 1}" if self.sweep.jobs else ""

    def _place(self, config: DictConfig) -> tuple[Path, list[str]]:
        """The job's directory and its own overrides; its config told of them."""
        hydra = HydraConfig.get()
        directory = Path(hydra.runtime.output_dir)
        own = own_overrides(list(hydra.overrides.task), self.sweep)
        if self.command == "train":
            run = config.run
            run.sweep, run.swept = self.sweep.name, values_of(own)
            run.name = f"{self.sweep.directory.name}-{directory.name}"
            run.resume = (directory / "config.yaml").exists()  # the sweep goes on, or a scheduler begins the job again
            if study := hydra.sweeper.get("study_name"):  # hydra/sweeper=optuna
                run.trial = {"storage": hydra.sweeper.storage, "study_name": study, "number": int(directory.name)}
        return directory, own

    def _start(self, config: DictConfig, directory: Path) -> tuple[str, str | None, dict[str, float]]:
        """Status, reason and metrics."""
        try:
            metrics = importlib.import_module(f"potstill.commands.{self.command}").main(config)
            return "finished", None, metrics if isinstance(metrics, dict) else {}
        except DivergedError as error:
            log.warning("%s", error)
            return "diverged", str(error), manifest_of(directory)["metrics"]
        except PrunedError as error:
            log.info("%s", error)
            return "pruned", str(error), manifest_of(directory)["metrics"]

    def _returned(self, config: DictConfig, status: str, metrics: dict[str, float]) -> float | tuple[float, ...] | None:
        if self.command != "train":
            return None
        if config.run.trial:
            open_trial(config.run.trial).record(metrics, status)
        values = tuple(metrics[name] for name in config.returns)
        return values[0] if len(values) == 1 else values


def _say(directory: Path, own: list[str], error: Exception) -> None:
    print(f"\nJob {directory.name} ({' '.join(own)}) failed:", file=sys.stderr)
    if isinstance(error, UserError | StoppedError):
        print(readable(error), file=sys.stderr)
    else:
        traceback.print_exception(error)
