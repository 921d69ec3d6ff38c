"""Hydra's sweeper over every combination, for sweeps that are long: some jobs may fail, and only some may be run.

It differs from Hydra's own in three things: a job that failed does not end the sweep with its exception, every job's
directory has the job's number whichever jobs run beside it, and `hydra.sweeper.only` runs a part of them.
"""

# No `from __future__ import annotations` here: Hydra runs plugin modules before they are in sys.modules, where
# dataclasses would look up annotations that are text.

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn


@dataclass
class GridSweeperConf:
    _target_: str = "hydra_plugins.potstill_grid.GridSweeper"
    params: dict[str, str] = field(default_factory=dict)  # beside those of the command line, which go before
    only: list[int] | None = None  # numbers of the jobs to run; null: all


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="potstill")


class GridSweeper(BasicSweeper):
    """params: keys and their values, as on the command line (`1,2,4`, `choice(a,b)`, `range(1,5)`)."""

    def __init__(self, params: dict[str, str], only: Sequence[int] | None) -> None:
        super().__init__(max_batch_size=None, params=params)
        self.only = only

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        [jobs] = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        directory = Path(self.config.hydra.sweep.dir).absolute()
        numbers = range(len(jobs)) if self.only is None else self.only
        batch = [[*jobs[number], *place(directory, number)] for number in numbers]
        self.validate_batch_is_legal(batch)
        return self.launcher.launch(batch, initial_job_idx=0) if batch else []


def place(directory: Path, number: int) -> list[str]:
    """Overrides that put a job where its number says, whatever launches it."""
    return [f"hydra.sweep.dir='{directory}'", f"hydra.sweep.subdir='{number}'"]
