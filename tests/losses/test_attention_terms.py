"""Terms on queries, keys and values: what they compare, of which layers, and what they refuse before training."""

# P attended positions; B batch, A heads, L length, D width

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from potstill.errors import UserError
from potstill.losses import attention, hidden
from potstill.losses.attention_terms import AttentionTerm, MiniLM, MiniLMv2, TinyBERTAttention, TinyBERTHidden
from potstill.losses.layers import Layers, Part
from potstill.losses.padding import padded
from potstill.losses.tap_terms import LayerTerm
from potstill.objective import Objective, Step

from .registry import STATES

LENGTHS = torch.tensor([4, 1, 3])
LAST: dict[str, Any] = {"student_layer": -1, "teacher_layer": -1}


def layers(num_layers: int, **changes: Any) -> Layers:
    """Layers whose parts are taps of their own: `0.queries` and so on; outputs `0`, `1`; 2 heads."""
    numbers = range(num_layers)
    found = Layers(
        architecture="Example",
        embeddings="embeddings",
        outputs=tuple(map(str, numbers)),
        attention=tuple({state: Part(f"{number}.{state}") for state in STATES} for number in numbers),
        num_heads=2,
        has_plain_scores=True,
    )
    return dataclasses.replace(found, **changes)


def located(term: LayerTerm, student: Layers | None = None, teacher: Layers | None = None) -> Any:
    objective = Objective({"mine": term})
    term.locate(student or layers(2), teacher or layers(4))
    return objective


def make_step(term: LayerTerm, student_width: int = 8, teacher_width: int = 12) -> Step:
    """Three texts of `LENGTHS`, and random outputs at the taps of a located term."""
    generator = torch.Generator().manual_seed(0)

    def draw(paths: tuple[str, ...], width: int) -> dict[str, Tensor]:
        return {path: torch.randn(8, width, generator=generator, dtype=torch.float64) for path in paths}

    student = {path: each.requires_grad_() for path, each in draw(term.student_taps, student_width).items()}
    teacher = draw(term.teacher_taps, teacher_width)
    return Step(None, None, torch.zeros(3), student, teacher, lengths=LENGTHS)


def value(term: LayerTerm, step: Step) -> Tensor:
    objective = Objective({"mine": term})
    objective.prepare(step)
    return objective(step, {"positions": 8})[0]


def examples(states: Tensor) -> Tensor:
    return padded(states, LENGTHS)[0]


MASK = padded(torch.zeros(8, 1), LENGTHS)[1]


def test_relations_are_of_the_chosen_layers_and_states_within_each_text() -> None:
    term = MiniLMv2(student_layer=-1, teacher_layer=-2, num_heads=4, relations=["queries", "values"])
    located(term)
    assert term.student_taps == ("1.queries", "1.values")
    assert term.teacher_taps == ("2.queries", "2.values")
    step = make_step(term)
    student, teacher = (
        [examples(each) for each in taps.values()] for taps in (step.student_hidden, step.teacher_hidden)
    )
    expected = attention.minilm_v2(student, teacher, MASK, num_heads=4).mean()
    torch.testing.assert_close(value(term, step), expected)


def test_a_text_is_compared_as_if_it_were_alone() -> None:
    term = MiniLMv2(**LAST, num_heads=4)
    located(term)
    step = make_step(term)
    together = term(step.student_hidden, step.teacher_hidden, LENGTHS)
    ends = LENGTHS.cumsum(0).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        student, teacher = (
            {path: each[start:end] for path, each in taps.items()}
            for taps in (step.student_hidden, step.teacher_hidden)
        )
        torch.testing.assert_close(term(student, teacher, torch.tensor([end - start])), together[start:end])


def test_several_layers_are_added_up() -> None:
    several, first, second = (
        MiniLMv2(student_layer=mine, teacher_layer=its, num_heads=2) for mine, its in (([0, 1], [1, 3]), (0, 1), (1, 3))
    )
    for term in (several, first, second):
        located(term)
    step = make_step(several)
    torch.testing.assert_close(value(several, step), value(first, step) + value(second, step))


def test_tokens_of_images_are_one_row_an_image() -> None:
    term = MiniLMv2(**LAST, num_heads=2)
    located(term)
    step = make_step(term)
    student, teacher = (
        {path: each.view(2, 4, -1) for path, each in taps.items()}
        for taps in (step.student_hidden, step.teacher_hidden)
    )
    of_images = term(student, teacher, None)
    of_texts = term(step.student_hidden, step.teacher_hidden, torch.tensor([4, 4]))
    torch.testing.assert_close(of_images, of_texts.view(2, 4).mean(dim=1))


def test_minilm_is_the_attention_and_the_value_relation_of_the_last_layers() -> None:
    term = MiniLM(**LAST)
    located(term)
    step = make_step(term)
    parts = [[examples(each) for each in taps.values()] for taps in (step.student_hidden, step.teacher_hidden)]
    scores = [attention.attention_scores(queries, keys, 2) for queries, keys, _ in parts]
    expected = attention.minilm(scores[0], scores[1], parts[0][2], parts[1][2], MASK).mean()
    torch.testing.assert_close(value(term, step), expected)


