"""The prompts of a test set, and what teacher, student and the others write to them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from potstill.commands.prompts import Prompts, chosen_prompts, has_prompts
from potstill.commands.shared import Source
from potstill.config.schema import AnswersConfig
from potstill.errors import UserError, nearest_hint
from potstill.evaluation.answering import Decoding, can_write, num_positions, write
from potstill.evaluation.answers import JUDGED, Generated, judge_answers
from potstill.evaluation.generation import FINAL, final_number
from potstill.evaluation.predict import ModelUnderTest

log = logging.getLogger(__name__)

NO_METRIC = "none"
NUMBER_FORM = rf"{FINAL}\s*\$?-?\d"
NO_WEIGHTS = "no teacher with weights was loaded: give teacher_path=PATH, a directory or a hub name"
SEVERAL = "it is several models together, which write no text"


@dataclass(frozen=True)
class Plan:
    """Who answers what. judged_by: a key of `JUDGED`, or `none`. num_prompts: of the test set, of which these are
    chosen. without: why some models write nothing.
    """

    prompts: Prompts
    judged_by: str
    form: str | None
    num_prompts: int
    max_new_tokens: int
    batch_size: int
    without: dict[str, str]


def plan_answers(options: AnswersConfig, models: Mapping[str, ModelUnderTest], source: Source) -> Plan | None:
    """None where no answers are asked for, or where the data has no prompts.

    Raises UserError for options that cannot be, would have no effect, or leave no room to write.
    """
    _check(options)
    if not has_prompts(source):
        _refuse_without_prompts(options)
    prompts = chosen_prompts(source, options.limit)
    if prompts is None:
        return None
    judged_by = _judged_by(options, prompts.references)
    without = {} if "teacher" in models else {"teacher": NO_WEIGHTS}
    without |= {name: SEVERAL for name, tested in models.items() if not can_write(tested)}
    return Plan(
        prompts,
        judged_by,
        options.form or (NUMBER_FORM if judged_by == "number" and _is_marked(prompts.references) else None),
        source.data.num_examples("test"),
        _room(options, models, max(map(len, prompts.ids))),
        options.batch_size,
        without,
    )


def write_answers(plan: Plan | None, models: Mapping[str, ModelUnderTest], source: Source) -> Generated | None:
    """Every model on the same prompts, its answers read by the same rule."""
    if plan is None:
        return None
    assert source.tokenizer is not None
    prompts, written = plan.prompts, {}
    decoding = Decoding(source.tokenizer, plan.max_new_tokens, plan.batch_size, prompts.ends)
    for name, tested in models.items():
        if name not in plan.without:
            log.info("%s: answers to %d of %d prompts", name, len(prompts.ids), plan.num_prompts)
            written[name] = write(tested, prompts.ids, decoding)
    has_metric = plan.judged_by != NO_METRIC
    judged_by = plan.judged_by if has_metric else "text"
    answers = judge_answers(
        written,
        prompts.references,
        prompts.example,
        source.data.num_examples("test"),
        judged_by=judged_by,
        is_valid=_has(plan.form),
    )
    about = {
        "metric": JUDGED[judged_by][0] if has_metric else None,
        "n": len(prompts.ids),
        "num_prompts": plan.num_prompts,
        "max_new_tokens": plan.max_new_tokens,
        "form": plan.form,
        "without": plan.without,
    }
    return Generated(answers, about["metric"], about)


def _check(options: AnswersConfig) -> None:
    for name, least in (("limit", 0), ("max_new_tokens", 1), ("batch_size", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"generate.{name}", value, f"must be at least {least}.", f"For example: generate.{name}=16")
    choices = (*JUDGED, NO_METRIC)
    if options.answer is not None and options.answer not in choices:
        problem = "is no way to judge an answer."
        raise UserError("generate.answer", options.answer, problem, nearest_hint(options.answer, choices))
    try:
        _has(options.form)
    except re.error as error:
        problem = f"is no regular expression: {error}."
        raise UserError("generate.form", options.form, problem, "See Python's re.") from error


def _refuse_without_prompts(options: AnswersConfig) -> None:
    """Options that were given would have no effect."""
    for name, value in vars(options).items():
        if options.limit != 0 and value != getattr(AnswersConfig(), name):
            problem = "has no effect: the run's data has neither prompts with completions nor conversations to answer."
            fix = "Leave it out, or train with data.columns.prompt and .completion, or with data.columns.messages."
            raise UserError(f"generate.{name}", value, problem, fix)


def _judged_by(options: AnswersConfig, references: list[str]) -> str:
    """As asked for; else by number where every reference marks one, and by nothing where one does not."""
    has_number = [final_number(reference) is not None for reference in references]
    if options.answer is None:
        return "number" if _is_marked(references) and all(has_number) else NO_METRIC
    if options.answer == "number" and not any(has_number):
        problem = "judges answers by their number, and no reference holds one."
        raise UserError("generate.answer", options.answer, problem, "Set generate.answer=text, or none")
    return options.answer


def _is_marked(references: list[str]) -> bool:
    return all(FINAL in reference for reference in references)


def _room(options: AnswersConfig, models: Mapping[str, ModelUnderTest], longest: int) -> int:
    """Tokens an answer may have: as many as are asked for and as every model has positions for."""
    limits = {name: num_positions(tested) for name, tested in models.items() if can_write(tested)}
    known = {name: limit for name, limit in limits.items() if limit is not None}
    if not known:
        return options.max_new_tokens
    name = min(known, key=lambda each: known[each])
    room = known[name] - longest
    if room < 1:
        problem = f"cannot be written: the longest prompt fills all {known[name]} positions of the {name} ({longest})."
        fix = "Train with a shorter data.max_length, or set generate.limit=0"
        raise UserError("generate.max_new_tokens", options.max_new_tokens, problem, fix)
    if room < options.max_new_tokens:
        text = "Answers end after %d tokens, not generate.max_new_tokens=%d: the %s has %d positions."
        log.warning(text, room, options.max_new_tokens, name, known[name])
    return min(room, options.max_new_tokens)


def _has(form: str | None) -> Callable[[str], bool] | None:
    if form is None:
        return None
    pattern = re.compile(form)
    return lambda text: pattern.search(text) is not None
