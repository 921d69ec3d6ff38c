"""metrics.csv: one row a step and one a validation, the same rows whether or not the run was ever killed."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from potstill.tracking.manifest import write_text
from potstill.tracking.storage import not_written

Row = dict[str, str]


class MetricsFile(CSVLogger):
    """Lightning's CSV logger for a directory that holds other files too.

    An earlier metrics.csv is replaced at the first metric, not before: an evaluation, which logs none, leaves that of
    the training.

    resume_step: the optimizer steps behind the checkpoint that training goes on from; the rows of just these are kept.
        A step's rows, that of the validation after it included, hold the number of steps before it: `step` <
        resume_step. None: a new file.
    """

    def __init__(self, directory: str, resume_step: int | None = None) -> None:
        super().__init__(directory, name="", version="")
        self.resume_step = resume_step

    @property
    def experiment(self) -> Any:
        """The writer, on rank 0."""
        if self._experiment is None and rank_zero_only.rank == 0:
            self._experiment = RowWriter(self.log_dir, self.resume_step)
        return super().experiment


class RowWriter(ExperimentWriter):
    """Lightning's writer, which would empty the file before it writes a longer header, and never looks at old rows."""

    def __init__(self, directory: str, resume_step: int | None) -> None:
        self.resume_step = resume_step
        super().__init__(directory)

    @override
    def _check_log_dir_exists(self) -> None:
        """Lightning's hook before the first row, where it removes an earlier file."""
        path = Path(self.metrics_file_path)
        rows = (
            [] if self.resume_step is None else [row for row in read_rows(path) if int(row["step"]) < self.resume_step]
        )
        self.metrics_keys = list(rows[0]) if rows else []
        if rows:
            self._rewrite(rows)
        else:
            path.unlink(missing_ok=True)

    @override
    def save(self) -> None:
        """Raises `StoppedError` where the disk does not take the rows."""
        try:
            super().save()
        except OSError as error:
            raise not_written(Path(self.metrics_file_path), error) from error

    @override
    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        del fieldnames  # they are self.metrics_keys
        self._rewrite(read_rows(Path(self.metrics_file_path)))

    def _rewrite(self, rows: list[Row]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.metrics_keys)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.metrics_file_path, text.getvalue())


def read_rows(path: Path) -> list[Row]:
    """The whole rows of `path`. A killed process may leave the last without its end: half a number is a number."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return list(csv.DictReader(lines))
