"""A training run on record, from its start to whatever end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from potstill.commands.resume import Start
from potstill.config.build import build
from potstill.config.schema import TrainConfig
from potstill.errors import DivergedError, PrunedError, StoppedError
from potstill.tracking import record
from potstill.tracking.lock import locked
from potstill.tracking.logger import finish, with_metrics_file
from potstill.tracking.manifest import closed, write_json, write_text
from potstill.tracking.secrets import redact

log = logging.getLogger(__name__)

# What a run that diverged counts as: finite, as samplers want it, and worse than any run that did not. A loss of 100
# nats a row is that of a guess among e^100 classes.
WORST = {"val/loss": 100.0, "val/accuracy": 0.0}
WORST_EMBEDDINGS = {"val/loss": 100.0, "val/ndcg_at_10": 0.0, "val/spearman": -1.0}


@contextmanager
def recorded(
    config: TrainConfig, overrides: Sequence[str], facts: dict[str, Any], start: Start | None = None
) -> Iterator[list[Logger]]:
    """Config, overrides and manifest in the run's directory and in its loggers, by the first rank; yields the loggers.

    facts: the open manifest; what the body adds to it is written at the end, with how the run ended: `finished`,
        `diverged` (a loss that is not finite), `pruned`, `interrupted` or `failed`.
    start: where the run goes on, if it does.
    """
    if rank_zero_only.rank != 0:
        yield make_loggers(config, start)
        return
    run_dir, status = Path(config.run.dir), "failed"
    with locked(run_dir):
        loggers = make_loggers(config, start)
        try:
            write_config(config, overrides, run_dir)
            write_json(run_dir / "manifest.json", facts)
            record.log_config(loggers, asdict(config))
            record.log_manifest(loggers, facts)
            yield loggers
            status = "finished"
        except DivergedError:
            status = "diverged"
            worst = WORST_EMBEDDINGS if config.data.task == "embedding" else WORST
            facts["metrics"] = {**facts.get("metrics", {}), **worst}
            record.log_summary(loggers, facts["metrics"])
            raise
        except PrunedError as error:
            status = "pruned"
            facts["metrics"] = {**facts.get("metrics", {}), **error.metrics}
            raise
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            _close(facts, status, loggers, run_dir)


def _close(facts: dict[str, Any], status: str, loggers: list[Logger], run_dir: Path) -> None:
    """Write down how the run ended; whatever of it fails, the loggers are finished."""
    try:
        end = closed(facts, status)
        record.log_manifest(loggers, end)
        write_json(run_dir / "manifest.json", end)
    except StoppedError as error:
        if status == "finished":
            raise
        log.warning("%s", error)  # less than what ended the run
    finally:
        finish(loggers, status)


def write_config(config: TrainConfig, overrides: Sequence[str], directory: Path) -> None:
    write_text(directory / "config.yaml", _yaml(asdict(config)))
    write_text(directory / "overrides.yaml", _yaml(list(overrides)))


def make_loggers(config: TrainConfig, start: Start | None = None) -> list[Logger]:
    """What `config.logger` names, told where the run stands and, where it goes on, from which step."""
    if not config.logger:
        return []
    run, step = config.run, start.step if start else None
    group = run.sweep or run.experiment
    place = {"save_dir": run.dir, "name": run.name, "group": group, "job_type": "train", "resume_step": step}
    return with_metrics_file(build(config.logger, "logger", **place), run.dir, step)


@contextmanager
def logged(logger: dict[str, Any], output: Path, *, job_type: str, **place: str) -> Iterator[list[Logger]]:
    """The loggers of a command that trains nothing, told how it ended."""
    given = {"save_dir": str(output.absolute()), "name": output.name, "job_type": job_type, **place}
    loggers, status = with_metrics_file(build(logger, "logger", **given), str(output)), "failed"
    try:
        yield loggers
        status = "finished"
    finally:
        finish(loggers, status)


def _yaml(content: Any) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(redact(content)))
