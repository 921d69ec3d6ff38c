"""A run's trial in an Optuna study: what it reports there, and its early end where the study's pruner says so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from typing_extensions import override

from potstill.errors import PrunedError, UserError
from potstill.tracking.checkpoints import MONITORS

if TYPE_CHECKING:
    from optuna.trial import Trial as OptunaTrial


class Trial:
    """One trial of a study. Its parameters are in the run's config already; here is what goes back."""

    def __init__(self, trial: OptunaTrial) -> None:
        self._trial = trial
        self.number = trial.number
        self.directions = [direction.name.lower() for direction in trial.study.directions]
        self._steps = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    @property
    def pruner(self) -> str:
        return type(self._trial.study.pruner).__name__

    @property
    def has_pruner(self) -> bool:
        return self.pruner != "NopPruner"

    def record(self, metrics: Mapping[str, float], status: str) -> None:
        """Write how the run ended, and its metrics, which a study's constraints read, into the trial's attributes.

        Metrics that are not finite are left out: no database keeps them.
        """
        for name, value in metrics.items():
            if math.isfinite(value):
                self._trial.set_user_attr(name, float(value))
        self._trial.set_user_attr("status", status)

    def report(self, value: float, step: int) -> bool:
        """Report a value after `step` optimizer steps. Returns whether the pruner has seen enough.

        A step that was reported before the run was interrupted is judged again, but not reported twice.
        """
        if step not in self._steps:
            self._trial.report(value, step)
            self._steps.add(step)
        return self._trial.should_prune()


def open_trial(trial: Mapping[str, Any]) -> Trial:
    """The trial that `config.run.trial` names by `storage`, `study_name` and `number`. Raises UserError without it."""
    try:
        import optuna

        from hydra_plugins.potstill_optuna import load_study
    except ImportError as error:
        problem = "names a trial of a study, which needs the package optuna."
        raise UserError("run.trial", dict(trial), problem, "pip install 'potstill[sweeps]'") from error
    try:
        study = load_study(trial["storage"], trial["study_name"])
        frozen = study.get_trials(deepcopy=False)[int(trial["number"])]
    except (KeyError, IndexError) as error:
        problem = "names no trial of a study."
        fix = "A sweep sets it: potstill train -m hydra/sweeper=optuna ..."
        raise UserError("run.trial", dict(trial), problem, fix) from error
    return Trial(optuna.Trial(study, frozen._trial_id))


def check_trial(trial: Trial, returns: Sequence[str], world_size: int) -> None:
    """Raise UserError where what a run returns is not what its study expects, or its pruner could not work.

    returns: names of metrics, as in `config.returns`. world_size: ranks that train together.
    """
    key, directions = "hydra.sweeper.directions", trial.directions
    if len(returns) != len(directions):
        problem = f"does not fit returns=[{','.join(returns)}]: one direction for each metric."
        raise UserError(key, directions, problem, f"For example: {key}=[{','.join(map(_better, returns))}]")
    for name, direction in zip(returns, directions, strict=True):
        if direction != _better(name):
            fix = f"Set {key}=[{','.join(map(_better, returns))}]"
            raise UserError(key, directions, f"would search for the worst {name}.", fix)
    if trial.has_pruner and world_size > 1:
        problem = f"works in one process: of {world_size} ranks one would stop, and the others would wait for it."
        raise UserError("hydra.sweeper.pruner", trial.pruner, problem, "Set hydra.sweeper.pruner=none")
    if trial.has_pruner and not returns[0].startswith("val/"):
        problem = f"needs a value at every validation, and {returns[0]} is known only at the end."
        fix = "Set hydra.sweeper.pruner=none, or let a run return a validation metric: returns=[val/loss]"
        raise UserError("hydra.sweeper.pruner", trial.pruner, problem, fix)


class PruneTrial(Callback):
    """Reports `monitor`, a metric of validation, at every validation; raises PrunedError where the pruner says so."""

    def __init__(self, trial: Trial, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if self.trial.report(metrics[self.monitor], trainer.global_step):
            message = f"Pruned after {trainer.global_step} optimizer steps: {self.monitor} {metrics[self.monitor]:.4g}"
            raise PrunedError(message, metrics)


def _better(metric: str) -> str:
    return "maximize" if MONITORS.get(metric) == "max" else "minimize"
