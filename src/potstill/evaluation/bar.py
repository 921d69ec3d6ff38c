"""The bar: what a student has to show before it ships. Config group `bar`; the gates in `potstill.evaluation.gates`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class PricesConfig:
    """Prices in one currency, whichever; null where it is not known."""

    teacher_per_1000: float | None = None  # requests answered by the teacher
    student_per_1000: float | None = None
    build: float | None = None  # once: labels, training, and the work around it
    requests_per_month: float | None = None


@dataclass
class BarConfig:
    """Limits of null ask for nothing. Shares in [0, 1]; qualities and margins in the unit of the task's main metric."""

    name: str | None = None  # null: no bar, hence no verdict
    quality: float | None = None  # of the student, on all items
    retention: float | None = None  # student metric / teacher metric
    margin: float | None = None  # by which the student may be worse than its teacher
    baseline: bool = False  # the student has to beat the same student trained without the teacher
    majority: bool = False  # the student has to beat the most frequent label, given to everything
    slice_quality: float | None = None  # on every declared slice
    slice_margin: float | None = None  # by which it may be worse than its teacher on any declared slice
    min_slice_items: int = 30  # labelled; a slice of fewer is never green
    min_items: int = 100  # labelled, of the whole test set
    copied_errors: float | None = None  # greatest share of the teacher's errors that the student repeats
    ece: float | None = None  # greatest expected calibration error
    parameters: int | None = None  # of the student, at most
    model_bytes: int | None = None
    contamination: float | None = None  # greatest share of test items that are in the training data as well
    clean: bool = False  # `quality` has to hold on the items that are not in the training data
    found_slices: float | None = None  # greatest error rate of a slice that was searched for
    min_seeds: int | None = None  # runs that differ in their seed alone
    alpha: float = 0.05  # of every test; intervals are at 95 %
    max_openings: int = 10  # of one test set; more, and a warning says so
    slices: dict[str, Any] = field(default_factory=dict)  # declared beyond data.slices: name -> _target_ and options
    prices: PricesConfig = field(default_factory=PricesConfig)

    @property
    def asks(self) -> bool:
        return self.name is not None
