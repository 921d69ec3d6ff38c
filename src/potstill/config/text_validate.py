"""Values and combinations of `potstill generate` that types cannot refuse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from potstill.config.text_schema import GenerateConfig
from potstill.config.validate import COPIES
from potstill.errors import UserError, nearest_hint

APIS = ("chat", "completions")
TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")
OWN_FIELDS = ("model", "messages", "prompt", "temperature", "top_p", "seed", "stop", "n", "stream", *TOKEN_FIELDS)

READ_OF_DATA = ("data.source", "data.drop_copies")

POSITIVE = (
    *("generation.samples", "generation.choices_per_request", "generation.max_tokens", "generation.shard_rows"),
    "generation.limit",
    *("ledger.max_mb", "limits.start", "limits.maximum", "limits.attempts", "limits.breaker_failures"),
    *("limits.request_s", "limits.row_s", "limits.run_s", "limits.give_up_s", "report_every_s"),
)
NOT_NEGATIVE = (
    *("budget.calls", "budget.tokens", "budget.money", "limits.first_wait_s", "limits.longest_wait_s"),
    *("teacher.price.input_per_million", "teacher.price.output_per_million", "generation.temperature"),
)


def validate_generation(config: GenerateConfig) -> None:
    """Raises UserError for the first thing that could not work, or would work in silence on something else."""
    for key in POSITIVE:
        if (value := _value(config, key)) is not None and not value > 0:
            raise UserError(key, value, "must be greater than zero.", f"Give a positive number: {key}=1")
    for key in NOT_NEGATIVE:
        if (value := _value(config, key)) is not None and not value >= 0:
            raise UserError(key, value, "must not be negative.", f"For example: {key}=1")
    _one_of("generation.api", config.generation.api, APIS)
    _one_of("generation.max_tokens_field", config.generation.max_tokens_field, TOKEN_FIELDS)
    if config.data.drop_copies is not None:
        _one_of("data.drop_copies", config.data.drop_copies, COPIES)
    _generation(config)
    _limits(config)
    _prices(config)


def refuse_unread(overrides: Iterable[str]) -> None:
    """An option of `data` that only a training reads. In a file it may stand: one file of data is for both."""
    for text in overrides:
        key, _, value = text.lstrip("+~").partition("=")
        if key.startswith("data.") and not key.startswith(READ_OF_DATA):
            problem = "is read by trainings, not by a generation: it would have no effect."
            raise UserError(key, value, problem, f"Leave it out. Read here: {', '.join(READ_OF_DATA)}")


def _value(config: GenerateConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(key, value, "is not one of the choices.", nearest_hint(value, choices))


def _generation(config: GenerateConfig) -> None:
    options = config.generation
    for name in options.body:
        if name in OWN_FIELDS:
            problem = "is set by potstill, from an option of its own."
            fix = "Set generation.choices_per_request" if name == "n" else f"Set generation.{name}, or leave it out."
            raise UserError(f"generation.body.{name}", options.body[name], problem, fix)
    if options.choices_per_request > options.samples:
        problem = f"is more than generation.samples={options.samples}."
        fix = f"Set generation.samples={options.choices_per_request}"
        raise UserError("generation.choices_per_request", options.choices_per_request, problem, fix)
    if options.samples > 1 and options.temperature == 0:
        problem = "with generation.temperature=0, which says the same every time, and each is paid for."
        raise UserError("generation.samples", options.samples, problem, "Set generation.temperature=0.7")
    if options.filters.get("gold") and not options.gold:
        problem = "compares with the gold answer, and there is none."
        raise UserError("generation.filters.gold", "", problem, "Set generation.gold='{{ COLUMN }}'")
    if options.filters.get("vote") and options.samples < 2:
        problem = "needs several samples to vote."
        raise UserError("generation.filters.vote", "", problem, "Set generation.samples=5 generation.temperature=0.7")


def _limits(config: GenerateConfig) -> None:
    limits = config.limits
    if limits.start > limits.maximum:
        problem = f"is more than limits.maximum={limits.maximum}."
        raise UserError("limits.start", limits.start, problem, f"Set limits.start={limits.maximum}")
    if limits.latency_tolerance <= 1:
        problem = "must be greater than 1: no latency is ever below its own beginning."
        raise UserError("limits.latency_tolerance", limits.latency_tolerance, problem, "For example: 3.0")


def _prices(config: GenerateConfig) -> None:
    price = config.teacher.price
    if config.budget.money is not None and None in (price.input_per_million, price.output_per_million):
        problem = "is a cap on money, and what tokens cost is not said."
        fix = "Set teacher.price.input_per_million=... teacher.price.output_per_million=..."
        raise UserError("budget.money", config.budget.money, problem, fix)
