"""What `potstill generate` may be told. As in `schema`, YAML fills these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from potstill.config.schema import DataConfig
from potstill.generation.terms import Terms


@dataclass
class GenerateRunConfig:
    name: str = MISSING
    dir: str = MISSING


@dataclass
class PriceConfig:
    input_per_million: float | None = None  # tokens, in whatever currency budget.money is
    output_per_million: float | None = None


@dataclass
class TextTeacherConfig:
    endpoint: dict[str, Any] = field(default_factory=dict)
    model: str = MISSING  # as the endpoint calls it
    revision: str = MISSING  # declared: an endpoint does not say when it changes what stands behind a name
    terms: Terms = field(default_factory=Terms)
    price: PriceConfig = field(default_factory=PriceConfig)


@dataclass
class JudgeConfig:
    prompt: str | None = None  # Jinja; sees the row's columns, and prompt, answer, rationale, raw, gold; null: no judge
    accept: str = "^yes"  # a regular expression that a verdict in favour matches
    max_tokens: int = 16


@dataclass
class GenerationConfig:
    api: str = "chat"  # chat | completions
    system: str | None = None  # Jinja, as all three
    prompt: str = MISSING
    gold: str | None = None  # the answer, where the row has it
    answer_pattern: str | None = None  # groups: answer, perhaps rationale; null: all that is said
    labels: list[str] = field(default_factory=list)  # the answers there are; templates see them; empty: any answer
    limit: int | None = None  # rows that are asked about: the first by the hash of their content
    samples: int = 1  # a prompt
    choices_per_request: int = 1  # the API's n
    max_tokens: int = 512
    max_tokens_field: str = "max_tokens"  # newer endpoints: max_completion_tokens
    temperature: float | None = 0.0  # null: not sent
    top_p: float | None = None
    seed: int | None = None  # of the first sample; the others count on
    stop: list[str] = field(default_factory=list)
    body: dict[str, Any] = field(default_factory=dict)  # whatever else is sent: logprobs, response_format, ...
    filters: dict[str, Any] = field(default_factory=dict)  # in their order
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    test_manifest: str | None = None  # one hash a line, of texts that must not be prompts
    shard_rows: int = 50_000


@dataclass
class LedgerConfig:
    dir: str = MISSING
    max_mb: float | None = None


@dataclass
class BudgetConfig:
    calls: int | None = None
    tokens: int | None = None
    money: float | None = None


@dataclass
class LimitsConfig:
    start: int = 4  # requests in flight
    maximum: int = 64
    latency_tolerance: float = 3.0  # times the latency of the beginning
    attempts: int = 5  # at one request; refusals for the rate and missing connections count as none
    request_s: float = 300.0
    row_s: float | None = None  # over all attempts
    run_s: float | None = None
    give_up_s: float = 900.0  # without a single answer
    first_wait_s: float = 0.5
    longest_wait_s: float = 8.0  # between two tries, where the endpoint does not say
    breaker_failures: int = 5  # in a row
    retry_refused: bool = False  # ask again what an earlier start was refused


@dataclass
class GenerateConfig:
    run: GenerateRunConfig = field(default_factory=GenerateRunConfig)
    teacher: TextTeacherConfig = field(default_factory=TextTeacherConfig)
    data: DataConfig = field(default_factory=DataConfig)  # of which the source is read; templates name its columns
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    ledger: LedgerConfig = field(default_factory=LedgerConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    logger: dict[str, Any] | None = None
    report_every_s: float = 10.0  # where there is no terminal
    status: bool = False  # only say where the generation stands; the flag --status sets it
