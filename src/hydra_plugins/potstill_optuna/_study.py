"""The study itself: where it is kept, what draws its points, what ends a trial early."""

from __future__ import annotations

import inspect
import math
import random
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra_plugins.potstill_optuna._errors import SweepError, nearest_hint, one_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

# A grid's points are enqueued one by one: whatever draws what is left has nothing to draw.
SAMPLERS = {
    "tpe": "TPESampler",
    "cmaes": "CmaEsSampler",
    "gp": "GPSampler",
    "random": "RandomSampler",
    "grid": "RandomSampler",
    "nsgaii": "NSGAIISampler",
}
PRUNERS = {"none": "NopPruner", "median": "MedianPruner", "hyperband": "HyperbandPruner"}
DIRECTIONS = ("minimize", "maximize")
# User attributes of a study: what it began with, and where its trials are.
SETTINGS, DIRECTORY = "sweeper", "directory"
SQLITE_WAIT_S = 60.0  # jobs report at once, and SQLite lets one of them write


def open_storage(text: str) -> BaseStorage:
    """The storage that `text` names: a path that ends in `.journal`, or the URL of a database.

    Raises SweepError where it is neither, or cannot be opened.
    """
    key = "hydra.sweeper.storage"
    if text.endswith(".journal"):
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        path = Path(text).absolute()  # its lock is a link to it, which has to hold wherever it is read from
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path)))
    if "://" not in text:
        fix = "For example: hydra.sweeper.storage=sqlite:///study.db; null keeps the study in the sweep's directory."
        raise SweepError(key, text, "is neither a path that ends in .journal nor a database's URL.", fix)
    if re.fullmatch(r"sqlite(\+\w+)?://(/:memory:)?/?", text):
        fix = "Name a file: hydra.sweeper.storage=sqlite:///study.db"
        raise SweepError(key, text, "is in memory: no job would find it, and it ends with this process.", fix)
    return _open_database(text, key)


def _open_database(url: str, key: str) -> BaseStorage:
    from optuna.storages import RDBStorage

    waiting = {"connect_args": {"timeout": SQLITE_WAIT_S}} if url.startswith("sqlite") else {}
    try:
        return RDBStorage(url, engine_kwargs=waiting)
    except Exception as error:  # of SQLAlchemy and of drivers, of many kinds
        reason = without_password(str(error).strip().splitlines()[0])
        raise SweepError(key, without_password(url), f"cannot be opened: {reason}", "Mend the URL.") from None


def without_password(url: str) -> str:
    return re.sub(r"(?<=://)[^/\s@]+(?=@)", "<hidden>", url)


def load_study(storage: str, name: str) -> Study:
    """See the package."""
    import optuna

    study = optuna.load_study(study_name=name, storage=open_storage(storage))
    settings = study.user_attrs.get(SETTINGS, {})
    study.pruner = make_pruner(settings.get("pruner", "none"), settings.get("pruner_options", {}))
    return study


def make_sampler(name: str, options: Mapping[str, Any], seed: int | None) -> BaseSampler:
    import optuna

    sampler = getattr(optuna.samplers, SAMPLERS[one_of("hydra.sweeper.sampler", name, SAMPLERS)])
    taken = {"seed": "It is hydra.sweeper.seed.", "constraints_func": "See hydra.sweeper.constraints."}
    if name == "grid" and options:
        raise SweepError("hydra.sweeper.sampler_options", dict(options), "have no effect on a grid.", "Leave them out.")
    return _make(sampler, {**options, "seed": seed}, "sampler_options", options, taken)


def make_pruner(name: str, options: Mapping[str, Any]) -> BasePruner:
    import optuna

    pruner = getattr(optuna.pruners, PRUNERS[one_of("hydra.sweeper.pruner", name, PRUNERS)])
    return _make(pruner, options, "pruner_options", options, {})


def _make(
    kind: Any, arguments: Mapping[str, Any], key: str, options: Mapping[str, Any], taken: Mapping[str, str]
) -> Any:
    """kind(**arguments), where every one of `options` is an argument of it that is not `taken`."""
    from optuna.exceptions import ExperimentalWarning

    known = [name for name in inspect.signature(kind).parameters if name not in taken]
    for name, value in options.items():
        if name not in known:
            fix = taken.get(name) or nearest_hint(name, known)
            raise SweepError(f"hydra.sweeper.{key}.{name}", value, f"is no option of {kind.__name__} here.", fix)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # whoever names the option wants it
            return kind(**arguments)
    except (ValueError, TypeError) as error:
        fix = f"See optuna's documentation of {kind.__name__}."
        raise SweepError(f"hydra.sweeper.{key}", dict(options), f"is refused: {error}", fix) from error


def seed_of(seed: int | None, number: int) -> int | None:
    """The sampler's seed for the trial of this number.

    Each trial has its own, so that what it draws depends on the seed, its number and the trials before it, and not on
    how often the study was stopped: a study that went on repeats no draw, and is the study that never stopped.
    """
    return None if seed is None else random.Random(f"{seed}/{number}").getrandbits(32)


