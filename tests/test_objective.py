from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from potstill.data.batch import IGNORE
from potstill.errors import UserError
from potstill.losses.feature_terms import HiddenMSE
from potstill.losses.terms import CrossEntropy, ForwardKL, Term
from potstill.objective import Fault, Objective, Step
from potstill.signals.protocol import Needs

ROWS = {"labelled": 3, "scored": 4, "positions": 6}


def make_step(*, teacher_columns: int = 5) -> Step:
    generator = torch.Generator().manual_seed(0)
    return Step(
        student_logits=torch.randn(4, 5, generator=generator).requires_grad_(),
        teacher_logits=torch.randn(4, teacher_columns, generator=generator),
        labels=torch.tensor([1, IGNORE, 0, 4]),
        student_hidden={"layer.1": torch.randn(6, 3, generator=generator).requires_grad_()},
        teacher_hidden={"layer.5": torch.randn(6, 8, generator=generator)},
    )


def hidden_mse() -> HiddenMSE:
    return HiddenMSE(student_tap="layer.1", teacher_tap="layer.5")


class Misspelt(Term):
    def forward(self, student_logit: Tensor) -> Tensor:
        return student_logit.sum(dim=-1)


class PerBatch(Term):
    rows = "batches"  # type: ignore[assignment]

    def forward(self, student_logits: Tensor) -> Tensor:
        return student_logits.sum(dim=-1)


def test_terms_add_up_by_weight_and_are_reported_before_weighting() -> None:
    step = make_step()
    loss, shares = Objective({"ce": CrossEntropy(weight=0.5), "kd": ForwardKL(weight=3.0)})(step, ROWS)
    alone = {
        "ce": Objective({"ce": CrossEntropy()})(step, ROWS)[0],
        "kd": Objective({"kd": ForwardKL()})(step, ROWS)[0],
    }
    assert {name: share.item() for name, share in shares.items()} == {name: one.item() for name, one in alone.items()}
    assert loss.item() == pytest.approx(0.5 * alone["ce"].item() + 3.0 * alone["kd"].item())
    assert not any(share.requires_grad for share in shares.values())


def test_rows_of_every_kind_count_by_their_weight() -> None:
    terms = {"ce": CrossEntropy(), "kd": ForwardKL(), "hidden_mse": hidden_mse()}
    objective, step = Objective(terms), make_step()
    objective.prepare(step)
    first = {"labelled": [1.0, 0, 0, 0], "scored": [1.0, 0, 0, 0], "positions": [1.0, 0, 0, 0, 0, 0]}
    step.weights = {kind: 4 * torch.tensor(weights) for kind, weights in first.items()}
    weighted = objective.shares(step, ROWS)
    step.weights = {}
    for name, values in objective._values(step):
        assert weighted[name].item() == pytest.approx(4 * values[0].item() / ROWS[terms[name].rows])


def test_each_term_is_divided_by_its_own_kind_of_row() -> None:
    objective = Objective({"ce": CrossEntropy(), "kd": ForwardKL(), "hidden_mse": hidden_mse()})
    step = make_step()
    objective.prepare(step)
    _, shares = objective(step, ROWS)
    for name, kind in {"ce": "labelled", "kd": "scored", "hidden_mse": "positions"}.items():
        _, halved = objective(step, ROWS | {kind: 2 * ROWS[kind]})
        changed = {term for term in shares if halved[term] != shares[term]}
        assert changed == {name}
        assert halved[name].item() == pytest.approx(shares[name].item() / 2)


def test_labels_that_are_missing_everywhere_give_zero_and_not_nan() -> None:
    step = make_step()
    step.labels = torch.full((4,), IGNORE)
    loss, _ = Objective({"ce": CrossEntropy()})(step, ROWS | {"labelled": 0})
    loss.backward()
    assert loss.item() == 0.0
    assert step.student_logits is not None
    assert step.student_logits.grad is not None
    assert step.student_logits.grad.abs().max() == 0.0


