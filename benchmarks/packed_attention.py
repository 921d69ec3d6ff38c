"""What the attention of packed texts costs by itself: in groups of one length, in one kernel, under one dense mask.

    OMP_NUM_THREADS=1 python -m benchmarks.packed_attention --suite cpu --out benchmarks/results/packed_attention.json

Texts of log-normal lengths, `short` (mean 33 tokens, at most 128) and `long` (mean 330, at most 1280), until they fill
the slots, seen to both sides or causally, by as many heads as BERT-base has. `dense`: SDPA under a mask of all pairs of
slots. `flex` is compiled. Accelerators run forward and backward, CPUs forward alone, since torch has no gradient of it
there. Masks are made beforehand, as a model makes them once for all layers; memory counts them. All ways must agree
before a time counts.
"""

# B texts, L length, H heads, S slots, P attended positions, D width of a head

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

from benchmarks import measure
from benchmarks.measure import Figure, Report
from benchmarks.padding import MAX_LENGTH, MEAN_LOG, SD_LOG
from potstill.models.packed_attention import FLEX, GROUPS, attention, rule
from potstill.models.packing import Layout, layout_of

HEADS, WIDTH = 12, 64
SCALES = {"short": 1, "long": 10}  # of the lengths
SEES = {"both_sides": bidirectional_mask_function, "causal": causal_mask_function}
WAYS = (GROUPS, FLEX, "dense")
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of the largest value


@dataclass(frozen=True)
class Sizes:
    num_slots: int
    num_rounds: int
    dtype: torch.dtype = torch.float32
    device: str = "cpu"


SUITES = {"cpu": Sizes(2048, 15), "gpu": Sizes(16_384, 15, torch.bfloat16, "cuda")}


@dataclass(frozen=True)
class Given:
    """Queries, keys and values `[B, L, H * D]` of a padded batch. attended: which positions are, `[B, L]`."""

    states: list[Tensor]
    attended: Tensor
    direction: str

    @staticmethod
    def of(scale: str, direction: str, sizes: Sizes) -> Given:
        generator = np.random.default_rng(0)
        drawn = generator.lognormal(MEAN_LOG, SD_LOG, size=sizes.num_slots).round().clip(3, MAX_LENGTH).astype(int)
        lengths = drawn * SCALES[scale]
        lengths_B = torch.from_numpy(lengths[lengths.cumsum() <= sizes.num_slots])
        mask_BL = torch.arange(int(lengths_B.max())) < lengths_B.unsqueeze(1)
        torch.manual_seed(0)
        states = [torch.randn(*mask_BL.shape, HEADS * WIDTH) for _ in range(3)]
        return Given(
            [each.to(sizes.device, sizes.dtype) for each in states], mask_BL.long().to(sizes.device), direction
        )

    def run_of(self, way: str) -> Callable[[], Tensor]:
        """Attention of the attended positions, in the order of the batch, `[P, H * D]`."""
        layout = layout_of(self.attended, kind=GROUPS if way == GROUPS else FLEX)
        assert layout is not None
        states = [each.unflatten(-1, (HEADS, WIDTH)) for each in self.states]
        heads = [layout.packed(each).transpose(1, 2).requires_grad_(each.is_cuda) for each in states]
        module = nn.Module()
        module.is_causal = self.direction == "causal"  # type: ignore[assignment]
        masks: Any = self.masks_of(way, layout)
        attend: Any = {GROUPS: attention, FLEX: flex_attention_forward, "dense": sdpa_attention_forward}[way]

        def run() -> Tensor:
            found = attend(module, *heads, masks)[0].flatten(2)[0].index_select(0, layout.attended)
            if found.requires_grad:
                found.sum().backward()
            return found.detach()

        return run

    def masks_of(self, way: str, layout: Layout) -> Any:
        is_causal = self.direction == "causal"
        skips = {"allow_is_causal_skip": is_causal, "allow_is_bidirectional_skip": not is_causal}
        options = {"mask_function": SEES[self.direction], "device": self.attended.device, **skips}
        of_model = rule(attention_mask=self.attended.bool(), **options)
        if way != "dense":
            return layout.masks(of_model)
        text_S, column_S = layout.slots // layout.shape[1], layout.slots % layout.shape[1]
        dense_SS = text_S.unsqueeze(1) == text_S
        return (dense_SS & (column_S <= column_S.unsqueeze(1)) if is_causal else dense_SS)[None, None]


def measured(suite: str) -> Report:
    report, sizes = Report(), SUITES.get(suite)
    if sizes is None or (sizes.device == "cuda" and not torch.cuda.is_available()):
        report.figures["flex_over_groups"] = measure.not_measured("no accelerator" if sizes else "too small a suite")
        return report
    for scale in SCALES:
        for direction in SEES:
            name = f"{scale}/{direction}"
            runs = {way: Given.of(scale, direction, sizes).run_of(way) for way in WAYS}
            refuse_difference(runs, TOLERANCE[sizes.dtype])
            wait = torch.cuda.synchronize if sizes.device == "cuda" else None
            report.rounds[name] = rounds = measure.in_turns(runs, sizes.num_rounds, repeats=5, synchronise=wait)
            for way in (FLEX, "dense"):
                report.figures[f"{name}/time/{way}_over_groups"] = measure.ratio(rounds, way, GROUPS)
            report.figures.update(memory(name, scale, direction, suite))
    return report


def refuse_difference(runs: dict[str, Callable[[], Tensor]], tolerance: float) -> None:
    found = {way: run() for way, run in runs.items()}
    for way, values in found.items():
        furthest = float((values - found["dense"]).abs().max() / found["dense"].abs().max())
        if furthest > tolerance:
            raise RuntimeError(f"{way} differs from dense by {furthest:.1e} of the largest value")


def memory(name: str, scale: str, direction: str, suite: str) -> Iterator[tuple[str, Figure]]:
    """Megabytes at the peak, masks included."""
    for way in WAYS:
        if SUITES[suite].device == "cuda":
            num_bytes = measure.peak_cuda_bytes(prepared(scale, direction, suite, way))
        else:
            num_bytes = measure.peak_bytes(prepared, scale, direction, suite, way)
        yield f"{name}/memory_mb/{way}", Figure(num_bytes / 1e6)


def prepared(scale: str, direction: str, suite: str, way: str) -> Callable[[], Any]:
    given = Given.of(scale, direction, SUITES[suite])
    given.run_of(way)()  # compiling takes memory that is no part of a pass
    return lambda: given.run_of(way)()


if __name__ == "__main__":
    measure.command(Path(__file__).stem, measured, __doc__)
