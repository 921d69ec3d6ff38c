"""Every option of `potstill generate` has an effect. A field that its schema gains and no test knows is an error."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest

from potstill.commands.generation import assemble, filters
from potstill.config.compose import composed, typed
from potstill.config.schema import DataConfig
from potstill.config.text_schema import BudgetConfig, GenerateConfig
from potstill.config.text_validate import READ_OF_DATA, refuse_unread, validate_generation
from potstill.errors import UserError
from potstill.generation import engine
from potstill.generation.asking import budget_of, limiter_of
from potstill.generation.parse import Choice
from potstill.generation.sample import Sample
from potstill.generation.terms import REQUIRED
from tests.config.fields import fields
from tests.generation.servers import endpoint, overrides, prompts_file

TESTS = Path(__file__).resolve().parent.parent
DATA = "data.source.train={data}"
GIVEN = ["teacher.model=m", "teacher.revision='1'", "teacher.endpoint.base_url=http://x/v1"]
GIVEN += ["teacher.endpoint.api_key_env=null", "generation.temperature=0.5"]
JUDGED = ["generation.judge.prompt='Is {{{{ answer }}}} right?'"]


class Built:
    """What a config builds, each part when it is asked for."""

    def __init__(self, given: list[str]) -> None:
        self.config = typed(composed("generate", given), GenerateConfig)
        validate_generation(self.config)

    @cached_property
    def parts(self) -> Any:
        return assemble(self.config, None)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in self.parts.plan.requests()]

    @property
    def keys(self) -> list[bytes]:
        return [request.key for request in self.parts.plan.requests()]

    @property
    def golds(self) -> list[str | None]:
        return [prompt.gold for prompt in self.parts.plan.prompts()]

    def judge(self, said: str = "maybe") -> tuple[str, str | None]:
        """What the judge is asked of an answer, and why it would drop it, having `said` that."""
        choice = Choice("4", "4", None, None, "stop")
        sample = Sample(index=0, row={"text": "a"}, number=0, prompt="a", gold=None, request=b"k", choice=choice)
        raw = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        judge = self.parts.judge
        return (judge.request(sample).body, judge._reason("done", raw, None)) if judge else ("", None)


@cache
def build_once(given: tuple[str, ...]) -> Built:
    """Most options are changed in one and the same config."""
    return Built([*GIVEN, *given])


def field_of(*names: str) -> Callable[[Built], Any]:
    """What every request says under one of `names`."""
    return lambda built: [{name: body.get(name) for name in names} for body in built.bodies]


# key: (config to begin with, change, what it has to change)
EFFECTS: dict[str, tuple[list[str], str, Callable[[Built], Any]]] = {
    "run.name": ([], "run.name=mine", lambda built: built.config.run.dir if built.config.run.name == "mine" else ""),
    "teacher.endpoint": ([], "teacher.endpoint.base_url=http://y/v1", lambda built: built.keys),
    "teacher.model": ([], "teacher.model=n", field_of("model")),
    "teacher.revision": ([], "teacher.revision='2'", lambda built: built.keys),
    "teacher.price.input_per_million": (
        *([], "teacher.price.input_per_million=3.0"),
        lambda built: budget_of(built.config).prices.of(10, 10),
    ),
    "teacher.price.output_per_million": (
        *([], "teacher.price.output_per_million=3.0"),
        lambda built: budget_of(built.config).prices.of(10, 10),
    ),
    "data.source": ([], "data.source.train={more}", lambda built: len(built.parts.plan.table)),
    "generation.api": ([], "generation.api=completions", lambda built: (field_of("prompt")(built), built.keys)),
    "generation.system": ([], "generation.system='Be {{{{ kind }}}}.'", field_of("messages")),
    "generation.prompt": ([], "generation.prompt='{{{{ kind }}}}'", field_of("messages")),
    "generation.gold": ([], "generation.gold='{{{{ kind }}}}'", lambda built: built.golds),
    "generation.answer_pattern": (
        *([], "generation.answer_pattern='A: (?P<answer>.*)'"),
        lambda built: built.parts.plan.pattern,
    ),
    "generation.labels": (
        *(["generation=label", "generation.labels=[a,b]"], "generation.labels=[A,c]"),
        lambda built: (field_of("messages")(built), built.parts.plan.labels and built.parts.plan.labels.spelled("a")),
    ),
    "generation.limit": ([], "generation.limit=1", lambda built: len(built.parts.plan.table)),
    "generation.samples": ([], "generation.samples=3", lambda built: len(built.bodies)),
    "generation.choices_per_request": (
        *(["generation.samples=4"], "generation.choices_per_request=2"),
        lambda built: (len(built.bodies), field_of("n")(built)),
    ),
    "generation.max_tokens": ([], "generation.max_tokens=7", field_of("max_tokens")),
    "generation.max_tokens_field": (
        *([], "generation.max_tokens_field=max_completion_tokens"),
        field_of("max_tokens", "max_completion_tokens"),
    ),
    "generation.temperature": ([], "generation.temperature=null", field_of("temperature")),
    "generation.top_p": ([], "generation.top_p=0.9", field_of("top_p")),
    "generation.seed": ([], "generation.seed=5", field_of("seed")),
    "generation.stop": ([], "generation.stop=[END]", field_of("stop")),
    "generation.body": ([], "+generation.body.logprobs=true", field_of("logprobs")),
    "generation.filters": ([], "generation.filters.empty=null", lambda built: list(filters(built.config))),
    "generation.judge.prompt": ([], JUDGED[0], lambda built: built.judge()),
    "generation.judge.accept": (JUDGED, "generation.judge.accept=maybe", lambda built: built.judge()),
    "generation.judge.max_tokens": (JUDGED, "generation.judge.max_tokens=2", lambda built: built.judge()),
    **{
        f"budget.{each.name}": (
            *(["teacher.price={{input_per_million: 1.0, output_per_million: 1.0}}"], f"budget.{each.name}=9"),
            lambda built, name=each.name: getattr(budget_of(built.config), name),
        )
        for each in dataclasses.fields(BudgetConfig)
    },
    "limits.start": ([], "limits.start=9", lambda built: limiter_of(built.config).limit),
    **{
        f"limits.{name}": ([], f"limits.{name}=11", lambda built, name=name: getattr(limiter_of(built.config), name))
        for name in ("maximum", "latency_tolerance", "breaker_failures", "give_up_s")
    },
}

GENERATE = "generation/test_generate.py"
# Fields whose effect another test shows: file, function.
ELSEWHERE = {
    "run.dir": (GENERATE, "test_an_override_of_the_terms_stays_in_manifest_report_and_card"),
    **dict.fromkeys(
        [f"teacher.terms.{name}" for name in REQUIRED],
        ("generation/test_terms.py", "test_nothing_is_asked_while_a_field_is_empty"),
    ),
    "teacher.terms.duties": ("generation/test_terms.py", "test_conditions_without_duties_are_refused"),
    "teacher.terms.override_reason": (GENERATE, "test_an_override_of_the_terms_stays_in_manifest_report_and_card"),
    "data.drop_copies": ("generation/test_overlap.py", "test_prompts_that_stand_in_test_are_not_asked_and_are_listed"),
    **{
        name: ("config/test_text_effects.py", "test_what_a_generation_does_not_read_is_refused_where_it_is_typed")
        for name in fields(DataConfig, "data.")
        if not name.startswith(READ_OF_DATA)
    },
    "generation.test_manifest": (GENERATE, "test_prompts_that_are_test_items_are_refused_before_anything_is_asked"),
    "generation.shard_rows": (
        *(GENERATE, "test_a_flipped_byte_in_a_shard_is_refused_by_training_and_made_good_from_the_ledger"),
    ),
    "ledger.dir": ("generation/test_real_servers.py", "test_nothing_acknowledged_is_asked_again_after_a_kill"),
    "ledger.max_mb": (GENERATE, "test_a_full_disk_stops_and_nothing_is_paid_for_twice"),
    "limits.attempts": (GENERATE, "test_every_failure_is_what_it_is_and_stops_no_other_row"),
    "limits.request_s": (GENERATE, "test_a_server_that_stops_for_a_while_costs_nothing_but_time"),
    **dict.fromkeys(
        ["limits.row_s", "limits.run_s", "limits.first_wait_s", "limits.longest_wait_s"],
        ("config/test_text_effects.py", "test_deadlines_and_waits_are_those_of_the_config"),
    ),
    "logger": ("config/test_text_effects.py", "test_deadlines_and_waits_are_those_of_the_config"),
    "limits.retry_refused": (GENERATE, "test_every_failure_is_what_it_is_and_stops_no_other_row"),
    "report_every_s": (GENERATE, "test_without_a_terminal_progress_is_lines_of_json"),
    "status": (GENERATE, "test_status_says_where_a_generation_stands"),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("data")
    rows = [{"text": "a", "kind": "brief"}, {"text": "b", "kind": "kind"}]
    tables = {"data": rows, "more": [*rows, {"text": "c", "kind": "sure"}]}
    for name, table in tables.items():
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    return {name: str(directory / f"{name}.jsonl") for name in tables}


@pytest.mark.parametrize("key", EFFECTS)
def test_an_option_changes_what_is_built(key, paths):
    base, change, observe = EFFECTS[key]
    before, after = (
        build_once(tuple(text.format(**paths) for text in [DATA, *texts])) for texts in (base, [*base, change])
    )
    assert observe(before) != observe(after)


def test_what_is_observed_does_not_change_by_itself(paths):
    first, second = (Built([text.format(**paths) for text in [*GIVEN, DATA, *JUDGED]]) for _ in range(2))
    for key, (_, _, observe) in EFFECTS.items():
        assert observe(first) == observe(second), key


@pytest.mark.parametrize("key", [name for name in fields(DataConfig, "data.") if not name.startswith(READ_OF_DATA)])
def test_what_a_generation_does_not_read_is_refused_where_it_is_typed(key):
    with pytest.raises(UserError, match="it would have no effect") as caught:
        refuse_unread(["data=clinc150", "data.source.train=x", "data.drop_copies=exact", f"{key}=1"])
    assert caught.value.key == key


@pytest.mark.slow
def test_an_option_of_the_training_data_is_refused_on_the_command_line(tmp_path, potstill):
    outcome = potstill("generate", *overrides("http://x/v1", prompts_file(tmp_path, ["a"])), "data.max_length=4")
    assert (outcome.code, "not by a generation" in outcome.words) == (2, True)


@pytest.mark.slow
def test_deadlines_and_waits_are_those_of_the_config(tmp_path, potstill, monkeypatch):
    waits: list[tuple[float, float]] = []
    monkeypatch.setattr(engine, "full_jitter", lambda _, first, longest: waits.append((first, longest)) or 0.05)
    with endpoint(tmp_path, delay_s=0.05) as server:
        limits = {"limits__attempts": 1000, "limits__first_wait_s": 0.125, "limits__longest_wait_s": 0.25}
        given = overrides(server.url, prompts_file(tmp_path, ["row", "BROKEN"]), **limits)
        assert potstill("generate", *given, "limits.row_s=0.3").code == 0
        assert "failed: limits.row_s is over" in Path("out/export/dropped.jsonl").read_text()
        assert set(waits) == {(0.125, 0.25)}
        assert not Path("out/metrics.csv").exists()
        outcome = potstill("generate", *given, "limits.run_s=0.5", "logger=csv")
        assert (outcome.code, "limits.run_s=0.5 is over" in outcome.words) == (1, True)
        assert "generate/done" in Path("out/metrics.csv").read_text()


def test_every_field_has_a_test():
    known = {*EFFECTS, *ELSEWHERE}
    assert set(fields(GenerateConfig)) == known
    assert not EFFECTS.keys() & ELSEWHERE.keys()


@pytest.mark.parametrize(("file", "function"), sorted(set(ELSEWHERE.values())))
def test_the_tests_elsewhere_exist(file, function):
    assert f"def {function}(" in (TESTS / file).read_text()
