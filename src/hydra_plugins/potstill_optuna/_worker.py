"""One process's hands on a study: it takes trials that no other process has, and tells what came of them."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn, JobStatus

from hydra_plugins.potstill_optuna._space import Space
from hydra_plugins.potstill_optuna._study import Constraint

log = logging.getLogger(__name__)

FOLDER = "trials"  # of the sweep's directory: the locks
ASKING = "ask.lock"


@dataclass
class Job:
    """A trial in flight. lock: held until its end is told, so that another process sees that somebody has it."""

    number: int
    overrides: list[str]
    lock: BaseFileLock


class Worker:
    """num_trials: of the study, by all processes. make_sampler: of a trial's number.

    points: of a grid, in order; None: the sampler draws. place: overrides that every job gets.
    """

    def __init__(
        self,
        study: Any,
        space: Space,
        directory: Path,
        *,
        num_trials: int,
        make_sampler: Callable[[int], Any],
        points: Sequence[Mapping[str, Any]] | None,
        constraints: Sequence[Constraint],
        place: Sequence[str],
    ) -> None:
        self.study, self.space, self.directory = study, space, directory
        self.num_trials, self.make_sampler, self.points = num_trials, make_sampler, points
        self.constraints, self.place = constraints, list(place)

    def take(self, at_most: int) -> list[Job]:
        """Trials that a killed process left, then new ones; none where the study has all it was to have."""
        with asking(self.directory):
            left = (job for number in self._running() if (job := self._take_over(number)))
            jobs = list(itertools.islice(left, at_most))
            while len(jobs) < at_most and self._num_begun() < self.num_trials:
                jobs.append(self._begin())
        return jobs

    def tell(self, job: Job, result: JobReturn) -> bool:
        """Write down how a job ended, and let go of its trial. Returns whether it failed."""
        from optuna.trial import Trial, TrialState

        frozen = self._trial(job.number)
        state, values, reason = outcome(result, frozen.user_attrs, len(self.study.directions))
        if state != "FAIL" and self.constraints and not frozen.constraints:
            trial = Trial(self.study, frozen._trial_id)
            for constraint in self.constraints:
                trial.set_constraint(constraint.text, constraint.violation(frozen.user_attrs))
        self.study.tell(job.number, values, state=TrialState[state])
        job.lock.release()
        log.log(logging.ERROR if state == "FAIL" else logging.INFO, "Trial %d: %s", job.number, reason)
        return state == "FAIL"

    def _begin(self) -> Job:
        waiting = self.study.get_trials(deepcopy=False, states=_states("WAITING"))
        number = waiting[0].number if waiting else len(self.study.get_trials(deepcopy=False))
        if self.points is not None and not waiting:
            self.study.enqueue_trial(dict(self.points[number]))
        self.study.sampler = self.make_sampler(number)
        trial = self.study.ask()
        assert trial.number == number, "somebody asks without the lock"
        lock = self._hold(number)
        assert lock, "the lock of a trial that was not there"
        return self._job(trial, lock)

    def _take_over(self, number: int) -> Job | None:
        from optuna.trial import Trial

        lock = self._hold(number)
        if lock is None:
            return None
        outlives = _is_held(self.directory / str(number) / ".lock")
        if outlives:
            log.warning("Trial %d: its job still runs, though the process that started it is gone.", number)
        if outlives or self._trial(number).state.is_finished():  # told between the look and the lock
            lock.release()
            return None
        log.info("Trial %d goes on: the process that had it is gone.", number)
        self.study.sampler = self.make_sampler(number)
        return self._job(Trial(self.study, self._trial(number)._trial_id), lock)

    def _job(self, trial: Any, lock: BaseFileLock) -> Job:
        own = [f"hydra.sweep.subdir='{trial.number}'"]
        values = list(self.space.overrides(lambda param: param.suggest(trial)))
        return Job(trial.number, [*values, *self.place, *own], lock)

    def _hold(self, number: int) -> BaseFileLock | None:
        lock = FileLock(self.directory / FOLDER / f"{number}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            return lock
        return None

    def _running(self) -> Iterator[int]:
        for trial in self.study.get_trials(deepcopy=False, states=_states("RUNNING")):
            yield trial.number

    def _num_begun(self) -> int:
        return len(self.study.get_trials(deepcopy=False)) - len(
            self.study.get_trials(deepcopy=False, states=_states("WAITING"))
        )

    def _trial(self, number: int) -> Any:
        return self.study.get_trials(deepcopy=False)[number]


def asking(directory: Path) -> BaseFileLock:
    """Held while a process looks for a trial, so that two never take the same one, nor one too many."""
    (directory / FOLDER).mkdir(parents=True, exist_ok=True)
    return FileLock(directory / FOLDER / ASKING)


def outcome(result: JobReturn, attributes: Mapping[str, Any], num_values: int) -> tuple[str, list[float] | None, str]:
    """Optuna's name of the state, the values where it is complete, and what to say of it.

    attributes: of the trial; a job that its pruner ended has written `status` = `pruned` there.
    """
    if result.status != JobStatus.COMPLETED:
        error = result._return_value  # the property would raise it
        return "FAIL", None, f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if attributes.get("status") == "pruned":
        return "PRUNED", None, "pruned"
    returned = result.return_value
    given = list(returned) if isinstance(returned, list | tuple) else [returned]
    try:
        values = [float(value) for value in given]
    except (TypeError, ValueError):
        return "FAIL", None, f"returned {returned!r}, which is no number."
    if len(values) != num_values:
        return "FAIL", None, f"returned {len(values)} values, and hydra.sweeper.directions has {num_values}."
    if not all(math.isfinite(value) for value in values):
        return "FAIL", None, f"returned {returned!r}, which is not finite."
    return "COMPLETE", values, ", ".join(f"{value:.6g}" for value in values)


def place(directory: Path, storage: str, study_name: str) -> list[str]:
    """Overrides by which a job finds its directory and its trial, whatever launches it."""
    texts = {"sweep.dir": str(directory), "sweeper.storage": storage, "sweeper.study_name": study_name}
    return [f"hydra.{key}={QuotedString(text, Quote.single).with_quotes()}" for key, text in texts.items()]


def _is_held(path: Path) -> bool:
    """Whether a process has this lock now: a job may hold one in its own directory."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _states(name: str) -> tuple[Any]:
    from optuna.trial import TrialState

    return (TrialState[name],)