def check_together(settings: Mapping[str, Any], has_numbers: bool) -> None:
    """Refuse choices of sampler, pruner and directions that Optuna cannot serve together."""
    directions, sampler, pruner = settings["directions"], settings["sampler"], settings["pruner"]
    for direction in directions:
        one_of("hydra.sweeper.directions", direction, DIRECTIONS)
    if not directions:
        raise SweepError("hydra.sweeper.directions", [], "is empty.", "One for each value: [minimize]")
    if len(directions) > 1 and pruner != "none":
        problem = f"cannot judge a trial by {len(directions)} values while it runs."
        raise SweepError("hydra.sweeper.pruner", pruner, problem, "Set hydra.sweeper.pruner=none")
    if len(directions) > 1 and sampler == "cmaes":
        fix = "Set hydra.sweeper.sampler=nsgaii, tpe or gp"
        raise SweepError("hydra.sweeper.sampler", sampler, "searches along one direction only.", fix)
    if sampler == "cmaes" and settings["constraints"]:
        fix = "Set hydra.sweeper.sampler=tpe, gp or nsgaii"
        raise SweepError("hydra.sweeper.sampler", sampler, "knows nothing of constraints.", fix)
    if sampler == "cmaes" and not has_numbers:
        problem = "searches among numbers, and there are only choices: they would be drawn at random."
        raise SweepError("hydra.sweeper.sampler", sampler, problem, "Set hydra.sweeper.sampler=tpe")


def check_settings(now: Mapping[str, Any], before: Mapping[str, Any] | None, name: str) -> None:
    """Refuse to go on with a study under other settings than it began with: its trials could not be compared."""
    fix = "Go on with those, or begin another study: run.dir=... (hydra.sweep.dir) or hydra.sweeper.study_name=..."
    if before is None:
        raise SweepError("hydra.sweeper.study_name", name, "is a study that something else made.", fix)
    for key in now:
        if now[key] != before.get(key):
            problem = f"is not what the study {name!r} began with: {_difference(now[key], before.get(key))}."
            raise SweepError(f"hydra.sweeper.{key}", _changed(now[key], before.get(key)), problem, fix)


def _changed(now: Any, before: Any) -> Any:
    return {key: now[key] for key in now if now[key] != (before or {}).get(key)} if isinstance(now, dict) else now


def _difference(now: Any, before: Any) -> str:
    if not isinstance(now, dict) or not isinstance(before, dict):
        return f"then {before!r}"
    changed = [key for key in {**before, **now} if now.get(key) != before.get(key)]
    return "; ".join(f"{key} was {before.get(key, 'not there')}" for key in changed)


def whole_path(storage: str) -> str:
    """`storage` with the path of its file absolute: jobs may run elsewhere."""
    if storage.endswith(".journal"):
        return str(Path(storage).absolute())
    if match := re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^/:?][^?]*)(.*)", storage):
        return f"{match[1]}{Path(match[2]).absolute()}{match[3]}"
    return storage


def begin(storage: str, name: str, settings: Mapping[str, Any], directory: Path) -> Study:
    """The study `name`, made now or gone on with. Raises SweepError where it began otherwise, or elsewhere."""
    import optuna

    kept = open_storage(storage)
    study = optuna.create_study(
        storage=kept,
        study_name=name,
        directions=settings["directions"],
        pruner=make_pruner(settings["pruner"], settings["pruner_options"]),
        load_if_exists=True,
    )
    if SETTINGS not in study.user_attrs and not study.get_trials(deepcopy=False):
        study.set_user_attr(SETTINGS, dict(settings))
    else:
        check_settings(settings, study.user_attrs.get(SETTINGS), name)
    _check_directory(study, directory)
    return study


def _check_directory(study: Study, directory: Path) -> None:
    """What says that a trial is in flight lies in the sweep's directory: there has to be one."""
    before = study.user_attrs.get(DIRECTORY)
    if before and before != str(directory) and (Path(before) / "trials").is_dir():
        fix = f"Go on there: run.dir={before} (hydra.sweep.dir), or give another hydra.sweeper.study_name=..."
        problem = f"has its trials in another directory, {before}."
        raise SweepError("hydra.sweeper.study_name", study.study_name, problem, fix)
    study.set_user_attr(DIRECTORY, str(directory))


def enqueue(study: Study, points: Sequence[Mapping[str, Any]]) -> None:
    """Put points first in the queue, each once in the life of the study."""
    known = [trial.user_attrs.get("warm_start") for trial in study.get_trials(deepcopy=False)]
    for point in points:
        if dict(point) not in known:
            known.append(dict(point))
            study.enqueue_trial(dict(point), user_attrs={"warm_start": dict(point)})


class Constraint:
    """`METRIC <= NUMBER` or `METRIC >= NUMBER`, of a metric that the job writes into its trial's attributes."""

    def __init__(self, text: str) -> None:
        match = re.fullmatch(r"\s*(\S+)\s*(<=|>=)\s*([-+.\deE]+)\s*", text)
        try:
            self.metric, self.sign, self.limit = match[1], 1 if match[2] == "<=" else -1, float(match[3])  # type: ignore[index]
        except (TypeError, ValueError):
            fix = "For example: 'hydra.sweeper.constraints=[\"cost/latency_ms_p50 <= 2.0\"]'"
            problem = "is no constraint: the name of a metric, <= or >=, and a number."
            raise SweepError("hydra.sweeper.constraints", text, problem, fix) from None
        self.text = text

    def violation(self, attributes: Mapping[str, Any]) -> float:
        """By how much it is broken, as Optuna counts: above zero. Without the metric, by as much as its limit."""
        value = attributes.get(self.metric)
        if not isinstance(value, int | float) or not math.isfinite(value):
            return max(1.0, abs(self.limit))  # finite: samplers add these up, and fit models to them
        return self.sign * (value - self.limit)


def best_trials(study: Study) -> Sequence[Any]:
    """The best trial, or the Pareto front of several directions; of trials that keep the constraints, if any does."""
    from optuna.trial import TrialState

    if len(study.directions) > 1:
        return study.best_trials
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    kept = [trial for trial in done if all(value <= 0 for value in trial.constraints.values())]
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    return sorted(kept, key=lambda trial: (sign * trial.value, trial.number))[:1]  # type: ignore[operator]
