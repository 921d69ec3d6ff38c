"""A whole step of language model distillation: ours, that of a plain loop, and that of a loop on Liger-Kernel.

    OMP_NUM_THREADS=1 python -m benchmarks.e2e_lm --suite cpu --out benchmarks/results/e2e_lm.json

Teacher: Llama of 8 layers and width 512; student: 4 layers, width 256; vocabulary 32,768, random weights and tokens, no
padding, the first half of every text a prompt that is not scored. A step is both models' forward, ce / 2 + KL / 2 over
the scored rows, backward, AdamW, without gradient clipping or logging. `plain`: all logits of both models in float32,
autograd. `liger`: both bodies, then `LigerFusedLinearJSDLoss` (liger-kernel 0.8, beta 0, not compiled) on all rows,
labels -100 where they are not scored. `ours`: the module's own step; in bfloat16 with `logits_dtype=bfloat16`.

`time/ours_over_OTHER`: of CPU time, the median over rounds in turns; `memory/...`: of what a step needs beyond models
and optimizer at the peak, each in a process of its own. No time counts before loss and gradients agree.
`time/bodies_over_plain`: what no output layer can save, both bodies, the student's backward pass, and AdamW.
"""

# B texts, L length, C classes (the vocabulary), N scored rows

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import measure
from benchmarks.measure import Figure, Report, not_measured, ratio
from potstill.data.batch import IGNORE, Batch
from potstill.losses.fused import Options
from potstill.losses.terms import CrossEntropy, ForwardKL
from potstill.models.task import TASKS
from potstill.module import DistillationModule
from potstill.objective import Objective
from potstill.optimisation import schedule_of
from potstill.signals.live import LiveTeacher

AGREE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # relative difference of all gradients together
ROUNDS = {"smoke": 2, "cpu": 7, "gpu": 9}
OTHERS = ("plain", "liger")


@dataclass(frozen=True)
class Size:
    num_texts: int
    length: int
    num_classes: int
    student: tuple[int, int]  # layers, width
    teacher: tuple[int, int]


SIZES = {
    "smoke": Size(2, 16, 512, (1, 32), (1, 64)),
    "cpu": Size(8, 128, 32768, (4, 256), (8, 512)),
    "gpu": Size(32, 512, 32768, (4, 256), (8, 512)),
}


@dataclass
class Given:
    """Models and one batch; the loss of a step by name."""

    student: LlamaForCausalLM
    teacher: LlamaForCausalLM
    ids: Tensor
    labels: Tensor

    @classmethod
    def of(cls, size: Size, dtype: torch.dtype, device: str = "cpu") -> Given:
        torch.manual_seed(0)
        models = [llama(size.num_classes, *each).to(device, dtype) for each in (size.student, size.teacher)]  # type: ignore[arg-type]
        ids_BL = torch.randint(size.num_classes, (size.num_texts, size.length), device=device)
        labels_BL = ids_BL.clone()
        labels_BL[:, : size.length // 2] = IGNORE
        return cls(models[0], models[1].eval().requires_grad_(False), ids_BL, labels_BL)

    def of_own(self) -> Given:
        """With a student of its own, of the same weights."""
        return Given(copy.deepcopy(self.student), self.teacher, self.ids, self.labels)


def llama(num_classes: int, num_layers: int, width: int) -> LlamaForCausalLM:
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 32}
    return LlamaForCausalLM(LlamaConfig(vocab_size=num_classes, num_hidden_layers=num_layers, **sizes))  # type: ignore[call-arg]


def plain(given: Given) -> Callable[[], Tensor]:
    labels_N = given.labels[:, 1:].flatten()
    scored_N = labels_N != IGNORE

    def loss() -> Tensor:
        logits = given.student(input_ids=given.ids).logits[:, :-1].flatten(0, 1)
        with torch.no_grad():
            targets = given.teacher(input_ids=given.ids).logits[:, :-1].flatten(0, 1)
        log_q_NC, log_p_NC = (each.float().log_softmax(dim=-1) for each in (logits, targets))
        divergence_N = F.kl_div(log_q_NC, log_p_NC, reduction="none", log_target=True).sum(dim=-1)
        return 0.5 * F.nll_loss(log_q_NC, labels_N, ignore_index=IGNORE) + 0.5 * divergence_N[scored_N].mean()

    return loss


def liger(given: Given) -> Callable[[], Tensor]:
    """Raises ImportError where it is not installed."""
    made = importlib.import_module("liger_kernel.chunked_loss").LigerFusedLinearJSDLoss(beta=0.0, compiled=False)
    labels_N = given.labels[:, 1:].flatten()

    def rows(model: Any) -> Tensor:
        return model.model(input_ids=given.ids).last_hidden_state[:, :-1].flatten(0, 1)

    def loss() -> Tensor:
        with torch.no_grad():
            taught = rows(given.teacher)
        heads = [model.lm_head.weight for model in (given.student, given.teacher)]
        return made(rows(given.student), heads[0], taught, heads[1], labels_N)

    return loss


