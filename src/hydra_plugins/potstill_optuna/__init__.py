"""A Hydra sweeper on Optuna: every trial is a job of the multirun, and a killed study goes on where it was.

It stands alone: an application of Hydra's that never heard of potstill can use it (see docs/sweeps_optuna.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Study


def load_study(storage: str, study_name: str) -> Study:
    """The study of a job of this sweeper, with its pruner: for a job that reports to its trial while it runs.

    Both are in the job's config, as hydra.sweeper.storage and hydra.sweeper.study_name; hydra.sweep.subdir is the
    trial's number. Raises KeyError where there is no such study.
    """
    from hydra_plugins.potstill_optuna import _study

    return _study.load_study(storage, study_name)
