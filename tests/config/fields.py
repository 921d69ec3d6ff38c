"""The fields of a config, and where the tests of those of `potstill evaluate` are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from potstill.evaluation.bar import BarConfig, PricesConfig


def fields(kind: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(kind):
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else None
        if dataclasses.is_dataclass(default):
            yield from fields(default, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


OF_TEXT = {
    "data.columns.logprobs": ("data/test_token_logprobs.py", "test_a_student_of_logprobs_gets_what_its_teacher_gave"),
    "data.columns.weight": ("data/test_weights.py", "test_weights_of_the_training_examples_are_in_their_batches"),
    "data.balance_by": (
        "data/test_generated.py",
        "test_answer_and_rationale_are_two_tasks_and_each_counts_by_its_weight",
    ),
    "data.columns.group": ("data/test_columns.py", "test_a_group_stays_on_one_side_of_every_split"),
}
OF_EVALUATION = {
    "data.keep_near_together": ("data/test_clusters.py", "test_the_option_decides"),
    **dict.fromkeys(
        ["evaluate.models", "evaluate.seeds", "evaluate.mixes", "evaluate.ledger"],
        ("integration/test_verdict.py", "test_an_evaluation_says_no_says_it_again_and_counts_both"),
    ),
    "evaluate.teacher_path": (
        "integration/test_answers.py",
        "test_answers_are_in_the_evaluation_and_in_all_that_is_made_of_it",
    ),
    "evaluate.generate.limit": (
        "commands/test_answers.py",
        "test_a_limit_takes_the_same_prompts_however_the_file_is_sorted",
    ),
    **dict.fromkeys(
        ["evaluate.generate.answer", "evaluate.generate.form"],
        ("commands/test_answers.py", "test_answers_are_judged_by_their_number_where_references_mark_one"),
    ),
    **dict.fromkeys(
        ["evaluate.generate.max_new_tokens", "evaluate.generate.batch_size"],
        ("commands/test_answers.py", "test_all_models_get_the_room_that_the_smallest_has"),
    ),
    "evaluate.quantised": ("integration/test_verdict.py", "test_the_student_in_eight_bits_is_a_column"),
    **{
        f"evaluate.{name}": ("evaluation/test_gates.py", "test_every_field_of_a_bar_decides_something")
        for name in fields(BarConfig, "bar.")
    },
    **dict.fromkeys(
        [f"evaluate.bar.prices.{each.name}" for each in dataclasses.fields(PricesConfig)],
        ("evaluation/test_economics.py", "test_a_price_that_nobody_knows_is_not_taken_for_nothing"),
    ),
    "recipe.bar_preset": ("integration/test_recipe.py", "test_a_recipe_ends_with_the_exit_code_of_its_verdict"),
}
