"""What the teacher says of the first examples, looked at before training: faults that would train without an error."""

# N rows, C classes

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from scipy.stats import binomtest
from torch import Tensor

from potstill.config.schema import TrainConfig
from potstill.data.batch import IGNORE, Batch
from potstill.data.microbatch import cut
from potstill.errors import UserError
from potstill.losses.distributions import log_softmax
from potstill.losses.terms import DivergenceTerm
from potstill.models.task import Task
from potstill.module import DistillationModule
from potstill.signals.cached import caches_within
from potstill.signals.protocol import Signal

log = logging.getLogger(__name__)

SATURATED, USEFUL = 0.999, 0.9  # mean probability of the first class: above, the target is a label; a useful target's
MAX_TEMPERATURE = 1e4
CHUNK, MIN_ROWS, MAX_ROWS, MAX_BATCHES = 16, 100, 256, 20  # examples at once; labelled rows; batches to find them in
CHANCE, SURE = 0.05, 1e-4  # probability of a guess to be right as often: above, it may be one; below, it is none
SUM_TOLERANCE = 1e-2  # of bfloat16 probabilities over many classes


def check_teacher(config: TrainConfig, module: DistillationModule, batches: Iterable[Batch]) -> None:
    """Raises UserError for targets that are not finite or no logits; warns of those that teach nothing.

    batches: of the training data. A teacher that knows the labels is known by the first few examples, and no others
    are asked about; each term's temperature is looked at on these.
    """
    if not (module.teacher and module.objective.needs_teacher.logits):
        return
    known_in_part = [module.teacher, *caches_within(module.teacher)]
    if any(getattr(source, "is_sparse", False) for source in known_in_part):
        return  # they are looked at when they are put away (`signals/cached.py`), or were read (`commands/recorded.py`)
    hits: dict[str, Hits] = {}
    for number, chunk in enumerate(_labelled_first(batches, module.task)):
        targets = _targets(module.teacher.signal(chunk, module.objective.needs_teacher))
        labels_N = module.task.row_labels(chunk)
        for key, (logits_NC, rows_N) in targets.items():
            _refuse_faults(key, config, logits_NC)
            seen = hits.setdefault(key, Hits(logits_NC.shape[-1]))
            seen.add(logits_NC, labels_N[rows_N])
            if number == 0:
                _warn_saturated(key, module, logits_NC)
        if all(seen.num_rows >= MAX_ROWS or seen.guess_probability <= SURE for seen in hits.values()):
            break
    for key, seen in hits.items():
        if seen.num_rows >= MIN_ROWS and seen.guess_probability > CHANCE:
            log.warning(
                "%s agrees with %d of %d gold labels, no better than a guess among %d classes (%.1f expected). Has it "
                "learned this task, and are its labels (id2label in its config.json) in the order of its columns?",
                *(key, seen.num_right, seen.num_rows, seen.num_classes, seen.num_rows / seen.num_classes),
            )


@dataclass
class Hits:
    """How many labelled rows a teacher was asked about, and of how many its first class was the label."""

    num_classes: int
    num_rows: int = 0
    num_right: int = 0

    def add(self, logits_NC: Tensor, labels_N: Tensor) -> None:
        labelled_N = labels_N != IGNORE
        self.num_rows += int(labelled_N.sum())
        self.num_right += int((logits_NC.argmax(dim=-1) == labels_N)[labelled_N].sum())

    @property
    def guess_probability(self) -> float:
        """Of a guess among the classes to be right as often, or more often."""
        if not self.num_rows:
            return 1.0
        return float(binomtest(self.num_right, self.num_rows, 1.0 / self.num_classes, alternative="greater").pvalue)


def _labelled_first(batches: Iterable[Batch], task: Task) -> Iterator[Batch]:
    """A few examples of the first batch, whatever they are; then labelled ones, a few at a time."""
    size = 4 if task.is_causal else CHUNK  # a text has many rows
    for number, batch in enumerate(islice(batches, MAX_BATCHES)):
        if number == 0:
            yield cut(batch, size, None)[0]
            batch = batch.take(range(min(size, len(batch)), len(batch)))
        has_label = (batch.labels != IGNORE).flatten(1).any(dim=1) if task.is_causal else batch.labels != IGNORE
        labelled = has_label.nonzero().flatten().tolist()
        for start in range(0, len(labelled), size):
            yield batch.take(labelled[start : start + size])


def _targets(signal: Signal) -> Mapping[str, tuple[Tensor, Tensor | slice]]:
    """By key in the config: logits, and which rows they are of."""
    if signal.members:
        return {f"teacher.members.{name}": (each.logits, each.rows) for name, each in signal.members.items()}
    assert signal.logits is not None
    return {"teacher": (signal.logits, slice(None))}


def _refuse_faults(key: str, config: TrainConfig, logits_NC: Tensor) -> None:
    path, rows = config.teacher.models[key].path if key in config.teacher.models else None, len(logits_NC)
    bad = int((~logits_NC.isfinite()).any(dim=-1).sum())
    if bad:
        problem = f"gives logits that are NaN or infinite, in {bad} of the first {rows} rows."
        fix = f"Its weights may be damaged; float16 overflows where {key}.dtype=float32 or bfloat16 does not."
        raise UserError(f"{key}.path", path, problem, fix)
    sums_N = logits_NC.float().sum(dim=-1)
    if rows and logits_NC.min() >= 0.0 and logits_NC.max() <= 1.0 and ((sums_N - 1.0).abs() < SUM_TOLERANCE).all():
        problem = f"gives probabilities where logits are due: all of the first {rows} rows lie in [0, 1] and sum to 1."
        fix = "Softmax would flatten them. Take the model without its last softmax, or its logarithm: these are logits."
        raise UserError(f"{key}.path", path, problem, fix)


def _warn_saturated(key: str, module: DistillationModule, logits_NC: Tensor) -> None:
    """Of each term with a temperature, at the temperature that it begins with."""
    for name, term in module.objective.terms.items():
        if not isinstance(term, DivergenceTerm) or not len(logits_NC):
            continue
        option = "temperature" if getattr(term, "teacher_temperature", None) is None else "teacher_temperature"
        temperature, (seen_NC, _) = getattr(term, option), term.seen(logits_NC, logits_NC)
        certainty = sharpness(seen_NC, temperature)
        if certainty > SATURATED:
            log.warning(
                "loss.term.%s.%s=%g: %s is so certain that its targets are hard labels (mean probability of the first "
                "class %.5f, over %d rows). %s",
                *(
                    name,
                    option,
                    temperature,
                    key,
                    certainty,
                    len(seen_NC),
                    _softer(f"loss.term.{name}.{option}", seen_NC),
                ),
            )


def _softer(key: str, logits_NC: Tensor) -> str:
    temperature = softening_temperature(logits_NC)
    if temperature is None:
        return "No temperature would help."
    return f"{key}={temperature:.2g} would make it {USEFUL}."


def sharpness(logits_NC: Tensor, temperature: float) -> float:
    """Mean probability of each row's first class."""
    return float(log_softmax(logits_NC, temperature).exp().amax(dim=-1).mean())


def softening_temperature(logits_NC: Tensor) -> float | None:
    """The temperature at which the sharpness is USEFUL, by bisection; None where none is high enough."""
    low, high = 1e-3, MAX_TEMPERATURE
    if sharpness(logits_NC, high) > USEFUL:
        return None
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if sharpness(logits_NC, middle) > USEFUL else (low, middle)
    return high
