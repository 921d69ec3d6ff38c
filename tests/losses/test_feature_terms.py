from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from potstill.errors import UserError
from potstill.losses import attention, hidden
from potstill.losses.feature_terms import NST, AttentionTransfer, HiddenCosine, HiddenMSE, PatientKD
from potstill.losses.layers import Layers
from potstill.losses.terms import Term
from potstill.objective import Objective, Step

from .registry import make_objective, make_step

Shape = tuple[int, ...]


def prepared(term: Term, student: list[Shape], teacher: list[Shape]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The term, named `mine` and prepared on random outputs of these shapes at its taps, which are returned."""
    Objective({"mine": term})
    fields = (
        {path: torch.randn(shape) for path, shape in zip(term.student_taps, student, strict=True)},
        {path: torch.randn(shape) for path, shape in zip(term.teacher_taps, teacher, strict=True)},
    )
    step = make_step()
    step.student_hidden, step.teacher_hidden = fields
    Objective({"mine": term}).prepare(step)
    return fields


def test_several_pairs_are_averaged_each_with_a_projector_of_its_own() -> None:
    term = HiddenMSE(["a", "b"], ["c", "d"])
    student, teacher = prepared(term, [(6, 5), (6, 4)], [(6, 8), (6, 8)])
    widths = {tuple(parameter.shape) for parameter in term.parameters()}
    assert widths == {(8, 5), (8, 4), (8,)}
    assert isinstance(term.projection, torch.nn.ModuleList)
    each = [
        hidden.hidden_mse(layer(student[mine]), teacher[theirs])
        for layer, mine, theirs in zip(term.projection, "ab", "cd", strict=True)
    ]
    torch.testing.assert_close(term(student, teacher), (each[0] + each[1]) / 2)


@pytest.mark.parametrize(
    ("taps", "problem"),
    [
        ((["a", "b"], ["c"]), "as many paths as teacher_tap, 1"),
        ((["a", 3], ["c", "d"]), "path of a module"),
        (([], []), "path of a module"),
    ],
)
def test_taps_that_make_no_pairs_are_refused(taps: tuple[list[str], list[str]], problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        Objective({"mine": HiddenMSE(*taps)})
    assert caught.value.key == "loss.term.mine.student_tap"


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 5, 4, 4)], ids=["image tokens", "feature maps"])
def test_the_cosine_is_taken_along_the_width_and_averaged_over_an_image(shape: Shape) -> None:
    term = HiddenCosine("a", "b", projector="none")
    student, teacher = prepared(term, [shape], [shape])
    expected = 1 - torch.cosine_similarity(student["a"], teacher["b"], dim=1 if len(shape) == 4 else 2)
    torch.testing.assert_close(term(student, teacher), expected.flatten(1).mean(dim=1))


def test_an_orthogonal_projector_of_feature_maps_is_refused() -> None:
    with pytest.raises(UserError, match="impossible for feature maps") as caught:
        prepared(HiddenMSE("a", "b", projector="orthogonal"), [(2, 5, 4, 4)], [(2, 8, 4, 4)])
    assert caught.value.key == "loss.term.mine.projector"


@pytest.mark.parametrize(
    ("term", "loss"), [(AttentionTransfer("a", "b"), attention.attention_transfer), (NST("a", "b"), attention.nst)]
)
def test_maps_and_tokens_are_the_same_thing(term: Term, loss: Callable[..., Tensor]) -> None:
    """A feature map of 2 x 3 pixels, and its pixels as tokens."""
    student, teacher = prepared(term, [(4, 5, 2, 3)], [(4, 8, 2, 3)])
    tokens = [maps.flatten(2).transpose(1, 2) for maps in (student["a"], teacher["b"])]
    expected = loss(*tokens)
    assert expected.shape == (4,)
    torch.testing.assert_close(term(student, teacher), expected)
    torch.testing.assert_close(term({"a": tokens[0]}, {"b": tokens[1]}), expected)


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [(((4, 5), (4, 8)), "needs several places"), (((4, 5, 2, 3), (4, 5, 3, 3)), "cannot be compared")],
)
def test_what_has_no_places_in_common_has_no_maps_to_compare(shapes: tuple[Shape, Shape], problem: str) -> None:
    for term in (AttentionTransfer("a", "b"), NST("a", "b")):
        with pytest.raises(UserError, match=problem) as caught:
            prepared(term, [shapes[0]], [shapes[1]])
        assert caught.value.key == "loss.term.mine.student_tap"


@pytest.mark.parametrize("power", [0.5, "two"])
def test_a_power_that_is_none_is_refused(power: float) -> None:
    with pytest.raises(UserError, match=r"loss\.term\.mine\.power"):
        Objective({"mine": AttentionTransfer("a", "b", power=power)})


def test_the_power_of_a_map_moves_its_value() -> None:
    step = make_step()
    first, second = (make_objective("attention_transfer", step, power=power) for power in (1.0, 2.0))
    totals = {"positions": 16, "examples": 16}
    assert first(step, totals)[0].item() != pytest.approx(second(step, totals)[0].item(), rel=1e-2)


TEXTS = torch.tensor([3, 1, 2])


def text_step(width: int = 5) -> Step:
    """Three texts of `TEXTS`, at the taps `a` and `b`."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, size, generator=generator) for size in (5, width))
    return Step(None, None, torch.zeros(3), {"a": student}, {"b": teacher}, lengths=TEXTS)


def test_maps_of_a_text_are_over_its_own_tokens() -> None:
    step = text_step(width=8)
    for term, loss in (
        (AttentionTransfer("a", "b"), attention.attention_transfer),
        (NST("a", "b"), attention.nst),
    ):
        values = term(step.student_hidden, step.teacher_hidden, TEXTS)
        for number, (student, teacher) in enumerate(
            zip(step.student_hidden["a"].split([3, 1, 2]), step.teacher_hidden["b"].split([3, 1, 2]), strict=True)
        ):
            torch.testing.assert_close(values[number], loss(student[None], teacher[None])[0])


def patient_kd(step: Step, **options: Any) -> Tensor:
    term = PatientKD("a", "b", **options)
    objective = Objective({"mine": term})
    objective.prepare(step)
    return term(step.student_hidden, step.teacher_hidden, step.lengths)


def test_patience_is_with_the_first_position_with_the_mean_or_with_all() -> None:
    step = text_step()
    student, teacher = step.student_hidden["a"], step.teacher_hidden["b"]
    first = patient_kd(step)
    torch.testing.assert_close(first, hidden.patient(student[[0, 3, 4]], teacher[[0, 3, 4]]))
    means = [torch.stack([text.mean(dim=0) for text in each.split([3, 1, 2])]) for each in (student, teacher)]
    torch.testing.assert_close(patient_kd(step, position="mean"), hidden.patient(*means))
    each = hidden.patient(student, teacher)
    expected = torch.stack([values.mean() for values in each.split([3, 1, 2])])
    torch.testing.assert_close(patient_kd(step, position="all"), expected)


def test_widths_that_patience_cannot_bridge_are_refused_with_the_projector_that_can() -> None:
    with pytest.raises(UserError, match="projector=linear") as caught:
        patient_kd(text_step(width=8))
    assert caught.value.key == "loss.term.mine.projector"
    assert patient_kd(text_step(width=8), projector="linear").shape == (3,)


@pytest.mark.parametrize(
    ("teacher_layer", "expected"), [("uniform", ["1", "3", "5", "7", "9"]), ("last", list("678910"))]
)
def test_patience_skips_or_takes_the_last_layers_and_leaves_out_the_students_own_last(
    teacher_layer: str, expected: list[str]
) -> None:
    student, teacher = (Layers("Example", "embeddings", tuple(map(str, range(number)))) for number in (6, 12))
    term = PatientKD(teacher_layer=teacher_layer)
    Objective({"mine": term})
    term.locate(student, teacher)
    assert term.student_taps == ("0", "1", "2", "3", "4")
    assert "".join(term.teacher_taps) == "".join(expected)
    with pytest.raises(UserError, match="the student has no other") as caught:
        term.locate(Layers("Example", "embeddings", ("0",)), teacher)
    assert caught.value.key == "loss.term.mine.teacher_layer"


@pytest.mark.parametrize("position", ["last", None])
def test_positions_that_nobody_is_patient_with_are_refused(position: Any) -> None:
    with pytest.raises(UserError) as caught:
        Objective({"mine": PatientKD("a", "b", position=position)})
    assert caught.value.key == "loss.term.mine.position"


def test_layers_by_number_are_the_outputs_of_the_two_models() -> None:
    student, teacher = (Layers("Example", "embeddings", tuple(f"{who}.{n}" for n in range(4))) for who in ("s", "t"))
    term = HiddenMSE(student_layer=[0, -1], teacher_layer=[1, -1])
    Objective({"mine": term})
    assert term.by_layer
    term.locate(student, teacher)
    assert (term.student_taps, term.teacher_taps) == (("s.0", "s.3"), ("t.1", "t.3"))


def test_modules_and_numbers_of_layers_at_once_are_refused() -> None:
    for term in (HiddenMSE("a", "b", teacher_layer="uniform"), HiddenMSE("a", teacher_layer=-1)):
        with pytest.raises(UserError, match="names modules, and layers are numbered as well") as caught:
            Objective({"mine": term})
        assert caught.value.key == "loss.term.mine.student_tap"


def test_neither_modules_nor_layers_are_refused_with_both_ways_out() -> None:
    with pytest.raises(UserError, match=r"potstill inspect; or number layers: .*teacher_layer=uniform") as caught:
        Objective({"mine": HiddenMSE()})
    assert caught.value.key == "loss.term.mine.student_tap"
