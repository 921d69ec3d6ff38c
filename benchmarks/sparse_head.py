"""The fused head on the 64 likeliest classes of a teacher, against DistillKit's sparse divergence on all logits.

    OMP_NUM_THREADS=1 python -m benchmarks.sparse_head --suite cpu --out benchmarks/results/sparse_head.json

The loss is ce / 2 + KL / 2 at temperature 1, all other classes as one: sum_k p_k log(p_k / q_k) + r log(r / s), r and s
what the K probabilities of teacher and student leave of 1. `distillkit` is the sparse KL of arcee-ai/DistillKit with
missing probability `symmetric_uniform`, written here from its formula, not installed: the student's logits of all
classes in the models' dtype, then float32, their logsumexp (which the cross-entropy shares here, and not there), the K
classes gathered, autograd.

`time/OURS_over_distillkit`: of CPU time, the median over rounds in turns, and `time/products_over_distillkit`, of the
three matrix products that no way of computing it can do without; `memory/...`: of what is needed beyond the
inputs at the peak, each in a process of its own. Nothing is timed before values and gradients agree. `--only
float32/1024x32768` measures one shape.
"""

# N rows, C classes, K known classes, D width

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.head_variants import CE, Shape
from benchmarks.measure import Figure, Report, not_measured, ratio
from potstill.losses.fused import Options, fused
from potstill.losses.heads import Head, HeadInput
from potstill.losses.row_forms import Form
from potstill.losses.row_math import RowTerm
from potstill.losses.sparse import SparseLogits, sparse_forward_kl

KNOWN = 64
SHAPES = {
    "smoke": (Shape(256, 8192, 64, 0),),
    "cpu": (Shape(1024, 32768, 384, 0), Shape(2048, 32768, 384, 0), Shape(512, 131072, 256, 0)),
    "gpu": (Shape(8192, 128256, 2048, 0),),
}
ROUNDS = {"smoke": 3, "cpu": 7, "gpu": 9}
AGREE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}  # relative difference of whole gradients
OURS = {torch.float32: "ours", torch.bfloat16: "ours_fast"}
KL = RowTerm(lambda s, t, _: sparse_forward_kl(s, t.log_p, t.ids).values, form=Form("forward_kl"))


@dataclass
class Given:
    """Rows of variance 1, a head that makes logits of variance 4, and the likeliest classes of a like teacher."""

    hidden: Tensor
    head: Tensor
    labels: Tensor
    teacher: SparseLogits

    @classmethod
    def of(cls, shape: Shape, dtype: torch.dtype, device: str = "cpu") -> Given:
        torch.manual_seed(0)
        rows, classes, width = shape.num_rows, shape.num_classes, shape.student_width
        hidden = torch.randn(rows, width, device=device).to(dtype).requires_grad_()
        head = (2.0 / width**0.5 * torch.randn(classes, width, device=device)).to(dtype).requires_grad_()
        labels = torch.randint(classes, (rows,), device=device)
        values, ids = (2.0 * torch.randn(rows, classes, device=device)).log_softmax(dim=-1).topk(KNOWN, dim=-1)
        return cls(hidden, head, labels, SparseLogits(values.half(), ids))

    def gradients(self, loss: Callable[[Given], Tensor]) -> tuple[Tensor, list[Tensor]]:
        self.hidden.grad = self.head.grad = None
        value = loss(self)
        value.backward()
        assert self.hidden.grad is not None
        assert self.head.grad is not None
        return value.detach(), [self.hidden.grad, self.head.grad]


def ours(given: Given, options: Options = Options()) -> Tensor:  # noqa: B008  frozen
    weight = 0.5 / len(given.labels)
    rows = HeadInput(given.hidden, Head(given.head))
    terms, weights = {"ce": CE, "kd": KL}, {"ce": weight, "kd": weight}
    return fused(rows, given.teacher, given.labels, terms, weights, options=options).loss


