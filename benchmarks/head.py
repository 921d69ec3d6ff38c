"""The fused head against the bare products it consists of, naive full logits, Liger-Kernel and TRL.

    OMP_NUM_THREADS=1 python -m benchmarks.head --suite cpu --out benchmarks/results/head.json
    python -m benchmarks.head --suite gpu --out head_gpu.json

Figures are ours over theirs: `time/OURS_over_THEIRS`, of CPU time on CPUs, the median over rounds in which all run
once, and `memory/OURS_over_THEIRS`, of what is needed beyond the inputs at the peak. A peer is measured once its value
and gradients agree with ours. `error/far` and `error/near`: of our gradient against float64 from the same inputs,
relative, for a student of its own and one that nearly is the teacher. `--only float32/2048x32768/naive` measures one
shape, or one shape against one other, and leaves what else the report holds. It needs torch, `potstill.losses` and
what peers are installed (the extra `parity`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks import measure
from benchmarks.head_variants import FAST, IGNORE, Given, Loss, Shape, liger, naive, ours, products, trl
from benchmarks.measure import Figure, Report, Rounds, not_measured, ratio
from potstill.losses.fused import Options

CPU_SHAPES = (Shape(1024, 32768, 384, 768), Shape(2048, 32768, 384, 768), Shape(512, 131072, 256, 512))
GPU_SHAPES = (Shape(8192, 128256, 2048, 4096), Shape(8192, 151936, 896, 3584), Shape(1024, 128256, 4096, 4096))
SMOKE_SHAPES = (Shape(512, 8192, 64, 128),)
ROUNDS = {"smoke": 3, "cpu": 3, "gpu": 7}
DEADLINE_S = {"gpu": 90.0}  # of a suite: what would begin later is not measured
AGREE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}  # relative difference of whole gradients
COMPILED = Options(compiled=True)
FAST_COMPILED = Options(logits_dtype=torch.bfloat16, compiled=True)

Pairs = Mapping[str, tuple[str, ...]]

# variant: what it is measured against (ours / it); the ours that is measured, by dtype
PAIRS = {
    torch.float32: {
        "naive": ("ours",),
        "products": ("ours", "ours_compiled"),
        "liger": ("ours",),
        "liger_compiled": ("ours_compiled",),
        "trl_kl": ("ours_kl",),
        "trl_jsd": ("ours_jsd",),
        "ours": ("ours_half_masked", "ours_frozen"),
    },
    torch.bfloat16: {
        "naive": ("ours_fast",),
        "products": ("ours_fast", "ours_fast_compiled"),
        "liger": ("ours_fast",),
        "liger_compiled": ("ours_fast_compiled",),
        "ours_fast": ("ours_fast_half_masked", "ours_fast_frozen"),
    },
}
SMOKE_PAIRS = {"naive": ("ours",), "ours": ("ours_half_masked",)}
GPU_PAIRS = {
    "products": ("ours",),
    "liger": ("ours",),
    "trl_kl": ("ours_kl",),
    "trl_jsd": ("ours_jsd",),
    "ours": ("ours_half_masked",),
    "liger_compiled": ("ours",),
}
VARIANTS: Mapping[str, Callable[[], Loss | Callable[[Given], None]]] = {
    "naive": lambda: naive,
    "products": lambda: products,
    "liger": functools.partial(liger, compiled=False),
    "liger_compiled": functools.partial(liger, compiled=True),
    "trl_kl": functools.partial(trl, 0.0),
    "trl_jsd": functools.partial(trl, 0.5),
    "ours": ours,
    "ours_kl": functools.partial(ours, kl=1.0),
    "ours_jsd": functools.partial(ours, jsd=1.0),
    "ours_compiled": functools.partial(ours, COMPILED),
    "ours_fast": functools.partial(ours, FAST),
    "ours_fast_compiled": functools.partial(ours, FAST_COMPILED),
}
SAME_LOSS = {"trl_kl": "ours_kl", "trl_jsd": "ours_jsd"}  # else: ours


def run_of(variant: str, given: Given) -> Callable[[], Any]:
    """One loss with its backward pass on `given`.

    Of `..._half_masked`, with labels on every other row only; of `..._frozen`, with a student's head without gradient.
    """
    name = variant.removesuffix("_half_masked").removesuffix("_frozen")
    if variant.endswith("_half_masked"):
        labels = given.labels.clone()
        labels[::2] = IGNORE
        given = replace(given, labels=labels)
    if variant.endswith("_frozen"):
        given = replace(given, student_head=given.student_head.detach())
    made: Any = VARIANTS[name]()
    if name == "products":
        return functools.partial(made, given)
    return functools.partial(given.gradients, made)


def disagreement(variant: str, given: Given, dtype: torch.dtype) -> str | None:
    """Why a variant cannot be measured: it is not there, or it computes something else than we do."""
    try:
        made: Any = VARIANTS[variant]()
    except ImportError as error:
        return f"{error.name} is not installed"
    reference: Any = VARIANTS[SAME_LOSS.get(variant, "ours")]()
    worst = difference(given.gradients(made), given.gradients(reference))
    return None if worst <= AGREE[dtype] else f"its gradient differs from ours by {worst:.2g}, relative"


def difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Of whole gradients, relative; the worse of the two inputs'."""
    pairs = [(one.double(), other.double()) for one, other in zip(found, expected, strict=True)]
    return max(float((one - other).norm() / other.norm()) for one, other in pairs)


