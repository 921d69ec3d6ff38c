"""What is shown and measured while a model trains."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import rich
from pytorch_lightning.callbacks import Callback, ProgressBar, RichProgressBar
from pytorch_lightning.trainer.states import TrainerFn
from typing_extensions import override

from potstill.data.batch import Batch
from potstill.errors import UserError
from potstill.models.task import find_task

log = logging.getLogger(__name__)


def progress(every_steps: int = 50) -> ProgressBar:
    """A progress bar in a terminal; elsewhere (a file, a pipe, CI) one line every `every_steps` optimizer steps."""
    _positive("callbacks.progress.every_steps", every_steps)
    console = rich.get_console()
    return RichProgressBar() if console.is_terminal and not console.is_dumb_terminal else ProgressLines(every_steps)


class ProgressLines(ProgressBar):
    """The progress bar's numbers as plain log lines, and the numbers of every validation."""

    def __init__(self, every_steps: int) -> None:
        super().__init__()
        self.every_steps = every_steps
        self._is_enabled = True
        self._of_total = ""

    @override
    def disable(self) -> None:
        """Lightning's way to silence the ranks other than 0."""
        self._is_enabled = False

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total = trainer.estimated_stepping_batches
        self._of_total = f"/{int(total)}" if math.isfinite(total) else ""

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step % self.every_steps == 0:
            shown = {name: value for name, value in trainer.progress_bar_metrics.items() if not name.startswith("val/")}
            self._say(trainer, shown)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            metrics = sorted(trainer.callback_metrics.items())
            self._say(trainer, {name: float(value) for name, value in metrics if name.startswith("val/")})

    def _say(self, trainer: pl.Trainer, metrics: Mapping[str, float]) -> None:
        if self._is_enabled:
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            log.info("step %d%s  %s", trainer.global_step, self._of_total, numbers)


class TermGradients(Callback):
    """Every `every_steps` optimizer steps (null: never), logs `train/grad_norm/<term>` (potstill.term_gradients).

    Of the weighted term, in the student's parameters, before clipping. A term that stays below or above a share of the
    sum of all norms does nothing, or drowns the rest: that is said once.
    """

    LEAST, MOST, IN_A_ROW = 0.001, 0.999, 3

    def __init__(self, every_steps: int | None = None) -> None:
        self.every_steps = every_steps and _positive("callbacks.term_gradients.every_steps", every_steps)
        self._num_outside: Counter[str] = Counter()

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        module: Any = pl_module
        module.measures_terms = bool(self.every_steps) and (trainer.global_step + 1) % self.every_steps == 0

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if pl_module.measures_terms:
            terms: Any = pl_module.objective.terms  # type: ignore[union-attr]
            self._judge(
                {
                    name: float(trainer.callback_metrics[f"train/grad_norm/{name}"])
                    for name in terms
                    if terms[name].weight
                }
            )

    def _judge(self, norms: Mapping[str, float]) -> None:
        """A term of weight 0 is there to be looked at, and is left out; one term alone has nothing to drown."""
        total = sum(norms.values())
        for name, norm in norms.items() if len(norms) > 1 and total > 0.0 else ():
            is_outside = not self.LEAST <= norm / total <= self.MOST
            self._num_outside[name] = self._num_outside[name] + 1 if is_outside else 0
            if self._num_outside[name] == self.IN_A_ROW:
                what = "hardly moves the student" if norm / total < self.LEAST else "drowns the other terms"
                log.warning(
                    "loss.term.%s %s: its gradient is %.2g of the sum of all terms'. Change loss.term.%s.weight.",
                    *(name, what, norm / total, name),
                )


class Throughput(Callback):
    """Logs `train/rows_per_s` and, for text, `train/tokens_per_s`: over the last `window_steps` steps, all ranks.

    Counted are the rows of every batch (scored positions) and its attended tokens. The clock runs from the end of a
    step to the end of the next, so waiting for data counts; validation does not. Ranks get equal shares of a batch, so
    that rank 0 speaks for all.
    """

    def __init__(self, task: str, window_steps: int = 10) -> None:
        self.task = find_task(task)
        self._steps: deque[tuple[float, int, int]] = deque(
            maxlen=_positive("callbacks.throughput.window_steps", window_steps)
        )
        self._mark = 0.0

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark = time.perf_counter()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark = time.perf_counter()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        module: Any = pl_module
        now, counts = time.perf_counter(), module.local_rows
        self._steps.append((now - self._mark, counts["scored"], counts["positions"]))
        self._mark = now
        if not module.is_logged:
            return
        seconds, num_rows, num_positions = (sum(column) for column in zip(*self._steps, strict=True))
        rates = {"train/rows_per_s": num_rows * trainer.world_size / seconds}
        if self.task.is_text:
            rates["train/tokens_per_s"] = num_positions * trainer.world_size / seconds
        module.metrics.add(rates)


def _positive(key: str, value: int) -> int:
    if value < 1:
        raise UserError(key, value, "must be at least one step.", f"For example: {key}=10")
    return value
