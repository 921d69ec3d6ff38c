"""The sweeper: asks Optuna for trials, launches them, tells it what came of them."""

# No `from __future__ import annotations` here: Hydra runs plugin modules before they are in sys.modules, where
# dataclasses would look up annotations that are text. Modules with an underscore it leaves alone.

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.potstill_optuna import _study as studies
from hydra_plugins.potstill_optuna._errors import SweepError, nearest_hint
from hydra_plugins.potstill_optuna._space import Space, read_space
from hydra_plugins.potstill_optuna._worker import Job, Worker, asking, place

log = logging.getLogger(__name__)


@dataclass
class OptunaSweeperConf:
    _target_: str = "hydra_plugins.potstill_optuna.sweeper.OptunaSweeper"
    params: dict[str, Any] = field(default_factory=dict)  # key -> override grammar; KEY=CHOICE -> params of that choice
    num_trials: int | None = None  # of the study, over all processes and starts; null: all points of a grid
    num_parallel: int = 1  # trials that are asked for and launched together
    directions: list[str] = field(default_factory=lambda: ["minimize"])  # | maximize; one for each value of a job
    sampler: str = "tpe"  # tpe | cmaes | gp | random | grid | nsgaii
    sampler_options: dict[str, Any] = field(default_factory=dict)  # arguments of Optuna's class
    seed: int | None = 0
    pruner: str = "none"  # none | median | hyperband
    pruner_options: dict[str, Any] = field(default_factory=dict)
    constraints: list[str] = field(default_factory=list)  # "METRIC <= NUMBER", of metrics that the job reports
    warm_start: list[dict[str, Any]] = field(default_factory=list)  # points to begin with: {key: value}
    storage: str | None = None  # sqlite:///FILE or another database, or FILE.journal; null: in the sweep's directory
    study_name: str | None = None  # null: the name of the sweep's directory
    max_failed_in_a_row: int | None = 10  # then something is wrong with all, and the rest is kept for later


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="potstill")