def errors(given: Given) -> Report:
    """Of our gradient, in default mode, against that of float64 from the same inputs."""
    exact = functools.partial(naive, dtype=torch.float64)
    students = {"far": given, "near": given.near()}
    found = {
        name: difference(each.gradients(ours()), each.doubled().gradients(exact)) for name, each in students.items()
    }
    return Report({f"error/{name}": Figure(value) for name, value in found.items()})


def measure_shape(given: Given, pairs: Pairs, shape: Shape, suite: str, began_at: float) -> Report:
    """Pairs of one shape: figures, rounds and bytes."""
    device, dtype = given.student.device.type, given.student.dtype
    reasons: dict[str, str] = {}
    for other in pairs:
        late = time.monotonic() - began_at > DEADLINE_S.get(suite, float("inf"))
        reason = "no time was left" if late else None
        if not reason and other not in ("products", "ours", "ours_fast"):
            reason = disagreement(other, given, dtype)
        if reason:
            reasons[other] = reason
    names = {name for other, own in pairs.items() if other not in reasons for name in (other, *own)}
    runs = {name: run_of(name, given) for name in sorted(names)}
    synchronise = torch.cuda.synchronize if device == "cuda" else None
    rounds = measure.in_turns(runs, ROUNDS[suite], synchronise=synchronise)
    peaks = {
        name: measure.peak_on(device, runs[name], prepared, name, shape, dtype) for name in names if has_peak(name)
    }
    return Report(
        dict(figures(pairs, reasons, rounds, peaks, "wall" if device == "cuda" else "cpu")),
        {"seconds": rounds, "peak_bytes": peaks},
    )


def has_peak(name: str) -> bool:
    """Whether its memory is in a figure."""
    return name != "products" and not name.endswith(("_half_masked", "_frozen"))


def figures(
    pairs: Pairs,
    reasons: Mapping[str, str],
    rounds: Rounds,
    peaks: Mapping[str, int],
    clock: str,
) -> Iterator[tuple[str, Figure]]:
    for other, own_names in pairs.items():
        for own in own_names:
            name = f"{own}_over_{other}"
            if other in reasons:
                yield f"time/{name}", not_measured(reasons[other])
                continue
            yield f"time/{name}", ratio(rounds, own, other, clock)
            if own in peaks and other not in ("products", "ours", "ours_fast"):
                yield f"memory/{name}", Figure(peaks[own] / peaks[other])


def prepared(name: str, shape: Shape, dtype: str, num_threads: int) -> Callable[[], Any]:
    """For a process of its own, warmed up on a shape that weighs nothing beside the one measured."""
    torch.set_num_threads(num_threads)
    small = Shape(8, 256, shape.student_width, shape.teacher_width)
    run_of(name, Given.of(small, getattr(torch, dtype)))()
    given = Given.of(shape, getattr(torch, dtype))
    if name.endswith("compiled"):
        run_of(name, given)()  # compiling takes memory that is no part of a step
        given.student.grad = given.student_head.grad = None
    return run_of(name, given)


def measure_suite(suite: str, only: tuple[str, ...] = ("",)) -> Report:
    began_at = time.monotonic()
    shapes = {"smoke": SMOKE_SHAPES, "cpu": CPU_SHAPES, "gpu": GPU_SHAPES}[suite]
    dtypes = {"gpu": (torch.bfloat16,), "smoke": (torch.float32,)}.get(suite, (torch.float32, torch.bfloat16))
    report = Report()
    for shape, dtype in [(shape, dtype) for shape in shapes for dtype in dtypes]:
        key = f"{str(dtype).removeprefix('torch.')}/{shape}"
        pairs = {"gpu": GPU_PAIRS, "smoke": SMOKE_PAIRS}.get(suite) or PAIRS[dtype]
        chosen = {other: own for other, own in pairs.items() if f"{key}/{other}".startswith(only)}
        has_errors = suite == "cpu" and f"{key}/error".startswith(only)
        if not chosen and not has_errors:
            continue
        try:
            given = Given.of(shape, dtype, "cuda" if suite == "gpu" else "cpu")
            found = errors(given) if has_errors else Report()
            if chosen:
                timed = measure_shape(given, chosen, shape, suite, began_at)
                found = Report(found.figures | timed.figures, {"/".join(chosen): timed.rounds})
        except (RuntimeError, torch.OutOfMemoryError) as error:  # the other shapes are measured all the same
            report.figures[f"{key}/failed"] = not_measured(f"{type(error).__name__}: {str(error)[:300]}")
            continue
        report.figures |= {f"{key}/{name}": figure for name, figure in found.figures.items()}
        report.rounds |= {f"{key}/{name}": rounds for name, rounds in found.rounds.items()}
        print(*measure.table("head", {f"{key}/{n}": f for n, f in found.figures.items()}), sep="\n", flush=True)
    return report


if __name__ == "__main__":
    measure.command("head", measure_suite, __doc__, in_parts=True)