def test_only_what_the_terms_name_is_asked_of_the_models() -> None:
    gold = Objective({"ce": CrossEntropy()})
    assert gold.needs_student == Needs(logits=True)
    assert not gold.needs_teacher
    hidden = Objective({"first": hidden_mse(), "again": hidden_mse()})
    assert hidden.needs_student == Needs(taps=("layer.1",))
    assert hidden.needs_teacher == Needs(taps=("layer.5",))
    both = Objective({"kd": ForwardKL(), "hidden_mse": hidden_mse()})
    assert both.needs_teacher == Needs(logits=True, taps=("layer.5",))


def test_unlabelled_examples_are_of_use_as_soon_as_one_term_scores_them() -> None:
    assert Objective({"ce": CrossEntropy()}).labelled_only
    assert not Objective({"ce": CrossEntropy(), "kd": ForwardKL()}).labelled_only


def test_a_projector_is_trained_and_saved_with_the_objective() -> None:
    objective = Objective({"hidden_mse": hidden_mse()})
    step = make_step()
    objective.prepare(step)
    objective(step, ROWS)[0].backward()
    gradients = {name: parameter.grad for name, parameter in objective.named_parameters()}
    assert set(gradients) == {"terms.hidden_mse.projection.weight", "terms.hidden_mse.projection.bias"}
    assert all(gradient is not None and gradient.abs().max() > 0.0 for gradient in gradients.values())
    assert step.student_hidden["layer.1"].grad is not None


def test_models_with_different_columns_are_refused_before_training() -> None:
    with pytest.raises(UserError, match="student has 5 columns and the teacher 6") as caught:
        Objective({"kd": ForwardKL()}).prepare(make_step(teacher_columns=6))
    assert caught.value.key == "loss.term.kd"


def test_a_field_that_no_step_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Nearest: 'student_logits'") as caught:
        Objective({"mine": Misspelt()})
    assert caught.value.key == "loss.term.mine._target_"


def test_a_kind_of_row_that_nobody_counts_is_refused() -> None:
    with pytest.raises(UserError, match="batches"):
        Objective({"mine": PerBatch()})


def test_what_is_no_term_is_refused() -> None:
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Linear. is no Term"):
        Objective({"mine": nn.Linear(1, 1)})  # type: ignore[dict-item]


def test_an_objective_without_terms_does_not_train_in_silence() -> None:
    with pytest.raises(UserError, match="loss=ce"):
        Objective({})


def test_a_teacher_that_is_not_there_is_named() -> None:
    step = make_step()
    step.teacher_logits = None
    with pytest.raises(AssertionError, match="teacher_logits"):
        Objective({"kd": ForwardKL()})(step, ROWS)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_term_that_is_not_finite_is_named_with_its_rows(bad: float) -> None:
    step = make_step()
    objective = Objective({"ce": CrossEntropy(), "kd": ForwardKL()})
    assert objective.find_fault(step) is None
    assert step.teacher_logits is not None
    step.teacher_logits[[1, 3], 0] = bad
    fault = objective.find_fault(step)
    assert fault == Fault("kd", (1, 3))
    assert str(fault) == "loss.term.kd is not finite: rows 1, 3"


def test_finite_rows_whose_sum_overflows_are_a_fault_too() -> None:
    class Huge(Term):
        def forward(self, student_logits: Tensor) -> Tensor:
            return student_logits.sum(dim=-1) * 0.0 + 3e38

    fault = Objective({"huge": Huge()}).find_fault(make_step())
    assert fault == Fault("huge", ())
    assert str(fault) == "loss.term.huge is not finite: its sum overflows"


def test_many_bad_rows_do_not_fill_the_screen() -> None:
    assert str(Fault("kd", tuple(range(1000)))).endswith("8, 9 and 990 more")
    assert str(Fault("kd", tuple(range(10)))).endswith("8, 9")
