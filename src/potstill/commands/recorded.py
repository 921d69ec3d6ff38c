"""From the log-probabilities beside a text to the teacher of a student that reads it."""

from __future__ import annotations

import inspect
import logging

from potstill.commands.shared import Source
from potstill.config.schema import TrainConfig
from potstill.data.batch import IGNORE
from potstill.data.columns import LOGPROBS
from potstill.data.token_logprobs import KEY, Vocabulary, all_known
from potstill.errors import UserError
from potstill.objective import Objective
from potstill.signals.recorded import RecordedTeacher

log = logging.getLogger(__name__)

GIVEN = ("teacher_logits", "teacher_sparse")


def check_recorded(config: TrainConfig, objective: Objective) -> None:
    """Raises UserError where there is another teacher as well, or a term needs more than some classes of each token."""
    column = config.data.columns.logprobs
    if column is None or not objective.is_taught:
        return
    if config.teacher.models:
        problem = "is what one teacher said, and teacher.path names another."
        raise UserError(KEY, column, problem, f"Set {KEY}=null, or teacher=none")
    for name, term in objective.terms.items():
        asked = [each for each in inspect.signature(term.forward).parameters if each.startswith("teacher_")]
        if set(asked) - set(GIVEN):
            problem = f"knows some classes of each token alone, and loss.term.{name} needs more of a teacher."
            raise UserError(KEY, column, problem, "Choose loss=kd, reverse_kl or jsd.")
    objective.refuse_sparse(KEY, column, "Choose loss=kd, reverse_kl or jsd.")


def recorded_teacher(source: Source) -> RecordedTeacher:
    """What is on record of every training example, packed. Raises UserError where it is of other tokens."""
    assert source.tokenizer is not None
    table, view = source.data.examples["train"], source.data.view("train")
    labels = [[label for label in row[1:] if label != IGNORE] for row in table["labels"][:]]
    keys = (view[[place]].keys[0] for place in range(len(table)))
    known = all_known(Vocabulary(source.tokenizer), table[LOGPROBS][:], labels)
    teacher = RecordedTeacher(zip(keys, known, strict=True), len(source.tokenizer))
    size = sum(len(stored.data) for stored in teacher.records.values())
    log.info("Log-probabilities of the teacher: %d examples, %.1f MB.", len(teacher.records), size / 1e6)
    return teacher
