"""How far gradients under the fused head are from float64, in its default mode and in its fast one.

    OMP_NUM_THREADS=1 python -m benchmarks.precision --suite cpu --out benchmarks/results/precision.json

The loss is ce / 2 + KL(teacher || student) / 2, at the shapes of `benchmarks/head.py`. A figure is the norm of a
gradient's difference from float64's, from the very same inputs, over the norm of the latter: of the student's rows or
its head, whichever is worse. `far`: a student of its own; `near`: one that nearly is its teacher, where a divergence is
the difference of numbers that are almost equal. `whole`: both heads; `sparse`: the teacher's 64 likeliest classes, all
others as one; `..._fast`: with `logits_dtype=bfloat16`. `naive`: both heads, all logits at once, float32 softmax,
autograd.

Errors need no clock and no quiet machine. `--only bfloat16/1024x32768` measures one shape of one dtype.
"""

# N rows, C classes

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.head import CPU_SHAPES, difference
from benchmarks.head_variants import CE, FAST, Given, Loss, Shape, naive, ours
from benchmarks.measure import Figure, Report
from benchmarks.sparse_head import KL, KNOWN
from potstill.losses.fused import Options, fused
from potstill.losses.heads import Head, HeadInput
from potstill.losses.sparse import SparseLogits, sparse_forward_kl

SHAPES = {"smoke": (Shape(64, 2048, 32, 64),), "cpu": CPU_SHAPES, "gpu": (Shape(2048, 128256, 2048, 4096),)}


def likeliest(given: Given) -> SparseLogits:
    """Of the teacher, float32."""
    logits_NC = given.teacher.float() @ given.teacher_head.float().t()
    return SparseLogits(*logits_NC.log_softmax(dim=-1).topk(KNOWN, dim=-1))


def sparsely(target: SparseLogits, options: Options = Options()) -> Loss:  # noqa: B008  frozen
    def loss(given: Given) -> Tensor:
        weight = 0.5 / len(given.labels)
        rows = HeadInput(given.student, Head(given.student_head))
        terms, weights = {"ce": CE, "kd": KL}, {"ce": weight, "kd": weight}
        return fused(rows, target, given.labels, terms, weights, options=options).loss

    return loss


def sparsely_naive(target: SparseLogits) -> Loss:
    def loss(given: Given) -> Tensor:
        logits_NC = given.student @ given.student_head.t()
        divergence_N = sparse_forward_kl(logits_NC, target.log_p.to(logits_NC.dtype), target.ids).values
        return 0.5 * torch.nn.functional.cross_entropy(logits_NC, given.labels) + 0.5 * divergence_N.mean()

    return loss


def errors(given: Given) -> Iterator[tuple[str, float]]:
    """The name and the error of each way of computing the gradient."""
    modes = {"": Options()} if given.student.dtype == torch.float32 else {"": Options(), "_fast": FAST}
    for name, each in (("far", given), ("near", given.near())):
        target = likeliest(each)
        whole: dict[str, Loss] = {f"whole{mode}": ours(options) for mode, options in modes.items()}
        partly: dict[str, Loss] = {f"sparse{mode}": sparsely(target, options) for mode, options in modes.items()}
        references = (
            ({**whole, "naive": naive}, functools.partial(naive, dtype=torch.float64)),
            (partly, sparsely_naive(target)),
        )
        for ways, reference in references:
            exact = each.doubled().gradients(reference)
            for way, loss in ways.items():
                yield f"{way}/{name}", difference(each.gradients(loss), exact)


def measure_suite(suite: str, only: tuple[str, ...] = ("",)) -> Report:
    report = Report()
    if suite == "gpu" and not torch.cuda.is_available():
        return report
    for shape, dtype in [(shape, dtype) for shape in SHAPES[suite] for dtype in (torch.float32, torch.bfloat16)]:
        key = f"{str(dtype).removeprefix('torch.')}/{shape}"
        if not key.startswith(only):
            continue
        given = Given.of(shape, dtype, "cuda" if suite == "gpu" else "cpu")
        found = {f"{key}/{name}": Figure(value) for name, value in errors(given)}
        report.figures |= found
        print(*measure.table("precision", found), sep="\n", flush=True)
    return report


if __name__ == "__main__":
    measure.command("precision", measure_suite, __doc__, in_parts=True)
