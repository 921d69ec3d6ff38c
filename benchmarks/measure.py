"""What every paired measurement is made of: rounds in turns, ratios with their intervals, peak memory, a report.

A benchmark `benchmarks/NAME.py` says what it measures and leaves the rest to `command`:

    python -m benchmarks.NAME --suite smoke|cpu|gpu --out FILE.json

Its report is `{"benchmark", "suite", "figures": {name: {"value", "interval"}}, "rounds", "environment"}`. A figure that
could not be measured has no value, and a reason. `benchmarks/goals.toml` says what the figures should be, and
`benchmarks/run.py` compares. Needs torch and nothing else.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from potstill.tracking.manifest import git_state, write_json

SUITES = ("smoke", "cpu", "gpu")
CONFIDENCE = 0.95
CLEAR_PEAK = "5"  # proc(5), clear_refs: start VmHWM anew
# bytes: glibc maps tensors from this size on its own and gives them back, so that what is resident is what is in use
MAPPED_FROM = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
PACKAGES = ("transformers", "pytorch-lightning", "triton", "liger-kernel", "trl")

Rounds = dict[str, list[dict[str, float]]]  # by variant, one entry a round: seconds, by clock


@dataclass(frozen=True)
class Figure:
    """A measured number. interval: of 95 % confidence, or None where there is one value only. reason: of no value."""

    value: float | None
    interval: tuple[float, float] | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) != bool(self.reason) or (self.value is not None and not math.isfinite(self.value)):
            raise ValueError(f"{self} is no measurement: a finite value, or the reason why there is none")


@dataclass
class Report:
    """What a benchmark found. rounds: all that was measured, in the order it was."""

    figures: dict[str, Figure] = field(default_factory=dict)
    rounds: dict[str, Any] = field(default_factory=dict)


def not_measured(reason: str) -> Figure:
    return Figure(None, reason=reason)


def command(
    name: str,
    measure: Callable[..., Report],
    description: str | None,
    arguments: Sequence[str] | None = None,
    *,
    in_parts: bool = False,
) -> None:
    """The command line of a benchmark: run `measure(suite)`, print its figures, write its report.

    in_parts: run `measure(suite, only)`, which measures those parts alone whose name begins with one of `only`; what
    the report held of others stays.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, required=True)
    parser.add_argument("--out", type=Path)
    if in_parts:
        parser.add_argument("--only", nargs="+", metavar="PREFIX", help="parts to measure, such as float32/1024x32768")
    options = parser.parse_args(arguments)
    only = getattr(options, "only", None)
    report = measure(options.suite, *([tuple(only or [""])] if in_parts else []))
    print(*table(name, report.figures), sep="\n")
    if options.out:
        facts = {"benchmark": name, "suite": options.suite, **asdict(report), "environment": environment()}
        write_json(options.out, joined(options.out, facts) if only else facts)


