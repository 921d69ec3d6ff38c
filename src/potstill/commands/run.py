"""potstill run: a recipe's stages in order, each skipped when its output with the same fingerprint is there."""

from __future__ import annotations

import importlib
import json
import logging
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from potstill.config.compose import SCHEMAS, composed, typed
from potstill.config.schema import RecipeCommandConfig, StageConfig
from potstill.config.validate import validate
from potstill.errors import UserError, nearest_hint
from potstill.fingerprint import fingerprint
from potstill.tracking.manifest import write_json

log = logging.getLogger(__name__)

# What of the recipe's own command line each command understands.
SHARED = {"train": ("seed", "hardware", "logger", "debug_preset"), "evaluate": ("logger",)}
# What of a config says where things go, and not what they are.
UNDECISIVE = {"train": ("run", "logger"), "evaluate": ("output", "logger")}


@dataclass
class Stage:
    """One step of a recipe: a command with its config, and where its output goes."""

    name: str
    command: str
    overrides: list[str]
    config: DictConfig
    directory: Path
    output: Path  # there once the stage is done

    def fingerprint(self) -> str:
        config = asdict(typed(self.config, SCHEMAS[self.command]))  # type: ignore[call-overload]
        decides = {name: value for name, value in config.items() if name not in UNDECISIVE[self.command]}
        return fingerprint({"command": self.command, **decides}, self.directory)


def main(config: DictConfig) -> None:
    job = HydraConfig.get()
    options, run_dir = typed(config, RecipeCommandConfig), Path(job.runtime.output_dir)
    stages = plan(options, run_dir, list(job.overrides.task))
    records = _read_records(run_dir)
    for stage in stages:
        try:
            records[stage.name] = _done(stage, records.get(stage.name))
        except (Exception, KeyboardInterrupt):
            again = shlex.join(["potstill", "run", *_with_directory(job.overrides.task, run_dir)])
            log.error(
                "\nStage '%s' did not finish. The stages before it are kept; go on with:\n  %s", stage.name, again
            )
            raise
        write_json(run_dir / "manifest.json", {"schema_version": 1, "stages": records})
    log.info("Run directory: %s", run_dir)


def plan(options: RecipeCommandConfig, run_dir: Path, given: Sequence[str]) -> list[Stage]:
    """Every stage composed and validated, before the first one starts."""
    directories: dict[str, str] = {}
    stages = []
    for name, stage in options.recipe.stages.items():
        stages.append(_plan_stage(name, stage, directories, run_dir, given))
        directories[name] = str(run_dir / name)
    return stages


def _plan_stage(
    name: str, stage: StageConfig, directories: dict[str, str], run_dir: Path, given: Sequence[str]
) -> Stage:
    key = f"recipe.stages.{name}"
    if stage.command not in SHARED:
        raise UserError(
            f"{key}.command", stage.command, "is no command of a stage.", nearest_hint(stage.command, SHARED)
        )
    try:
        own = [text.format(**directories) for text in stage.overrides]
    except KeyError as error:
        problem = f"names no earlier stage: {error}."
        raise UserError(f"{key}.overrides", stage.overrides, problem, nearest_hint(str(error), directories)) from error
    shared = [text for text in given if text.lstrip("+~").partition("=")[0].split(".")[0] in SHARED[stage.command]]
    shared = [text.replace("debug_preset=", "debug=") for text in shared]
    trains = [f"run.dir={run_dir / name}", f"run.name={run_dir.name}-{name}"]
    place = trains if stage.command == "train" else [f"output={run_dir}"]
    overrides = [*own, *shared, *stage.extra, *place]
    config = composed(stage.command, overrides)
    if stage.command == "train":
        validate(typed(config, SCHEMAS["train"]))
        return Stage(name, "train", overrides, config, run_dir / name, run_dir / name / "student")
    return Stage(name, "evaluate", overrides, config, run_dir / name, run_dir / "evaluation.json")


def _done(stage: Stage, record: dict[str, Any] | None) -> dict[str, Any]:
    """Run the stage unless its output is there already; returns what the recipe's manifest keeps of it."""
    now = stage.fingerprint()
    if record and record["fingerprint"] == now and stage.output.exists():
        log.info("Stage '%s': skipped, its output is there (%s).", stage.name, stage.output)
        return record
    log.info("\nStage '%s': potstill %s %s", stage.name, stage.command, shlex.join(stage.overrides))
    _set_aside(stage.directory)
    _set_aside(stage.output)
    _start(stage)
    return {"command": stage.command, "fingerprint": now, "output": str(stage.output)}


def _start(stage: Stage) -> None:
    command = importlib.import_module(f"potstill.commands.{stage.command}")
    if stage.command == "train":
        command.train(typed(stage.config, SCHEMAS["train"]), stage.overrides)
    else:
        command.main(stage.config)


def _set_aside(path: Path) -> None:
    """What an earlier start left, finished under another fingerprint or broken off, is kept under another name."""
    if path.exists():
        kept = path.with_name(f"{path.stem}.{datetime.now():%Y-%m-%d_%H-%M-%S}{path.suffix}")
        path.rename(kept)
        log.info("Earlier output of this stage, made from something else or unfinished, is kept as %s", kept)


def _read_records(run_dir: Path) -> dict[str, Any]:
    file = run_dir / "manifest.json"
    return json.loads(file.read_text())["stages"] if file.exists() else {}


def _with_directory(given: Sequence[str], run_dir: Path) -> list[str]:
    return [*(text for text in given if not text.startswith("run.dir=")), f"run.dir={run_dir}"]