@pytest.mark.parametrize("heads", ["same", "mean"])
def test_attention_scores_are_averaged_over_heads_and_the_keys_of_their_text(heads: str) -> None:
    term = TinyBERTAttention(teacher_layer="uniform", heads=heads)
    located(term)
    assert term.teacher_taps == ("1.queries", "1.keys", "3.queries", "3.keys")
    step, expected = make_step(term), torch.zeros(8, dtype=torch.float64)
    start = 0
    for length in LENGTHS.tolist():
        rows = slice(start, start + length)
        for mine, its in ((0, 1), (1, 3)):
            scores = [
                attention.attention_scores(taps[f"{layer}.queries"][None, rows], taps[f"{layer}.keys"][None, rows], 2)
                for taps, layer in ((step.student_hidden, mine), (step.teacher_hidden, its))
            ]
            if heads == "mean":
                scores = [each.mean(dim=1) for each in scores]
            squared = (scores[0] - scores[1]).square().view(-1, length, length)
            expected[rows] += squared.mean(dim=(0, 2))
        start += length
    torch.testing.assert_close(value(term, step), expected.mean())


def test_tinybert_compares_embeddings_too_and_maps_all_layers_alike() -> None:
    term = TinyBERTHidden(teacher_layer="uniform")
    located(term)
    assert (term.student_taps, term.teacher_taps) == (("embeddings", "0", "1"), ("embeddings", "1", "3"))
    step = make_step(term)
    loss = value(term, step)
    assert isinstance(term.projection, torch.nn.Linear)
    pairs = zip(step.student_hidden.values(), step.teacher_hidden.values(), strict=True)
    torch.testing.assert_close(loss, sum(hidden.hidden_mse(term.projection(s), t).mean() for s, t in pairs))
    without = TinyBERTHidden(teacher_layer="uniform", embeddings=False)
    located(without)
    assert without.student_taps == ("0", "1")


@pytest.mark.parametrize("term", [MiniLM(**LAST), TinyBERTAttention(teacher_layer="uniform")], ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_heads": 4}, "head by head, but the student has 2 and the teacher 4"),
        ({"has_plain_scores": False}, r"with this teacher \(Example\), whose attention is not.*\n.*minilm_v2"),
        ({"attention": ()}, r"whose queries, keys and values are not found.*\nKnown: BERT"),
    ],
)
def test_models_whose_scores_cannot_be_compared_are_refused(
    term: AttentionTerm, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        located(term, teacher=layers(4, **changes))
    assert caught.value.key == "loss.term.mine"
    assert caught.value.fix


def test_other_heads_and_other_scores_are_no_hindrance_to_relations_nor_to_the_mean_over_heads() -> None:
    located(MiniLMv2(**LAST), teacher=layers(4, num_heads=4, has_plain_scores=False))
    term = TinyBERTAttention(teacher_layer="uniform", heads="mean")
    located(term, teacher=layers(4, num_heads=4))
    assert value(term, make_step(term)).isfinite()


def test_relation_heads_that_do_not_divide_every_width_are_refused_with_the_nearest_that_do() -> None:
    term = MiniLMv2(**LAST, num_heads=5)
    located(term)
    with pytest.raises(UserError, match=r"all widths of queries, keys, values: \[8, 12\].*\n.*num_heads=4") as caught:
        value(term, make_step(term))
    assert caught.value.key == "loss.term.mine.num_heads"


@pytest.mark.parametrize(
    ("option", "term"),
    [
        ("teacher_layer", MiniLMv2()),
        ("teacher_layer", MiniLMv2(teacher_layer="unifrom")),
        ("teacher_layer", MiniLMv2(teacher_layer=1.5)),  # type: ignore[arg-type]
        ("teacher_layer", MiniLMv2(teacher_layer=[])),
        ("student_layer", MiniLMv2(student_layer=[True], teacher_layer=-1)),
        ("student_layer", MiniLMv2(student_layer="first", teacher_layer=-1)),  # type: ignore[arg-type]
        ("num_heads", MiniLMv2(**LAST, num_heads=0)),
        ("relations", MiniLMv2(**LAST, relations=[])),
        ("relations", MiniLMv2(**LAST, relations="queries")),
        ("relations", MiniLMv2(**LAST, relations=["queries", "querys"])),
        ("relations", MiniLMv2(**LAST, relations=["keys", "keys"])),
        ("heads", TinyBERTAttention(teacher_layer="uniform", heads="min")),
        ("embeddings", TinyBERTHidden(teacher_layer="uniform", embeddings=1)),  # type: ignore[arg-type]
    ],
)
def test_impossible_options_are_refused(option: str, term: LayerTerm) -> None:
    with pytest.raises(UserError) as caught:
        Objective({"mine": term})
    assert caught.value.key == f"loss.term.mine.{option}"
    assert caught.value.fix


def test_layers_that_the_models_do_not_have_are_refused() -> None:
    with pytest.raises(UserError, match=r"the teacher has no layers \[4\]; its layers are 0 to 3") as caught:
        located(MiniLMv2(student_layer=0, teacher_layer=4))
    assert caught.value.key == "loss.term.mine.teacher_layer"


def test_parts_of_one_module_are_told_apart_and_tapped_once() -> None:
    fused = tuple({state: Part(f"{number}.all", index, 3) for index, state in enumerate(STATES)} for number in range(2))
    term, plain = MiniLMv2(**LAST, num_heads=2), MiniLMv2(**LAST, num_heads=2)
    located(term, student=layers(2, attention=fused))
    located(plain)
    assert term.student_taps == ("1.all",)
    step = make_step(plain)
    expected = value(plain, step)
    step.student_hidden = {"1.all": torch.cat(list(step.student_hidden.values()), dim=-1)}
    torch.testing.assert_close(value(term, step), expected)