class OptunaSweeper(Sweeper):
    """One process that works on a study; several may, each by the same command in the same directory.

    options: the fields of OptunaSweeperConf.
    """

    def __init__(self, **options: Any) -> None:
        plain = {
            name: OmegaConf.to_container(value, resolve=True) for name, value in options.items() if _is_node(value)
        }
        self.options = OptunaSweeperConf(**{**options, **plain})
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Run trials until the study has all it was to have. Raises SweepError, before the first, at bad input."""
        assert self.config is not None
        assert self.hydra_context is not None
        refuse_ranks(os.environ)
        require_optuna()
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        space = read_space(self.options.params, arguments, parser)
        settings = self._settings(space)
        for overrides in space.probes():
            self._compose(overrides)
        worker = self._worker(space, settings, Path(self.config.hydra.sweep.dir).absolute())
        returns = self._work(worker)
        report(worker.study)
        return returns

    def _work(self, worker: Worker) -> list[JobReturn]:
        returns: list[JobReturn] = []
        num_failed = 0  # in a row
        while jobs := worker.take(self.options.num_parallel):
            for job, result in zip(jobs, self._launch(jobs), strict=True):
                num_failed = num_failed + 1 if worker.tell(job, result) else 0
                returns.append(result)
            if num_failed >= (self.options.max_failed_in_a_row or num_failed + 1):
                log.error("%d trials in a row failed: the study stops here. Mend it, and start it again.", num_failed)
                break
        return returns

    def _launch(self, jobs: Sequence[Job]) -> list[JobReturn]:
        """A result for each job, in order; one whose config does not compose is not launched, and has failed."""
        assert self.launcher is not None
        results: dict[int, JobReturn] = {}
        for job in jobs:
            try:
                self._compose(job.overrides)
            except (HydraException, OmegaConfBaseException) as error:
                results[job.number] = JobReturn(overrides=job.overrides, status=JobStatus.FAILED, _return_value=error)
        ready = [job for job in jobs if job.number not in results]
        if ready:
            done = self.launcher.launch([job.overrides for job in ready], initial_job_idx=ready[0].number)
            results |= {job.number: result for job, result in zip(ready, done, strict=True)}
        return [results[job.number] for job in jobs]

    def _compose(self, overrides: Sequence[str]) -> None:
        assert self.config is not None
        assert self.hydra_context is not None
        self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))

    def _settings(self, space: Space) -> dict[str, Any]:
        """What a study keeps to from its first trial to its last. Raises SweepError where it cannot work."""
        options = self.options
        names = ("directions", "sampler", "sampler_options", "pruner", "pruner_options", "constraints")
        settings = {**{name: getattr(options, name) for name in names}, "params": space.describe()}
        studies.make_sampler(options.sampler, options.sampler_options, options.seed)
        studies.make_pruner(options.pruner, options.pruner_options)
        studies.check_together(settings, any(param.kind != "choice" for param in space.everything()))
        for name in ("num_parallel", "num_trials", "max_failed_in_a_row"):
            if (value := getattr(options, name)) is not None and value < 1:
                raise SweepError(f"hydra.sweeper.{name}", value, "must be at least 1.", f"hydra.sweeper.{name}=1")
        if options.num_trials is None and options.sampler != "grid":
            problem = "leaves open when the study ends; only a grid ends by itself."
            raise SweepError("hydra.sweeper.num_trials", None, problem, "For example: hydra.sweeper.num_trials=40")
        return settings

    def _worker(self, space: Space, settings: Mapping[str, Any], directory: Path) -> Worker:
        options = self.options
        points = list(space.points()) if options.sampler == "grid" else None
        warm = warm_points(options.warm_start, space, is_grid=points is not None)
        constraints = [studies.Constraint(text) for text in options.constraints]
        name = options.study_name or directory.name or "study"
        storage = studies.whole_path(options.storage or str(directory / "study.journal"))
        with asking(directory):
            study = studies.begin(storage, name, settings, directory)
            studies.enqueue(study, warm)
        return Worker(
            study,
            space,
            directory,
            num_trials=min(options.num_trials or len(points or []), len(points) if points else options.num_trials or 0),
            make_sampler=lambda number: studies.make_sampler(
                options.sampler, options.sampler_options, studies.seed_of(options.seed, number)
            ),
            points=points,
            constraints=constraints,
            place=place(directory, storage, name),
        )


def warm_points(given: Sequence[Mapping[str, Any]], space: Space, *, is_grid: bool) -> list[dict[str, Any]]:
    """The points to begin with, as the study keeps values. Raises SweepError where one lies outside of the space."""
    if given and is_grid:
        fix = "Leave them out, or set hydra.sweeper.sampler=tpe"
        raise SweepError("hydra.sweeper.warm_start", list(given), "are points of the grid anyway.", fix)
    params = {param.key: param for param in space.everything()}
    points = []
    for index, point in enumerate(given):
        for key, value in point.items():
            if key not in params:
                where = f"hydra.sweeper.warm_start.{index}.{key}"
                raise SweepError(where, value, "is no parameter of the space.", nearest_hint(key, params))
        accepted = {
            key: params[key].accept(value, f"hydra.sweeper.warm_start.{index}.{key}") for key, value in point.items()
        }
        points.append(accepted)
    return points


def refuse_ranks(environment: Mapping[str, str]) -> None:
    """Raise SweepError where this process is one of several that torchrun or srun started together."""
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        if (value := environment.get(name, "1")).isdigit() and int(value) > 1:
            problem = f"says that {value} processes were started together: each would ask for trials of its own."
            fix = (
                "Start one sweeper, outside of torchrun and srun. A trial starts its ranks itself: hardware=ddp "
                "hardware.devices=N hydra.sweeper.pruner=none; or send trials out: hydra/launcher=submitit_slurm"
            )
            raise SweepError(name, value, problem, fix)


def require_optuna() -> None:
    try:
        import optuna
    except ImportError:
        fix = "pip install 'potstill[sweeps]' (or: pip install 'optuna>=5,<6')"
        raise SweepError("hydra/sweeper", "optuna", "needs the package optuna.", fix) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # of new studies and trials we speak ourselves


def report(study: Any) -> None:
    """Log the best trial, or the Pareto front, and what else there is to know."""
    trials = study.get_trials(deepcopy=False)
    counts = {
        name: sum(trial.state.name == name for trial in trials) for name in dict.fromkeys(t.state.name for t in trials)
    }
    log.info("Study %s: %s", study.study_name, ", ".join(f"{n} {name.lower()}" for name, n in counts.items()))
    best = studies.best_trials(study)
    if not best:
        log.warning("No trial is complete%s.", " and keeps the constraints" if counts.get("COMPLETE") else "")
    what = "Best" if len(study.directions) == 1 else "On the Pareto front"
    for trial in best:
        values = ", ".join(f"{value:.6g}" for value in trial.values)
        log.info(
            "%s: trial %d, %s  %s", what, trial.number, values, " ".join(f"{k}={v}" for k, v in trial.params.items())
        )


def _is_node(value: Any) -> bool:
    return OmegaConf.is_config(value)
