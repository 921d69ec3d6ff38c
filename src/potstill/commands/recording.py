"""A training run on record, from its start to whatever end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger

from potstill.config.build import build
from potstill.config.schema import TrainConfig
from potstill.objective import NonFiniteLossError
from potstill.tracking import record
from potstill.tracking.logger import finish, with_metrics_file
from potstill.tracking.manifest import closed, write_json, write_text
from potstill.tracking.secrets import redact


@contextmanager
def recorded(config: TrainConfig, overrides: Sequence[str], facts: dict[str, Any]) -> Iterator[list[Logger]]:
    """Config, overrides and manifest in the run's directory and in its loggers; yields the loggers.

    facts: the open manifest; what the body adds to it is written at the end, with how the run ended: `finished`,
        `diverged` (a loss that is not finite), `interrupted` or `failed`.
    """
    run_dir, loggers, status = Path(config.run.dir), make_loggers(config), "failed"
    try:
        write_text(run_dir / "config.yaml", _yaml(asdict(config)))
        write_text(run_dir / "overrides.yaml", _yaml(list(overrides)))
        write_json(run_dir / "manifest.json", facts)
        record.log_config(loggers, asdict(config))
        record.log_manifest(loggers, facts)
        yield loggers
        status = "finished"
    except NonFiniteLossError:
        status = "diverged"
        raise
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        end = closed(facts, status)
        write_json(run_dir / "manifest.json", end)
        try:
            record.log_manifest(loggers, end)
        finally:
            finish(loggers, status)


def make_loggers(config: TrainConfig) -> list[Logger]:
    """What `config.logger` names, told where the run stands."""
    if not config.logger:
        return []
    run = config.run
    place = {"save_dir": run.dir, "name": run.name, "group": run.experiment, "job_type": "train"}
    return with_metrics_file(build(config.logger, "logger", **place), run.dir)


def _yaml(content: Any) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(redact(content)))
