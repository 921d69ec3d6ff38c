"""How the jobs of a sweep stand, for a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from potstill.reporting.format import MISSING
from potstill.sweeps.record import Job, SweepRecord

SHOWN = ("val/loss", "val/accuracy", "val/ndcg_at_10", "val/spearman")
MAX_REASON = 240  # characters; job.json has all
LONG_NUMBER = re.compile(r"-?\d*\.\d{4,}(e-?\d+)?")
STYLES = {"finished": "green", "running": "cyan", "missing": "dim", "pruned": "dim"}


def print_sweep(sweep: SweepRecord, jobs: Sequence[Job], console: Console | None = None) -> None:
    """One line a job, and below the table why jobs failed, were refused or diverged."""
    console = console or Console()
    metrics = [name for name in SHOWN if any(name in job.values for job in jobs)]
    table = Table("job", "status", "", *metrics, "seconds", box=SIMPLE_HEAD, title=sweep.name, title_justify="left")
    for column in table.columns[3:]:
        column.justify = "right"
    for job in jobs:
        values = [f"{job.values[name]:.4f}" if name in job.values else MISSING for name in metrics]
        seconds = MISSING if job.seconds is None else f"{job.seconds:.1f}"
        status = Text(job.status, STYLES.get(job.status, "red"))
        table.add_row(str(job.number), status, Text(_short(job.overrides)), *values, seconds)
    console.print(table)
    for job in jobs:
        if job.error and job.status != "finished":
            reason = textwrap.shorten(job.error, MAX_REASON, placeholder=" ...")
            console.print(Text(f"Job {job.number} {job.status}: {reason}"))


def _short(overrides: Sequence[str]) -> str:
    """Keys by their last part, where that is clear; numbers to four digits."""
    pairs = [text.partition("=")[::2] for text in overrides]
    lasts = [key.rpartition(".")[2] for key, _ in pairs]
    names = [last if lasts.count(last) == 1 else key for last, (key, _) in zip(lasts, pairs, strict=True)]
    return " ".join(f"{name}={_rounded(value)}" for name, (_, value) in zip(names, pairs, strict=True))


def _rounded(value: str) -> str:
    return f"{float(value):.4g}" if LONG_NUMBER.fullmatch(value) else value
