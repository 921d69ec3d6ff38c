"""potstill mine: where the teacher is right and the student wrong, in clusters, and what to ask the teacher next."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from potstill.commands.mine_round import Mined, mine
from potstill.config.build import build
from potstill.config.compose import typed
from potstill.config.mine_schema import MineConfig
from potstill.data.pool import PROPOSALS
from potstill.errors import UserError, nearest_hint
from potstill.mining.prompts import check_template
from potstill.reporting.mine_table import plain_rows, print_mined
from potstill.tracking import record
from potstill.tracking.logger import finish, with_metrics_file
from potstill.tracking.manifest import write_json, write_lines

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "pool")
PICKS = ("nearest", "random")
POSITIVE = ("clusters", "budget", "total", "examples", "per_prompt")


def main(config: DictConfig) -> None:
    options = typed(config, MineConfig)
    check(options)
    mined, output = mine(options), Path(options.output)
    write(mined, output)
    print_mined(mined.summary)
    _log(options, mined, output)
    log.info("\nWritten: %s, and beside it mined.jsonl, %s, prompts.jsonl", output / "mined.json", PROPOSALS)


def check(options: MineConfig) -> None:
    """Raises UserError for what can be seen without reading any data."""
    for key in POSITIVE:
        value = getattr(options, key)
        if value is not None and value <= 0:
            raise UserError(key, value, "must be greater than zero.", f"Give a positive number: {key}=10")
    if options.pick not in PICKS:
        raise UserError("pick", options.pick, "is not one of the choices.", nearest_hint(options.pick, PICKS))
    for split in options.splits:
        if split == "test":
            problem = "holds test: what is trained on what failed there cannot be tested there."
            raise UserError("splits", options.splits, problem, "For example: splits=[train,validation]")
        if split not in SPLITS:
            raise UserError("splits", split, "is no split that is mined.", nearest_hint(split, SPLITS))
    if not options.splits:
        raise UserError("splits", [], "names nothing to mine.", "For example: splits=[train,validation]")
    if "pool" in options.splits and not (options.pool and options.trust_teacher):
        problem = "mines the pool, which has no gold labels."
        raise UserError("splits", options.splits, problem, "Set trust_teacher=true, and pool=file pool.train=FILE")
    if not 0 <= options.held_back < 1:
        fix = "For a half: held_back=0.5"
        raise UserError("held_back", options.held_back, "must lie in [0, 1): of the rest, failures are mined.", fix)
    if options.template is not None:
        check_template(options.template)


def write(mined: Mined, output: Path) -> None:
    write_lines(output / "mined.jsonl", mined.failures)
    write_lines(output / PROPOSALS, mined.proposals)
    write_lines(output / "prompts.jsonl", mined.prompts)
    write_lines(output / "held_back.jsonl", mined.held_back)
    write_json(output / "mined.json", mined.summary)


def _log(options: MineConfig, mined: Mined, output: Path) -> None:
    if not options.logger:
        return
    place = {"save_dir": str(output.absolute()), "name": output.name, "group": "mine"}
    built = build(options.logger, "logger", **place, job_type="mine")
    loggers, status = with_metrics_file(built, str(output)), "failed"
    try:
        record.log_config(loggers, {"mine": asdict(options)})
        tables = {
            "clusters": plain_rows(mined.summary["clusters"]),
            "failures": mined.failures,
            "proposals": mined.proposals,
        }
        record.log_tables(loggers, {f"mine/{name}": rows for name, rows in tables.items()})
        numbers: dict[str, Any] = {"failures": len(mined.failures), "proposals": len(mined.proposals)}
        record.log_summary(loggers, {f"mine/{name}": value for name, value in numbers.items()})
        status = "finished"
    finally:
        finish(loggers, status)
