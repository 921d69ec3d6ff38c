"""One training step for every method: a global batch in, micro-batches inside, one division per term."""

# N rows, C classes

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ParallelStrategy
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from potstill.data.batch import IGNORE, Batch
from potstill.data.microbatch import cut
from potstill.deferred import MOST_UNREAD, Note, Taken
from potstill.diagnostics import diagnose, sums_of_members, with_means
from potstill.distributed import add_over_ranks, first_of_ranks, max_over_ranks, rank, sum_over_ranks, world_size
from potstill.errors import DivergedError
from potstill.faults import gradient_fault, loss_fault
from potstill.losses.fused import Options
from potstill.losses.response import cross_entropy
from potstill.models.forward import forward
from potstill.models.output_layer import output_layer
from potstill.models.packing import packs
from potstill.models.task import Task
from potstill.objective import Objective, Step
from potstill.optimisation import (
    clip_grad_norm,
    options_of,
    parameter_groups,
    parameters_of,
    set_options,
)
from potstill.randomness import seed_step
from potstill.retrieval import ValidationTexts
from potstill.signals.protocol import Needs, Signal, SignalSource
from potstill.step_metrics import StepMetrics
from potstill.term_gradients import TermGradients

log = logging.getLogger(__name__)


class DistillationModule(pl.LightningModule):
    """Trains `student` on `objective`, with the signal of `teacher` where a term asks for it.

    teacher: not an `nn.Module`, so that it is in no checkpoint, no optimizer and no train/eval switch.
    make_optimizer: from parameter groups; weight_decay applies to the groups that decay.
    max_examples, max_tokens: limits of one micro-batch; None: the whole batch at once. They move no gradient.
    num_steps: optimizer steps of the whole run, for schedules of terms that go over all of it.
    seed: with the step and the rank, all that dropout depends on.
    on_nonfinite, max_skipped: `stop` at a loss or gradient that is not finite, or `skip` so many steps before stopping.
    defers_checks: of losses and gradients, to the next step that is logged; None: on an accelerator, where a look at
        each would wait for it. Only where the optimizer can be held back meanwhile, and no step may be skipped.
    shard: called with the mesh of ranks where the strategy shards parameters.
    num_examples: of the training set, for terms that remember each.
    fusing: how terms on a language model's logits are computed a chunk of rows at a time, where they and both models
        allow it; None: from all logits at once.
    """

    def __init__(
        self,
        student: nn.Module,
        objective: Objective,
        task: Task,
        teacher: SignalSource | None,
        *,
        make_optimizer: Callable[[list[dict]], Optimizer],
        make_schedule: Callable[[Optimizer], LambdaLR],
        weight_decay: float,
        clip_norm: float | None,
        max_examples: int | None = None,
        max_tokens: int | None = None,
        num_steps: int = 1,
        seed: int = 0,
        on_nonfinite: Literal["stop", "skip"] = "stop",
        max_skipped: int = 0,
        defers_checks: bool | None = None,
        shard: Callable[[DeviceMesh], None] | None = None,
        num_examples: int | None = None,
        fusing: Options | None = Options(),  # noqa: B008  frozen
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.student, self.objective, self.task, self.teacher = student, objective, task, teacher
        self.make_optimizer, self.make_schedule = make_optimizer, make_schedule
        self.weight_decay, self.clip_norm = weight_decay, clip_norm
        self.max_examples, self.max_tokens = max_examples, max_tokens
        self.num_steps, self.num_examples = num_steps, num_examples
        self.seed, self.shard = seed, shard
        self.fuses = fusing is not None and self._can_fuse()
        self.objective.fusing = fusing or self.objective.fusing
        self.max_skipped = max_skipped if on_nonfinite == "skip" else 0
        self.num_skipped, self.defers_checks = 0, defers_checks
        self.note: Note | None = None  # where checks are deferred
        self.taken: Taken  # the step that runs
        self.asked = {"stop": False, "save": False}  # on this rank, by a callback
        self.agreed = dict(self.asked)  # asked on any rank before the last step
        self.is_logged = True  # the step that runs: others pay for no metric
        self.metrics = StepMetrics()  # of the step that runs; callbacks add theirs
        self.local_rows: dict[str, int] = {}  # of the last batch, this rank's share
        self.measures_terms = False  # at the next step, each term's gradient; set by a callback, alike on every rank
        self.term_gradients: TermGradients | None = None
        self.fault: str | None = None  # of this step, on any rank
        self.unused_parameters: list[str] = []
        self.val_loss, self.val_accuracy = MeanMetric(), MeanMetric()
        self.val_texts = ValidationTexts()

    def prepare(self, batch: Batch) -> None:
        """Show the terms one batch before training: projectors get their widths, impossible shapes are refused.

        Afterwards `unused_parameters` names the trainable parameters on which the loss of that batch does not depend.
        """
        was_training = self.student.training
        self.student.eval()
        with torch.no_grad():
            self.objective.prepare(self.step_of(batch).with_some_logits())
        self.unused_parameters = self._without_gradient(batch)
        self.student.train(was_training)

    def step_of(self, batch: Batch) -> Step:
        """What the terms see of one micro-batch."""
        output = forward(self.student, batch, self.task, self._fused(self.objective.needs_student))
        needs = self._fused(self.objective.needs_teacher)
        signal = self.teacher.signal(batch, needs) if self.teacher and needs else Signal()
        return Step(
            student_logits=output.logits,
            teacher_logits=signal.logits,
            labels=self.task.row_labels(batch),
            student_hidden=output.hidden,
            teacher_hidden=signal.hidden,
            student_embeddings=output.embeddings,
            teacher_embeddings=signal.embeddings,
            numbers=batch.numbers,
            num_examples=self.num_examples,
            members=signal.members,
            lengths=self.task.lengths(batch),
            student_head=output.head,
            teacher_head=signal.head,
            teacher_sparse=signal.sparse,
            weights=self.task.row_weights(batch),
        )

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002  Lightning's name
        seed_step(self.seed, self.global_step, rank())
        changing = self.objective.begin_step(self.global_step, self.num_steps)
        self.is_logged = self._is_logged()
        total_rows = self._count(batch)
        self.term_gradients = TermGradients(self.student) if self.measures_terms else None
        self.taken = Taken(self.global_step, self._pieces(batch), total_rows)
        report = self._backward_of(self.taken)
        if self.is_logged:
            changing |= self.objective.report()
        if self.term_gradients:
            changing |= {f"grad_norm/{name}": norm for name, norm in self.term_gradients.norms().items()}
            self.term_gradients = None
        self._update()
        if self.note and (self.is_logged or len(self.note.unread) >= MOST_UNREAD):
            self._read_note()
        if self.is_logged:
            self._report(with_means(add_over_ranks(report)), changing)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """After the callbacks' own."""
        self.metrics.log(self.trainer)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        for piece in self._pieces(batch):
            output = forward(self.student, piece, self.task, self.task.output)
            if self.task.is_embedding:
                self.val_texts.update(output.embeddings, piece.labels)
                continue
            logits_NC = output.logits
            assert logits_NC is not None
            labels_N = self.task.row_labels(piece)
            labelled = labels_N != IGNORE
            logits_NC, labels_N = logits_NC[labelled].float(), labels_N[labelled]
            self.val_loss.update(cross_entropy(logits_NC, labels_N))
            self.val_accuracy.update(logits_NC.argmax(dim=-1) == labels_N)
        if not self.task.is_embedding:
            self.log("val/loss", self.val_loss)
            self.log("val/accuracy", self.val_accuracy, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        if self.task.is_embedding:
            self.log_dict({f"val/{name}": value for name, value in self.val_texts.compute().items()}, sync_dist=True)
            self.val_texts.reset()

    def configure_model(self) -> None:
        if self.shard and self._device_mesh is not None:
            self.shard(self._device_mesh["data_parallel"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.make_optimizer(parameter_groups(self, self.weight_decay))
        schedule = self.make_schedule(optimizer)
        self._optimizer_options = options_of(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule}}

    def on_fit_start(self) -> None:
        if self.teacher:
            self.teacher.to(self.device)

    def on_train_start(self) -> None:
        optimizer, schedule = self.optimizers().optimizer, self.lr_schedulers()  # type: ignore[union-attr]
        assert isinstance(schedule, LambdaLR)
        set_options(optimizer, schedule, self._optimizer_options)
        if self._can_defer(optimizer):
            self.note = Note(optimizer, self.device)

    def on_train_end(self) -> None:
        self._read_note()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._read_note()
        checkpoint["num_skipped"] = self.num_skipped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.num_skipped = checkpoint["num_skipped"]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Here and not before: float16's loss scale is out of the gradients by now."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # Lightning leaves it to fused optimizers, whose step is after the clipping
        norm = clip_grad_norm(parameters_of(optimizer), self.clip_norm)
        if self.is_logged:
            self.metrics.add({"train/grad_norm": norm})
        if self.note:
            self.note.add(norm)
            self.note.agree()
            return
        has_scaler = scaler is not None
        if self.fault is None and not has_scaler and not math.isfinite(norm.item()):
            self.fault = gradient_fault(self)
        if self.fault is not None:
            self._skip_or_stop(optimizer, has_scaler=has_scaler)

    def _can_defer(self, optimizer: Optimizer) -> bool:
        wanted = self.device.type != "cpu" if self.defers_checks is None else self.defers_checks
        has_scaler = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        return wanted and Note.holds_back(optimizer) and not (has_scaler or self.max_skipped or self._device_mesh)

    def _can_fuse(self) -> bool:
        """Whether the terms, and both models, have what `losses/fused.py` needs."""
        taught = self.objective.needs_teacher.logits
        gives_head = getattr(self.teacher, "gives_head", False) if taught else True
        return self.task.is_causal and self.objective.can_fuse and gives_head and output_layer(self.student) is not None

    def _fused(self, needs: Needs) -> Needs:
        """Rows before the head instead of logits, where the terms take them."""
        return replace(needs, logits=False, head=True) if self.fuses and needs.logits else needs

    def _is_logged(self) -> bool:
        """Whether the step that begins is one of every `log_every`, or the last: known to all ranks alike."""
        step = self.global_step + 1
        ends = (self.num_steps, self.trainer.max_steps)
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it from outside
        return self.measures_terms or step in ends or step % max(every, 1) == 0

    def _report(self, report: dict[str, Tensor], changing: dict[str, Any]) -> None:
        self.metrics.add(report | {f"train/{name}": value for name, value in changing.items()})
        if self.max_skipped:
            self.metrics.add({"train/skipped_steps": float(self.num_skipped)})
        self.metrics.show(self.trainer)

    def _without_gradient(self, batch: Batch) -> list[str]:
        named = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        loss, _ = self.objective(self.step_of(batch), self.task.count_rows(batch))
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        return [name for name, gradient in zip(named, gradients, strict=True) if gradient is None]

    def _count(self, batch: Batch) -> dict[str, int]:
        """Rows of the global batch. What callbacks ask of all ranks travels along, where it costs nothing."""
        asked = {f"asked {name}": int(value) for name, value in self.asked.items()}
        self.local_rows = self.task.count_rows(batch)
        totals = sum_over_ranks({**self.local_rows, **asked})
        self.agreed = {name: totals.pop(f"asked {name}") > 0 for name in self.asked}
        return totals

    def _pieces(self, batch: Batch) -> list[Batch]:
        """Micro-batches, equally many on every rank: at each backward, the ranks wait for each other."""
        pieces = cut(batch, self.max_examples, self.max_tokens, packs=packs(self.student))
        num_missing = max_over_ranks(len(pieces)) - len(pieces)
        return pieces + [batch.empty() for _ in range(num_missing)]

    def _without_synchronisation(self) -> AbstractContextManager:
        """Replicas add gradients up on their own until the last micro-batch; shards do not, which would take memory."""
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def _backward_of(self, taken: Taken) -> dict[str, Tensor]:
        """Make the gradient; return everything logged."""
        report: dict[str, Tensor] = {}
        for number, piece in enumerate(taken.pieces, 1):
            with nullcontext() if number == len(taken.pieces) else self._without_synchronisation():
                shares = self._backward(piece, taken.total_rows)
            for name, value in shares.items():
                report[name] = report[name] + value if name in report else value
        return report

    def _backward(self, piece: Batch, total_rows: dict[str, int]) -> dict[str, Tensor]:
        """Add the piece's share of the gradient; return its share of everything logged."""
        step = self.step_of(piece)
        loss, terms = self._loss(step, total_rows)
        if self.note:
            self.note.add(loss)
        elif not (self.fault or math.isfinite(loss.item())):  # any term that is not makes it so, of whatever weight
            self.fault = loss_fault(self.objective, step, piece)
        self.manual_backward(loss * world_size())  # data-parallel strategies average gradients over ranks
        self.objective.update(step)
        if not self.is_logged:
            return {}
        report = {"train/loss": loss.detach()}
        report |= {f"train/term/{name}": value for name, value in terms.items()}
        if step.student_head is not None:
            step.compared = self.objective.compared
        found = diagnose(step, total_rows) | sums_of_members(step)
        return report | {f"train/{name}": value for name, value in found.items()}

    def _loss(self, step: Step, total_rows: dict[str, int]) -> tuple[Tensor, dict[str, Tensor]]:
        if self.term_gradients is None:
            return self.objective(step, total_rows)
        shares = self.objective.shares(step, total_rows)
        weighted = self.objective.weighted(shares)
        for name, share in weighted.items():
            self.term_gradients.add(name, share)
        return torch.stack([*weighted.values()]).sum(), {name: share.detach() for name, share in shares.items()}

    def _update(self) -> None:
        if self.note is None:
            self._share_fault()
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        assert isinstance(schedule, LambdaLR)
        rate = optimizer.param_groups[0]["lr"]  # type: ignore[union-attr]
        optimizer.step()  # type: ignore[union-attr]
        optimizer.zero_grad()  # type: ignore[union-attr]
        schedule.step()  # type: ignore[call-arg]
        if self.note:
            self.note.end_step(self.taken)
        if self.is_logged:
            self.metrics.add({"train/lr": rate})

    def _share_fault(self) -> None:
        if max_over_ranks(int(self.fault is not None)):
            self.fault = first_of_ranks(self.fault)

    def _read_note(self) -> None:
        """Where a step was not finite, compute it again, looking at everything, and raise DivergedError."""
        if self.note is None or (bad := self.note.read()) is None:
            return
        self.note, self.taken, self.is_logged = None, bad.to(self.device), False
        self.optimizers().zero_grad()  # type: ignore[union-attr]
        seed_step(self.seed, bad.number, rank())
        self.objective.begin_step(bad.number, self.num_steps)
        self._backward_of(self.taken)
        self._share_fault()
        is_finite = math.isfinite(clip_grad_norm(self.parameters(), None).item())
        fault = self.fault or ("a loss or gradient was not finite, and is now" if is_finite else gradient_fault(self))
        raise DivergedError(f"After {bad.number} optimizer steps {fault}", is_late=True)

    def _skip_or_stop(self, optimizer: Optimizer, *, has_scaler: bool) -> None:
        """At a fault of which every rank knows: leave the weights as they are, or raise DivergedError."""
        fault, self.fault = self.fault, None
        self.num_skipped += 1
        if self.num_skipped > self.max_skipped:
            raise DivergedError(f"After {self.global_step} optimizer steps {fault}")
        log.warning("Step %d is skipped, %d of %d: %s", self.global_step, self.num_skipped, self.max_skipped, fault)
        if not has_scaler:  # it skips by itself, and wants to see why
            optimizer.zero_grad()  # without gradients, a step changes nothing