def distillkit(given: Given) -> Tensor:
    logits_NC = (given.hidden @ given.head.t()).float()
    normaliser_N1 = logits_NC.logsumexp(dim=-1, keepdim=True)
    log_q_NK, log_p_NK = logits_NC.gather(-1, given.teacher.ids) - normaliser_N1, given.teacher.log_p.float()
    log_r_N, log_s_N = ((-torch.expm1(each_NK.logsumexp(dim=-1))).log() for each_NK in (log_p_NK, log_q_NK))
    divergence_N = (log_p_NK.exp() * (log_p_NK - log_q_NK)).sum(dim=-1) + log_r_N.exp() * (log_r_N - log_s_N)
    of_label_N = logits_NC.gather(-1, given.labels.unsqueeze(-1)).squeeze(-1)
    return 0.5 * (normaliser_N1.squeeze(-1) - of_label_N).mean() + 0.5 * divergence_N.mean()


def products(given: Given) -> None:
    with torch.no_grad():
        logits_NC = given.hidden @ given.head.t()
        _ = logits_NC @ given.head, logits_NC.t() @ given.hidden


VARIANTS: dict[str, Callable[[Given], Tensor]] = {
    "ours": ours,
    "ours_fast": functools.partial(ours, options=Options(logits_dtype=torch.bfloat16)),
    "distillkit": distillkit,
}


def disagreement(given: Given, own: str, dtype: torch.dtype) -> str | None:
    """Why no time counts: the two do not compute the same."""
    (value, gradients), (expected, expected_gradients) = (
        given.gradients(VARIANTS[name]) for name in (own, "distillkit")
    )
    pairs = [(value, expected), *zip(gradients, expected_gradients, strict=True)]
    worst = max(float((one.double() - other.double()).norm() / other.double().norm()) for one, other in pairs)
    return None if worst <= AGREE[dtype] else f"value or gradient differs by {worst:.2g}, relative"


def measure_shape(shape: Shape, dtype: torch.dtype, suite: str) -> Report:
    device = "cuda" if suite == "gpu" else "cpu"
    own, given = OURS[dtype], Given.of(shape, dtype, device)
    name = f"{own}_over_distillkit"
    reason = disagreement(given, own, dtype)
    if reason:
        return Report({f"{what}/{name}": not_measured(reason) for what in ("time", "memory")})
    runs: dict[str, Callable[[], Any]] = {
        each: functools.partial(given.gradients, VARIANTS[each]) for each in (own, "distillkit")
    }
    synchronise, clock = (torch.cuda.synchronize, "wall") if device == "cuda" else (None, "cpu")
    timed = runs | {"products": functools.partial(products, given)}
    rounds = measure.in_turns(timed, ROUNDS[suite], synchronise=synchronise)
    peaks = {each: measure.peak_on(device, runs[each], prepared, each, shape, dtype) for each in runs}
    figures = {
        f"time/{name}": ratio(rounds, own, "distillkit", clock),
        "time/products_over_distillkit": ratio(rounds, "products", "distillkit", clock),
        f"memory/{name}": Figure(peaks[own] / peaks["distillkit"]),
    }
    return Report(figures, {"seconds": rounds, "peak_bytes": peaks})


def prepared(name: str, shape: Shape, dtype: str, num_threads: int) -> Callable[[], Any]:
    """For a process of its own, warmed up on a shape that weighs nothing beside the one measured."""
    torch.set_num_threads(num_threads)
    small = Given.of(Shape(8, 4 * KNOWN, shape.student_width, 0), getattr(torch, dtype))
    small.gradients(VARIANTS[name])
    return functools.partial(Given.of(shape, getattr(torch, dtype)).gradients, VARIANTS[name])


def measure_suite(suite: str, only: tuple[str, ...] = ("",)) -> Report:
    dtypes = {"gpu": (torch.bfloat16,), "smoke": (torch.float32,)}.get(suite, (torch.float32, torch.bfloat16))
    report = Report()
    if suite == "gpu" and not torch.cuda.is_available():
        return report
    for shape, dtype in [(shape, dtype) for shape in SHAPES[suite] for dtype in dtypes]:
        key = f"{str(dtype).removeprefix('torch.')}/{shape}"
        if not key.startswith(only):
            continue
        found = measure_shape(shape, dtype, suite)
        report.figures |= {f"{key}/{name}": figure for name, figure in found.figures.items()}
        report.rounds[key] = found.rounds
        print(*measure.table("sparse_head", {f"{key}/{n}": f for n, f in found.figures.items()}), sep="\n", flush=True)
    return report


if __name__ == "__main__":
    measure.command("sparse_head", measure_suite, __doc__, in_parts=True)