def ours(given: Given) -> Callable[[], Tensor]:
    is_float32 = given.student.dtype == torch.float32
    module = DistillationModule(
        given.student,
        Objective({"ce": CrossEntropy(weight=0.5), "kd": ForwardKL(weight=0.5)}),
        TASKS["causal_lm"],
        LiveTeacher(given.teacher, TASKS["causal_lm"], None),
        make_optimizer=functools.partial(torch.optim.AdamW, lr=1e-4),
        make_schedule=functools.partial(schedule_of, name="constant", warmup_fraction=0.0, num_steps=1),
        weight_decay=0.0,
        clip_norm=None,
        fusing=Options(logits_dtype=torch.float32 if is_float32 else torch.bfloat16),
    )
    assert module.fuses
    inputs = {"input_ids": given.ids, "attention_mask": torch.ones_like(given.ids)}
    batch = Batch(inputs, given.labels, tuple(map(str, range(len(given.ids)))))
    total_rows = module.task.count_rows(batch)
    return lambda: module.objective(module.step_of(batch), total_rows)[0]


def bodies(given: Given) -> Callable[[], Tensor]:
    """No loss of a language model: its head has gradients of 0, so that AdamW has all of its work."""

    def loss() -> Tensor:
        with torch.no_grad():
            given.teacher.model(input_ids=given.ids)
        rows = given.student.model(input_ids=given.ids).last_hidden_state
        return rows.mean() + 0.0 * given.student.lm_head.weight.sum()

    return loss


Loss = Callable[[], Tensor]
LOSSES: dict[str, Callable[[Given], Loss]] = {"ours": ours, "plain": plain, "liger": liger, "bodies": bodies}


def step_of(given: Given, name: str) -> Callable[[], None]:
    """One optimizer step on the batch that `given` has by then."""
    optimizer = torch.optim.AdamW(given.student.parameters(), lr=1e-4, weight_decay=0.0)
    losses: dict[int, Callable[[], Tensor]] = {}

    def step() -> None:
        size = len(given.ids)
        if size not in losses:
            losses[size] = LOSSES[name](given)
        losses[size]().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def gradients(given: Given, name: str) -> list[Tensor]:
    """The loss, and its gradient in every parameter of the student."""
    value = LOSSES[name](given)()
    found = torch.autograd.grad(value, list(given.student.parameters()))
    return [value.detach().double(), torch.cat([each.flatten() for each in found]).double()]


def disagreement(given: Given, other: str) -> str | None:
    """Why no time counts: it is not there, or it computes something else."""
    try:
        expected = gradients(given, other)
    except ImportError as error:
        return f"{error.name} is not installed"
    found = gradients(given, "ours")
    worst = max(float((one - two).norm() / two.norm()) for one, two in zip(found, expected, strict=True))
    return None if worst <= AGREE[given.student.dtype] else f"loss or gradient differs by {worst:.2g}, relative"


def measure_dtype(size: Size, dtype: torch.dtype, suite: str) -> Report:
    device = "cuda" if suite == "gpu" else "cpu"
    given = Given.of(size, dtype, device)
    reasons = {other: disagreement(given, other) for other in OTHERS}
    names = ["ours", *(other for other in OTHERS if not reasons[other])]
    owned = {name: given.of_own() for name in (*names, "bodies")}
    runs = {name: step_of(own, name) for name, own in owned.items()}
    synchronise = torch.cuda.synchronize if device == "cuda" else None
    rounds = measure.in_turns(runs, ROUNDS[suite], synchronise=synchronise)
    peaks = {name: measure.peak_on(device, runs[name], prepared, name, size, dtype) for name in names}
    clock = "wall" if device == "cuda" else "cpu"
    figures = {"time/bodies_over_plain": ratio(rounds, "bodies", "plain", clock)}
    for other in OTHERS:
        reason = reasons[other]
        missing = not_measured(reason) if reason else None
        time = missing or ratio(rounds, "ours", other, clock)
        figures[f"time/ours_over_{other}"] = time
        figures[f"memory/ours_over_{other}"] = missing or Figure(peaks["ours"] / peaks[other])
    return Report(figures, {"seconds": rounds, "peak_bytes": peaks})


def prepared(name: str, size: Size, dtype: str, num_threads: int) -> Callable[[], Any]:
    """For a process of its own: after a step on one text, which leaves the optimizer's state in place."""
    torch.set_num_threads(num_threads)
    given = Given.of(size, getattr(torch, dtype))
    whole_BL = given.ids, given.labels
    step = step_of(given, name)
    given.ids, given.labels = (each[:1] for each in whole_BL)
    step()
    given.ids, given.labels = whole_BL
    return step


def measure_suite(suite: str, only: tuple[str, ...] = ("",)) -> Report:
    report = Report()
    if suite == "gpu" and not torch.cuda.is_available():
        return report
    for dtype in {"smoke": (torch.float32,)}.get(suite, (torch.float32, torch.bfloat16)):
        key = str(dtype).removeprefix("torch.")
        if key.startswith(only):
            found = measure_dtype(SIZES[suite], dtype, suite)
            report.figures |= {f"{key}/{name}": figure for name, figure in found.figures.items()}
            report.rounds[key] = found.rounds
    return report


if __name__ == "__main__":
    measure.command("e2e_lm", measure_suite, __doc__, in_parts=True)
