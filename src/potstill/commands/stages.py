"""The stages of a recipe, planned: each a command with its config, and where its output goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig

from potstill.commands.cache import check_cache
from potstill.config.compose import SCHEMAS, composed, typed
from potstill.config.schema import RecipeCommandConfig, StageConfig
from potstill.config.validate import validate
from potstill.errors import UserError, nearest_hint
from potstill.fingerprint import fingerprint

# What of the recipe's own command line each command understands.
SHARED = {
    "train": ("seed", "hardware", "logger", "debug_preset"),
    "cache": ("seed", "hardware", "debug_preset"),
    "evaluate": ("logger", "bar_preset"),
}
# What of a config says where things go, and not what they are.
UNDECISIVE = {
    "train": ("run", "logger"),
    "cache": ("run", "logger", "callbacks", "optim"),
    "evaluate": ("output", "logger", "ledger", "mixes"),
}


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
        if "teacher" in decides:
            decides["teacher"]["cache"]["dir"] = None  # it grows with every stage, and moves what is paid only
        return fingerprint({"command": self.command, **decides}, self.directory)

    @property
    def grows(self) -> bool:
        """Whether what an earlier start left is of use under any fingerprint: signals are found by content."""
        return self.command == "cache"


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
    shared = [text.replace("_preset=", "=") for text in shared]
    if stage.command == "cache":  # a place that the stage or the user chooses comes later, and wins
        return _cache_stage(name, [f"teacher.cache.dir={run_dir / name}", *own, *shared, *stage.extra], run_dir)
    trains = [f"run.dir={run_dir / name}", f"run.name={run_dir.name}-{name}"]
    place = trains if stage.command == "train" else [f"output={run_dir}"]
    overrides = [*own, *shared, *stage.extra, *place]
    config = composed(stage.command, overrides)
    if stage.command == "train":
        validate(typed(config, SCHEMAS["train"]))
        return Stage(name, "train", overrides, config, run_dir / name, run_dir / name / "student")
    return Stage(name, "evaluate", overrides, config, run_dir / name, run_dir / "evaluation.json")


def _cache_stage(name: str, overrides: list[str], run_dir: Path) -> Stage:
    config = composed("cache", overrides)
    options = typed(config, SCHEMAS["cache"])
    check_cache(options)
    return Stage(name, "cache", overrides, config, run_dir / name, Path(options.teacher.cache.dir))
