"""The stages of a recipe, planned: each a command with its config, and where its output goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from potstill.commands.cache import check_cache
from potstill.config.compose import SCHEMAS, composed, typed
from potstill.config.mine_validate import check_mining
from potstill.config.schema import RecipeCommandConfig, StageConfig
from potstill.config.text_validate import validate_generation
from potstill.config.validate import validate
from potstill.data.pool import SUMMARY
from potstill.errors import UserError, nearest_hint
from potstill.fingerprint import fingerprint

# What of the recipe's own command line each command understands.
SHARED = {
    "train": ("seed", "hardware", "logger", "debug_preset"),
    "cache": ("seed", "hardware", "debug_preset"),
    "evaluate": ("logger", "bar_preset"),
    "mine": ("seed", "logger"),
    "gain": ("logger",),
    "generate": ("logger",),
}
# What of a config says where things go and how fast, and not what they are.
UNDECISIVE = {
    "train": ("run", "logger"),
    "cache": ("run", "logger", "callbacks", "optim"),
    "evaluate": ("output", "logger", "ledger", "mixes"),
    "mine": ("output", "logger"),
    "gain": ("output", "logger"),
    "generate": ("run", "logger", "ledger", "limits", "report_every_s", "status"),
}
# What is there, in the stage's own directory, once it is done. An evaluation's is in the recipe's.
OUTPUTS = {"train": "student", "mine": SUMMARY, "gain": "gain.json", "generate": "export/export.json"}


@dataclass
class Stage:
    """One step of a recipe: a command with its config, and where its output goes."""

    name: str
    command: str
    overrides: list[str]
    config: DictConfig
    directory: Path
    output: Path  # there once the stage is done
    round: int = 0  # that it belongs to; 0: to none

    def fingerprint(self) -> str:
        config = asdict(typed(self.config, SCHEMAS[self.command]))  # type: ignore[call-overload]
        decides = {name: value for name, value in config.items() if name not in UNDECISIVE[self.command]}
        if self.command in ("train", "cache"):
            decides["teacher"]["cache"]["dir"] = None  # it grows with every stage, and moves what is paid only
        return fingerprint({"command": self.command, **decides}, self.directory)

    @property
    def grows(self) -> bool:
        """Whether what an earlier start left is of use under any fingerprint: signals are found by content."""
        return self.command == "cache"


def plan(
    options: RecipeCommandConfig,
    run_dir: Path,
    given: Sequence[str],
    num_rounds: int | None = None,
    *,
    keeps_last: bool = True,
) -> list[Stage]:
    """Every stage composed and validated, before the first one starts.

    num_rounds: default, the recipe's own. keeps_last: whether the last round's output is better than that before it.
    """
    recipe, places, stages = options.recipe, Places(keeps_last), []
    if recipe.rounds < 0:
        raise UserError("recipe.rounds", recipe.rounds, "is no number of rounds.", "For example: recipe.rounds=2")
    num_rounds = recipe.rounds if num_rounds is None else num_rounds
    parts = [("stages", recipe.stages, 0), *(("round", recipe.round, n + 1) for n in range(num_rounds))]
    for part, named, number in [*parts, ("last", recipe.last, 0)]:
        for name, stage in named.items():
            own = f"{name}_{number}" if number else name
            planned = _plan_stage(f"recipe.{part}.{name}", own, stage, places, run_dir, given)
            stages.append(replace(planned, round=number))
            places.add(name, str(run_dir / own))
    return stages


class Places:
    """Directories of the stages so far, by what overrides call them."""

    def __init__(self, keeps_last: bool) -> None:
        self.keeps_last = keeps_last
        self.by_name: dict[str, list[str]] = {}

    def add(self, name: str, directory: str) -> None:
        self.by_name.setdefault(name, []).append(directory)

    def named(self) -> dict[str, str]:
        names = {}
        for name, found in self.by_name.items():
            quoted = ",".join(f"'{each}'" for each in found)
            names |= {f"{name}_first": found[0], f"{name}_all": f"[{quoted}]"}
            names |= {f"{name}_before": found[-2]} if len(found) > 1 else {}
            names[f"{name}_kept"] = found[-1] if self.keeps_last else names.get(f"{name}_before", found[-1])
        return names | {name: found[-1] for name, found in self.by_name.items()}


def _plan_stage(key: str, name: str, stage: StageConfig, places: Places, run_dir: Path, given: Sequence[str]) -> Stage:
    command, directory = stage.command, run_dir / name
    if command not in SHARED:
        raise UserError(f"{key}.command", command, "is no command of a stage.", nearest_hint(command, SHARED))
    try:
        own = [text.format(**places.named()) for text in stage.overrides]
    except KeyError as error:
        problem = f"names no earlier stage: {error}."
        hint = nearest_hint(str(error), places.named())
        raise UserError(f"{key}.overrides", stage.overrides, problem, hint) from error
    shared = [text for text in given if text.lstrip("+~").partition("=")[0].split(".")[0] in SHARED[command]]
    shared = [text.replace("_preset=", "=") for text in shared]
    chosen, place = [*own, *shared, *stage.extra], _place(command, directory, run_dir)
    overrides = [*place, *chosen] if command == "cache" else [*chosen, *place]  # signals may lie elsewhere
    config = composed(command, overrides)
    _validate(command, config)
    return Stage(name, command, overrides, config, directory, _output(command, config, directory, run_dir))


def _place(command: str, directory: Path, run_dir: Path) -> list[str]:
    if command in ("train", "generate"):
        return [f"run.dir={directory}", f"run.name={run_dir.name}-{directory.name}"]
    if command == "cache":
        return [f"teacher.cache.dir={directory}"]
    return [f"output={run_dir if command == 'evaluate' else directory}"]


def _output(command: str, config: DictConfig, directory: Path, run_dir: Path) -> Path:
    if command == "cache":
        return Path(config.teacher.cache.dir)
    return directory / OUTPUTS[command] if command in OUTPUTS else run_dir / "evaluation.json"


def _validate(command: str, config: DictConfig) -> None:
    if command == "train":
        validate(typed(config, SCHEMAS["train"]))
    elif command == "cache":
        check_cache(typed(config, SCHEMAS["cache"]))
    elif command == "mine":
        check_mining(typed(config, SCHEMAS["mine"]))
    elif command == "generate":
        validate_generation(typed(config, SCHEMAS["generate"]))
