"""potstill run: a recipe's stages in order, each skipped when its output with the same fingerprint is there.

A training stage that was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import importlib
import json
import logging
import shlex
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from potstill.commands.stages import UNDECISIVE, Stage, plan
from potstill.config.compose import SCHEMAS, typed
from potstill.config.rerun import differences, read_config
from potstill.config.schema import RecipeCommandConfig
from potstill.errors import DONE
from potstill.tracking.manifest import manifest_of, write_json

log = logging.getLogger(__name__)


def main(config: DictConfig) -> int:
    """The exit code of the last stage's verdict, also where that stage was skipped; 0 where it gives none."""
    job = HydraConfig.get()
    options, run_dir = typed(config, RecipeCommandConfig), Path(job.runtime.output_dir)
    given = list(job.overrides.task)
    stages = plan(options, run_dir, given)
    records = _read_records(run_dir)

    def keep() -> None:
        write_json(run_dir / "manifest.json", {"schema_version": 1, "stages": records})

    done = 0
    while done < len(stages):
        stage = stages[done]
        try:
            _finish(stage, records, keep)
        except (Exception, KeyboardInterrupt):
            again = shlex.join(["potstill", "run", *_with_directory(given, run_dir)])
            log.error(
                "\nStage '%s' did not finish. The stages before it are kept; go on with:\n  %s", stage.name, again
            )
            raise
        done += 1
        if reason := (gained := _gain_of(stage)).get("stop"):
            log.info("Round %d is the last: %s.", stage.round, reason)
            stages = plan(options, run_dir, given, num_rounds=stage.round, keeps_last=gained["gained"])
    log.info("Run directory: %s", run_dir)
    return _exit_code(stages[-1]) if stages else DONE


def _gain_of(stage: Stage) -> dict[str, Any]:
    """What a round gained, and why no other should follow, where the stage was asked that."""
    return json.loads(stage.output.read_text(encoding="utf-8")) if stage.command == "gain" else {}


def _exit_code(last: Stage) -> int:
    if last.command != "evaluate":
        return DONE
    return json.loads(last.output.read_text(encoding="utf-8"))["verdict"]["exit_code"]


def _finish(stage: Stage, records: dict[str, Any], keep: Callable[[], None]) -> None:
    """Run the stage unless its output is there already, or go on with it where it was interrupted.

    keep: writes `records` down; once before the stage starts, so that a killed one is known by its fingerprint.
    """
    now, before = stage.fingerprint(), records.get(stage.name, {})
    is_same = before.get("fingerprint") == now
    if is_same and _is_done(stage, before):
        log.info("Stage '%s': skipped, its output is there (%s).", stage.name, stage.output)
    elif is_same and _is_interrupted(stage):
        log.info("\nStage '%s': goes on with %s", stage.name, stage.directory)
        stage.config.run.resume = True
        stage.config.run.allow_changed = list(UNDECISIVE["train"])
        _start(stage)
    else:
        log.info("\nStage '%s': potstill %s %s", stage.name, stage.command, shlex.join(stage.overrides))
        if not stage.grows:
            _set_aside(stage.directory)
            _set_aside(stage.output)
        started = {"command": stage.command, "fingerprint": now, "output": str(stage.output), "is_done": False}
        records[stage.name] = started
        keep()
        _start(stage)
    records[stage.name] = {**records[stage.name], "is_done": True}
    keep()


def _is_done(stage: Stage, record: dict[str, Any]) -> bool:
    """By the recipe's manifest or, where the recipe was killed before it wrote that down, the run's own."""
    is_finished = stage.command == "train" and manifest_of(stage.directory).get("status") == "finished"
    return stage.output.exists() and (record["is_done"] or (is_finished and _is_as_planned(stage)))


def _is_interrupted(stage: Stage) -> bool:
    return stage.command == "train" and (stage.directory / "config.yaml").exists() and _is_as_planned(stage)


def _is_as_planned(stage: Stage) -> bool:
    """Nobody has gone on with the run under another config."""
    changed = differences(read_config(stage.directory), typed(stage.config, SCHEMAS["train"]))
    return all(key.split(".")[0] in UNDECISIVE["train"] for key in changed)


def _start(stage: Stage) -> None:
    command = importlib.import_module(f"potstill.commands.{stage.command}")
    if stage.command in ("train", "cache"):
        getattr(command, stage.command)(typed(stage.config, SCHEMAS[stage.command]), stage.overrides)
    else:
        command.main(stage.config)


def _set_aside(path: Path) -> None:
    """What an earlier start left under another fingerprint, or without a checkpoint to go on from, is kept."""
    if path.exists():
        kept = path.with_name(f"{path.stem}.{datetime.now():%Y-%m-%d_%H-%M-%S}{path.suffix}")
        path.rename(kept)
        log.info("Earlier output of this stage, made from something else or unfinished, is kept as %s", kept)


def _read_records(run_dir: Path) -> dict[str, Any]:
    file = run_dir / "manifest.json"
    return json.loads(file.read_text())["stages"] if file.exists() else {}


def _with_directory(given: Sequence[str], run_dir: Path) -> list[str]:
    return [*(text for text in given if not text.startswith("run.dir=")), f"run.dir={run_dir}"]
