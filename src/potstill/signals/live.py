"""A teacher that answers by running."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from potstill.data.batch import Batch
from potstill.losses.heads import HeadInput
from potstill.models.forward import forward
from potstill.models.output_layer import logits_of, output_layer
from potstill.models.task import Task
from potstill.signals.protocol import Needs, Signal


class LiveTeacher:
    """A frozen model as a source of signals.

    Not an `nn.Module`: as an attribute of one, the teacher would enter its checkpoints, its optimizer and its
    train/eval switch. It answers in eval mode and in its own dtype, whatever the student's mode and autocast.

    label_order: the model's column for each of the data's labels, from `potstill.models.labels.label_order`; None: as
        they are.
    """

    def __init__(self, model: PreTrainedModel, task: Task, label_order: list[int] | None) -> None:
        self.model = model.requires_grad_(False).eval()
        self.task, self.label_order = task, label_order
        self._label_order = None if label_order is None else torch.tensor(label_order)

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        """What `needs` asks of the model on `batch`, which lies on the model's device."""
        if not needs:
            return Signal()
        self._stay_in_eval()
        # no_grad, not inference_mode: a student's graph may save these tensors for its backward
        with torch.no_grad(), torch.autocast(batch.labels.device.type, enabled=False):
            output = forward(self.model, batch, self.task, needs)
        return Signal(self._ordered(output.logits), output.hidden, output.embeddings, head=output.head)

    @property
    def gives_head(self) -> bool:
        """Whether rows before its output layer say all that its logits do."""
        return self.task.is_causal and self._label_order is None and output_layer(self.model) is not None

    def below_head(self, batch: Batch, needs: Needs) -> tuple[Tensor, Signal]:
        """What the head of a language model would get, `[N, D]`, in place of the logits in `needs`, and the rest."""
        self._stay_in_eval()
        with torch.no_grad(), torch.autocast(batch.labels.device.type, enabled=False):
            output = forward(self.model, batch, self.task, replace(needs, logits=False, head=True))
        assert output.before_head is not None
        return output.before_head, Signal(hidden=output.hidden)

    def logits_of(self, hidden_ND: Tensor) -> Tensor:
        """The head's answer to what `below_head` gave."""
        with torch.no_grad(), torch.autocast(hidden_ND.device.type, enabled=False):
            return logits_of(self.model, hidden_ND)

    def head_of(self, hidden_ND: Tensor) -> HeadInput:
        """What `logits_of` gives, not multiplied yet; of a teacher that `gives_head`."""
        layer = output_layer(self.model)
        assert layer is not None
        return layer.rows(hidden_ND)

    def to(self, device: torch.device) -> LiveTeacher:
        self.model.to(device)  # type: ignore[arg-type]
        return self

    def _stay_in_eval(self) -> None:
        """Whoever has switched it; looked at first, since switching walks through the whole model."""
        if self.model.training:
            self.model.eval()

    def _ordered(self, logits: Tensor | None) -> Tensor | None:
        if logits is None or self._label_order is None:
            return logits
        return logits.index_select(-1, self._label_order.to(logits.device))
