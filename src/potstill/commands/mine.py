"""potstill mine: where the teacher is right and the student wrong, in clusters, and what to ask the teacher next."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from potstill.commands.mine_round import Mined, mine
from potstill.commands.recording import logged
from potstill.config.compose import typed
from potstill.config.mine_schema import MineConfig
from potstill.config.mine_validate import check_mining
from potstill.data.pool import PROPOSALS, SUMMARY
from potstill.reporting.mine_table import plain_rows, print_mined
from potstill.tracking import record
from potstill.tracking.manifest import write_json, write_lines

log = logging.getLogger(__name__)


def main(config: DictConfig) -> None:
    options = typed(config, MineConfig)
    check_mining(options)
    mined, output = mine(options), Path(options.output)
    write(mined, output)
    print_mined(mined.summary)
    _log(options, mined, output)
    log.info("\nWritten: %s, and beside it mined.jsonl, %s, prompts.jsonl", output / SUMMARY, PROPOSALS)


def write(mined: Mined, output: Path) -> None:
    write_lines(output / "mined.jsonl", mined.failures)
    write_lines(output / PROPOSALS, mined.proposals)
    write_lines(output / "prompts.jsonl", mined.prompts)
    write_lines(output / "held_back.jsonl", mined.held_back)
    write_json(output / SUMMARY, mined.summary)


def _log(options: MineConfig, mined: Mined, output: Path) -> None:
    if not options.logger:
        return
    with logged(options.logger, output, job_type="mine", group="mine") as loggers:
        record.log_config(loggers, {"mine": asdict(options)})
        tables = {
            "clusters": plain_rows(mined.summary["clusters"]),
            "failures": mined.failures,
            "proposals": mined.proposals,
        }
        record.log_tables(loggers, {f"mine/{name}": rows for name, rows in tables.items()})
        numbers: dict[str, Any] = {"failures": len(mined.failures), "proposals": len(mined.proposals)}
        record.log_summary(loggers, {f"mine/{name}": value for name, value in numbers.items()})
