from __future__ import annotations

import pytest

from potstill.config.build import build
from potstill.config.compose import composed
from potstill.errors import UserError
from potstill.generation.filters import Gold, Vote, apply, last_number
from potstill.generation.parse import Choice
from potstill.generation.sample import Sample


def sample(text: str = "fine", *, answer: str | None = "", gold: str | None = None, **choice: object) -> Sample:
    given = {"rationale": None, "reasoning": None, "finish_reason": "stop", **choice}
    said = Choice(text, text if answer == "" else answer, **given)  # type: ignore[arg-type]
    return Sample(index=0, row={}, number=0, prompt="ask", gold=gold, request=b"k", choice=said)


@pytest.mark.parametrize(
    ("name", "options", "bad"),
    [
        ("Truncated", {}, sample(finish_reason="length")),
        ("Empty", {}, sample("  ", reasoning="long thoughts")),
        ("Refusal", {"patterns": ["i'm sorry"]}, sample("I'm sorry, but I cannot.")),
        ("Malformed", {}, sample("no mark", answer=None)),
        ("Malformed", {"json": True}, sample("{not json")),
        ("TooLong", {"max_characters": 10}, sample("eleven char")),
        ("TooLong", {"max_characters": 10}, sample("short", reasoning="but thought long")),
        ("Canary", {"strings": ["26b5c67b"]}, sample("text with 26b5c67b in it")),
        ("Gold", {"compare": "numeric"}, sample("it is 5", gold="4")),
    ],
)
def test_each_filter_drops_what_it_is_for_and_nothing_else(name, options, bad):
    node = {"_target_": f"potstill.generation.filters.{name}", **options}
    good = sample('"4"', gold="4")
    kept, dropped = apply({"it": build(node, "key")}, [good, bad])
    assert kept == [good]
    assert [(each, reason.startswith("it: ")) for each, reason in dropped] == [(bad, True)]


def test_the_same_words_to_the_same_prompt_are_kept_once():
    node = {"_target_": "potstill.generation.filters.Duplicate"}
    kept, dropped = apply({"duplicate": build(node, "key")}, [sample("a"), sample("a"), sample("b")])
    assert (len(kept), len(dropped)) == (2, 1)


def test_votes_keep_the_majority_and_say_how_large_it_was():
    samples = [sample("4"), sample("4."), sample("5")]
    kept, dropped = apply({"vote": Vote(0.5)}, samples)
    assert [each.choice.text for each in kept] == ["4", "4."]
    assert kept[0].agreement == pytest.approx(2 / 3)
    assert dropped[0][1] == "vote: outvoted"


def test_a_tie_or_a_thin_majority_keeps_nothing():
    assert apply({"vote": Vote(0.5)}, [sample("4"), sample("5")])[0] == []
    assert apply({"vote": Vote(0.9)}, [sample("4"), sample("4"), sample("5")])[0] == []


def test_no_gold_drops_nothing():
    assert apply({"gold": Gold()}, [sample("4")])[1] == []


@pytest.mark.parametrize(
    ("text", "number"), [("so 1,200.0 in all", "1200"), ("-3", "-3"), ("none", ""), ("1 or 2", "2")]
)
def test_numbers_are_compared_by_value(text, number):
    assert last_number(text) == number


def test_the_preset_drops_common_refusals():
    config = composed("generate", ["teacher=local_text"])
    refusal = build(dict(config.generation.filters.refusal), "key")
    texts = ["I'm sorry, but no.", "I cannot help with that", "As an AI model, I", "Sorry state of affairs"]
    assert [bool(reason) for reason in refusal.reasons([sample(text) for text in texts])] == [True, True, True, False]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Refusal", {"patterns": ["("]}),
        ("Refusal", {"patterns": []}),
        ("Canary", {"strings": [""]}),
        ("Gold", {"compare": "numbers"}),
        ("Vote", {"min_share": 0.0}),
        ("TooLong", {"max_characters": 0}),
    ],
)
def test_options_that_drop_everything_or_nothing_are_refused(name, options):
    with pytest.raises(UserError):
        build({"_target_": f"potstill.generation.filters.{name}", **options}, "key")