def joined(file: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The report in `file` with what was measured anew; `earlier` gives the commit of each figure that was not."""
    if not file.exists():
        return facts
    before = json.loads(file.read_text())
    commits = dict.fromkeys(before["figures"], before["environment"]["code"]) | before.get("earlier", {})
    both = {name: before[name] | facts[name] for name in ("figures", "rounds")}
    return {
        **facts,
        **both,
        "earlier": {name: commits[name] for name in before["figures"] if name not in facts["figures"]},
    }


def table(name: str, figures: Mapping[str, Figure]) -> list[str]:
    return [f"{name}/{figure}: {shown(found)}" for figure, found in figures.items()]


def shown(figure: Figure) -> str:
    if figure.value is None:
        return f"not measured: {figure.reason}"
    interval = "" if figure.interval is None else " [{:.3g}, {:.3g}]".format(*figure.interval)
    return f"{figure.value:.3g}{interval}"


def in_turns(
    variants: Mapping[str, Callable[[], Any]],
    num_rounds: int,
    *,
    num_warmups: int = 1,
    repeats: int = 1,
    synchronise: Callable[[], None] | None = None,
) -> Rounds:
    """Seconds of every variant in every round, by wall and by CPU time of all threads.

    In a round each variant runs once, `repeats` calls together, in an order that rotates from round to round: what else
    the machine does meets all alike. synchronise: `torch.cuda.synchronize` where the work is queued.
    """
    wait = synchronise or _nothing
    for run in [*variants.values()] * num_warmups:
        run()
    names = list(variants)
    rounds: Rounds = {name: [] for name in names}
    for number in range(num_rounds):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            rounds[name].append(_seconds(variants[name], repeats, wait))
        print(f"round {number + 1}/{num_rounds}", end="\r", file=sys.stderr)
    return rounds


def _nothing() -> None:
    pass


def _seconds(run: Callable[[], Any], repeats: int, wait: Callable[[], None]) -> dict[str, float]:
    """Of one call."""
    wait()
    began_at, cpu_began_at = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        run()
    wait()
    ended_at, cpu_ended_at = time.perf_counter(), time.process_time()
    return {"wall": (ended_at - began_at) / repeats, "cpu": (cpu_ended_at - cpu_began_at) / repeats}


def ratio(rounds: Rounds, variant: str, reference: str, clock: str = "cpu") -> Figure:
    """What `variant` takes of the time of `reference`: median over rounds of the ratio within a round."""
    return median([own / other for own, other in _pairs(rounds, variant, reference, clock)])


def difference(rounds: Rounds, variant: str, reference: str, clock: str = "cpu") -> Figure:
    """The seconds that `variant` takes more than `reference`: median over rounds of the difference within a round."""
    return median([own - other for own, other in _pairs(rounds, variant, reference, clock)])


def _pairs(rounds: Rounds, variant: str, reference: str, clock: str) -> list[tuple[float, float]]:
    return [(own[clock], other[clock]) for own, other in zip(rounds[variant], rounds[reference], strict=True)]


def median(values: Sequence[float]) -> Figure:
    """The median, and the interval between two of the values that holds the true one with 95 % confidence.

    The k-th smallest and k-th largest of n values hold the median of whatever they were drawn from with probability
    1 - 2 P(Binomial(n, 1/2) < k); k is the largest for which that is enough. Below 6 values none is: no interval.
    """
    ordered, count = sorted(values), len(values)
    missed = [2 * sum(math.comb(count, below) for below in range(k)) / 2**count for k in range(1, count // 2 + 1)]
    k = sum(chance <= 1 - CONFIDENCE for chance in missed)
    return Figure(statistics.median(ordered), (ordered[k - 1], ordered[-k]) if k else None)


def scaled(figure: Figure, factor: float) -> Figure:
    """In another unit."""
    if figure.value is None:
        return figure
    interval = figure.interval and (figure.interval[0] * factor, figure.interval[1] * factor)
    return Figure(figure.value * factor, interval or None)


def peak_bytes(prepare: Callable[..., Callable[[], Any]], *arguments: Any) -> int:
    """The memory that `run = prepare(*arguments)` needs while `run()` goes on, beyond what was resident before it.

    Measured in a process of its own, by the kernel (VmHWM, wiped when `run` begins). prepare: of a module's top level,
    so that the process finds it. It should have run something small of the kind, so that libraries are loaded.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_peak, args=(sender, prepare, arguments))
    before = {name: os.environ.get(name) for name in MAPPED_FROM}
    os.environ.update(MAPPED_FROM)
    try:
        process.start()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"{prepare.__name__}{arguments} ended without a figure; its process says why") from None
    finally:
        process.join()


def _send_peak(sender: Any, prepare: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    run = prepare(*arguments)
    before = kernel_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)
    run()
    sender.send(kernel_bytes("VmHWM") - before)


def kernel_bytes(name: str) -> int:
    """VmRSS: what of this process is in memory now; VmHWM: the most there was since the note was wiped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def peak_cuda_bytes(run: Callable[[], Any]) -> int:
    """The same of an accelerator, by its allocator, in this process."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def peak_on(
    device: str,
    run: Callable[[], Any],
    prepare: Callable[..., Callable[[], Any]],
    name: str,
    size: Any,
    dtype: torch.dtype,
) -> int:
    """Of `run` on an accelerator; on the CPU of what `prepare` makes of the rest, and the number of threads."""
    if device == "cuda":
        return peak_cuda_bytes(run)
    return peak_bytes(prepare, name, size, str(dtype).removeprefix("torch."), torch.get_num_threads())


def environment() -> dict[str, Any]:
    """What a time depends on. No name or path of the machine."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "code": git_state(Path(__file__).parent),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": {name: version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def version(package: str) -> str | None:
    """None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
