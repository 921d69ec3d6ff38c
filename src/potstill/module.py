"""One training step for every method: a global batch in, micro-batches inside, one division per term."""

# N rows, C classes

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from potstill.data.batch import IGNORE, Batch
from potstill.data.microbatch import cut
from potstill.diagnostics import diagnose
from potstill.distributed import max_over_ranks, sum_over_ranks, world_size
from potstill.losses.response import cross_entropy
from potstill.models.forward import forward
from potstill.models.task import Task
from potstill.objective import NonFiniteLossError, Objective, Step
from potstill.optimisation import parameter_groups
from potstill.signals.protocol import Needs, Signal, SignalSource


class DistillationModule(pl.LightningModule):
    """Trains `student` on `objective`, with the signal of `teacher` where a term asks for it.

    teacher: not an `nn.Module`, so that it is in no checkpoint, no optimizer and no train/eval switch.
    make_optimizer: from parameter groups; weight_decay applies to the groups that decay.
    max_examples, max_tokens: limits of one micro-batch; None: the whole batch at once. They move no gradient.
    """

    def __init__(
        self,
        student: nn.Module,
        objective: Objective,
        task: Task,
        teacher: SignalSource | None,
        *,
        make_optimizer: Callable[[list[dict]], Optimizer],
        make_schedule: Callable[[Optimizer], LRScheduler],
        weight_decay: float,
        clip_norm: float | None,
        max_examples: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.student, self.objective, self.task, self.teacher = student, objective, task, teacher
        self.make_optimizer, self.make_schedule = make_optimizer, make_schedule
        self.weight_decay, self.clip_norm = weight_decay, clip_norm
        self.max_examples, self.max_tokens = max_examples, max_tokens
        self.val_loss, self.val_accuracy = MeanMetric(), MeanMetric()

    def prepare(self, batch: Batch) -> None:
        """Show the terms one batch before training: projectors get their widths, impossible shapes are refused."""
        was_training = self.student.training
        self.student.eval()
        with torch.no_grad():
            self.objective.prepare(self.step_of(batch))
        self.student.train(was_training)

    def step_of(self, batch: Batch) -> Step:
        """What the terms see of one micro-batch."""
        output = forward(self.student, batch, self.task, self.objective.needs_student)
        needs = self.objective.needs_teacher
        signal = self.teacher.signal(batch, needs) if self.teacher and needs else Signal()
        return Step(
            student_logits=output.logits,
            teacher_logits=signal.logits,
            labels=self.task.row_labels(batch),
            student_hidden=output.hidden,
            teacher_hidden=signal.hidden,
        )

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002  Lightning's name
        total_rows = sum_over_ranks(self.task.count_rows(batch), self.device)
        report: dict[str, Tensor] = {}
        for piece in self._pieces(batch):
            for name, value in self._backward(piece, total_rows).items():
                report[name] = report[name] + value if name in report else value
        self._update()
        self.log("train/loss", report.pop("train/loss"), prog_bar=True, sync_dist=True, reduce_fx="sum")
        self.log_dict(report, sync_dist=True, reduce_fx="sum")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        for piece in self._pieces(batch):
            logits_NC = forward(self.student, piece, self.task, Needs(logits=True)).logits
            assert logits_NC is not None
            labels_N = self.task.row_labels(piece)
            labelled = labels_N != IGNORE
            logits_NC, labels_N = logits_NC[labelled].float(), labels_N[labelled]
            self.val_loss.update(cross_entropy(logits_NC, labels_N))
            self.val_accuracy.update(logits_NC.argmax(dim=-1) == labels_N)
        self.log("val/loss", self.val_loss)
        self.log("val/accuracy", self.val_accuracy, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.make_optimizer(parameter_groups(self, self.weight_decay))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.make_schedule(optimizer)}}

    def on_fit_start(self) -> None:
        if self.teacher:
            self.teacher.to(self.device)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:  # noqa: ARG002
        """Here and not before: float16's loss scale is out of the gradients by now."""
        self.log("train/grad_norm", clip_grad_norm_(self.parameters(), self.clip_norm or float("inf")))

    def _pieces(self, batch: Batch) -> list[Batch]:
        """Micro-batches, equally many on every rank: at each backward, the ranks wait for each other."""
        pieces = cut(batch, self.max_examples, self.max_tokens)
        return pieces + [batch.empty()] * (max_over_ranks(len(pieces), self.device) - len(pieces))

    def _backward(self, piece: Batch, total_rows: dict[str, int]) -> dict[str, Tensor]:
        """Add the piece's share of the gradient; return its share of everything logged."""
        step = self.step_of(piece)
        try:
            loss, terms = self.objective(step, total_rows)
        except NonFiniteLossError as error:
            error.add_note(
                f"After {self.global_step} optimizer steps, in the micro-batch of examples {_some(piece.keys)}"
            )
            raise
        self.manual_backward(loss * world_size())  # data-parallel strategies average gradients over ranks
        report = {"train/loss": loss.detach()}
        report |= {f"train/term/{name}": value for name, value in terms.items()}
        return report | {f"train/{name}": value for name, value in diagnose(step, total_rows).items()}

    def _update(self) -> None:
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        assert isinstance(schedule, LRScheduler)
        rate = optimizer.param_groups[0]["lr"]  # type: ignore[union-attr]
        optimizer.step()  # type: ignore[union-attr]
        optimizer.zero_grad()  # type: ignore[union-attr]
        schedule.step()  # type: ignore[call-arg]
        self.log("train/lr", rate)  # not before the step, whose hook logs too: Lightning drops what came before a hook


def _some(keys: tuple[str, ...], shown: int = 10) -> str:
    rest = len(keys) - shown
    return ", ".join(keys[:shown]) + (f" and {rest} more" if rest > 0 else "")
