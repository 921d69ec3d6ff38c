"""The stages of a recipe, planned: each a command with its config, and where its output goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig

from potstill.config.compose import SCHEMAS, composed, typed
from potstill.config.schema import RecipeCommandConfig, StageConfig
from potstill.config.text_validate import validate_generation
from potstill.config.validate import validate
from potstill.errors import UserError, nearest_hint
from potstill.fingerprint import fingerprint

# What of the recipe's own command line each command understands.
SHARED = {
    "train": ("seed", "hardware", "logger", "debug_preset"),
    "generate": ("logger",),
    "evaluate": ("logger", "bar_preset"),
}
# What of a config says where things go, how fast, and not what they are.
UNDECISIVE = {
    "train": ("run", "logger"),
    "generate": ("run", "logger", "ledger", "limits", "report_every_s", "status"),
    "evaluate": ("output", "logger", "ledger", "mixes"),
}
OUTPUTS = {"train": "student", "generate": "export/export.json"}  # in the stage's directory


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
        if self.command == "train":
            decides["teacher"]["cache"]["dir"] = None  # it grows with every stage, and moves what is paid only
        return fingerprint({"command": self.command, **decides}, self.directory)


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
    overrides = [*own, *shared, *stage.extra, *_place(stage.command, name, run_dir)]
    config = composed(stage.command, overrides)
    if stage.command == "train":
        validate(typed(config, SCHEMAS["train"]))
    elif stage.command == "generate":
        validate_generation(typed(config, SCHEMAS["generate"]))
    output = run_dir / name / OUTPUTS[stage.command] if stage.command in OUTPUTS else run_dir / "evaluation.json"
    return Stage(name, stage.command, overrides, config, run_dir / name, output)


def _place(command: str, name: str, run_dir: Path) -> list[str]:
    """Generations share a ledger, which outlives what of them is set aside: no answer is paid for twice."""
    if command == "evaluate":
        return [f"output={run_dir}"]
    ledger = [f"ledger.dir={run_dir / 'ledger'}"] if command == "generate" else []
    return [f"run.dir={run_dir / name}", f"run.name={run_dir.name}-{name}", *ledger]
