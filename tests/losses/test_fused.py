"""The fused head against all logits at once: values, gradients, diagnostics, and what it must not compute."""

# N rows, C classes, K known classes, D width

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from potstill.losses import divergence, response, row_math, sparse
from potstill.losses import fused as fused_module
from potstill.losses.fused import Options, fused
from potstill.losses.heads import Head, HeadInput
from potstill.losses.products import Products
from potstill.losses.row_forms import Form
from potstill.losses.row_math import RowTerm
from potstill.losses.sparse import SparseLogits
from tests.tiers import one_and_others

N, C, K, D_STUDENT, D_TEACHER, T = 37, 301, 16, 8, 12, 2.0


def dense(values, *, labelled: bool = False, form: Form | None = None) -> RowTerm:
    return RowTerm(values, labelled, form)


TERMS = {
    "ce": dense(lambda s, _, labels: response.cross_entropy(s, labels), labelled=True, form=Form("ce")),
    "smoothed": dense(
        lambda s, _, labels: response.cross_entropy(s, labels, label_smoothing=0.1),
        labelled=True,
        form=Form("ce", smoothing=0.1),
    ),
    "forward_kl": dense(lambda s, t, _: divergence.forward_kl(s, t, temperature=T), form=Form("forward_kl", T, T * T)),
    "forward_kl_1": dense(lambda s, t, _: divergence.forward_kl(s, t), form=Form("forward_kl")),
    "forward_ce": dense(lambda s, t, _: divergence.forward_ce(s, t, temperature=T), form=Form("forward_ce", T, T * T)),
    "reverse_kl": dense(lambda s, t, _: divergence.reverse_kl(s, t, temperature=T), form=Form("reverse_kl", T, T * T)),
    "jsd": dense(lambda s, t, _: divergence.jsd(s, t, beta=0.3, temperature=T), form=Form("jsd", T, T * T, 0.3)),
    "tvd": dense(lambda s, t, _: divergence.tvd(s, t, temperature=T), form=Form("tvd", T)),
    "any": dense(lambda s, t, _: response.logit_mse(s, t, centre=False)),
}
HEADS = {
    "plain": Head(torch.empty(0)),
    "scaled": Head(torch.empty(0), logit_scale=0.3),
    "capped": Head(torch.empty(0), soft_cap=5.0),
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
FEW_ROWS = Options(chunk_bytes=10 * 2 * C * 8)  # several chunks, the last of them smaller


def rows(width: int, dtype: torch.dtype, *, like: Head = HEADS["plain"], bias: bool = True, seed: int = 0) -> HeadInput:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return HeadInput(normal(N, width), replace(like, weight=normal(C, width), bias=normal(C) if bias else None))


def labels() -> Tensor:
    labels_N = torch.arange(N) * 7 % C
    labels_N[::3] = -100
    return labels_N


def leaves(given: HeadInput) -> list[Tensor]:
    return [each for each in (given.hidden, given.head.weight, given.head.bias) if each is not None]


def weights_of(names: tuple[str, ...]) -> dict[str, float]:
    return {name: 0.3 * number / N for number, name in enumerate(names, 1)}


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


def loss_of(names: tuple[str, ...], student: HeadInput, teacher: Tensor | SparseLogits, labels_N: Tensor) -> Tensor:
    """From all logits, by autograd."""
    logits_NC, weights = student.logits(), weights_of(names)
    return torch.stack([weights[name] * TERMS[name].values(logits_NC, teacher, labels_N).sum() for name in names]).sum()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("names", [(name,) for name in TERMS] + [tuple(TERMS)])
def test_a_chunk_at_a_time_moves_neither_value_nor_gradient(names, head, dtype) -> None:
    student, teacher = rows(D_STUDENT, dtype, like=HEADS[head]), rows(D_TEACHER, dtype, like=HEADS[head], seed=1)
    terms = {name: TERMS[name] for name in names}
    found = fused(student, teacher, labels(), terms, weights_of(names), diagnose=True, options=FEW_ROWS)
    expected = loss_of(names, student, teacher.logits().detach(), labels())
    assert relative(found.loss, expected) <= TOLERANCE[dtype]
    gradients = [torch.autograd.grad(loss, leaves(student)) for loss in (found.loss, expected)]
    assert max(map(relative, *gradients)) <= TOLERANCE[dtype]
    logits_NC, teacher_NC = student.logits().detach(), teacher.logits().detach()
    for name, values_N in found.values.items():
        assert relative(values_N, terms[name].values(logits_NC, teacher_NC, labels())) <= 10 * TOLERANCE[dtype]
    assert relative(found.diagnostics["kl"], divergence.forward_kl(logits_NC, teacher_NC)) <= TOLERANCE[dtype]
    assert relative(found.diagnostics["entropy"], divergence.entropy(teacher_NC)) <= TOLERANCE[dtype]
    assert torch.equal(found.diagnostics["agreement"], (logits_NC.argmax(-1) == teacher_NC.argmax(-1)).to(dtype))


@pytest.mark.parametrize("names", [("ce", "forward_kl"), ("any",)])
def test_a_row_of_weight_two_counts_as_two_rows(names) -> None:
    student, teacher = rows(D_STUDENT, torch.float64), rows(D_TEACHER, torch.float64, seed=1)
    terms, times_N = {name: TERMS[name] for name in names}, torch.arange(N) % 3
    found = fused(student, teacher, labels(), terms, weights_of(names), weights_N=times_N.float(), options=FEW_ROWS)
    again = torch.arange(N).repeat_interleave(times_N)
    expected = loss_of(names, student.take(again), teacher.logits().detach()[again], labels()[again])
    assert relative(found.loss, expected) <= 1e-12
    gradients = [torch.autograd.grad(loss, leaves(student)) for loss in (found.loss, expected)]
    assert max(map(relative, *gradients)) <= 1e-12


@pytest.mark.parametrize("names", [("ce", "forward_kl"), ("jsd", "any")])
def test_gradients_are_those_of_finite_differences(names) -> None:
    student, teacher = rows(3, torch.float64), rows(2, torch.float64, seed=1)
    student, teacher = student.take(slice(5)), teacher.take(slice(5))
    terms = {name: TERMS[name] for name in names}

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        given = HeadInput(hidden, Head(weight[:9], bias[:9], 0.7, 3.0))
        taught = HeadInput(teacher.hidden, Head(teacher.head.weight[:9]))
        return fused(given, taught, torch.arange(5), terms, weights_of(names), options=Options(chunk_bytes=300)).loss

    assert torch.autograd.gradcheck(loss, leaves(student), fast_mode=True)


@pytest.mark.parametrize("mode", ["logits", "log-probabilities"])
def test_a_teacher_may_come_as_numbers(mode: str) -> None:
    student, teacher = rows(D_STUDENT, torch.float32), rows(D_TEACHER, torch.float32, seed=1)
    teacher_NC = teacher.logits().detach()
    given = teacher_NC if mode == "logits" else teacher_NC.log_softmax(dim=-1)
    before = given.clone()
    names = ("ce", "forward_kl", "jsd")
    found = fused(student, given, labels(), {name: TERMS[name] for name in names}, weights_of(names), options=FEW_ROWS)
    assert torch.equal(given, before), "the teacher's numbers were written to"
    assert relative(found.loss, loss_of(names, student, teacher_NC, labels())) <= 1e-5


def known_in_part(teacher: HeadInput, temperature: float = T, *, ragged: bool = False, exact: bool = False) -> Any:
    """The likeliest classes; ragged: of every other row three. exact: with the normaliser of the temperature."""
    log_p_NC = teacher.logits().detach().log_softmax(dim=-1)
    log_p_NK, ids_NK = log_p_NC.topk(K, dim=-1)
    if ragged:
        log_p_NK[::2, 3:] = -math.inf
        ids_NK[::2, 3:] = 0
    return SparseLogits(log_p_NK, ids_NK, log_normaliser=(log_p_NC / temperature).logsumexp(dim=-1) if exact else None)


def sparse_term(kind: str, temperature: float, mode: str) -> RowTerm:
    divergence_of = getattr(sparse, f"sparse_{kind}")
    own = {"beta": 0.3} if kind == "jsd" else {}
    form = Form(kind, temperature, temperature**2, topk_mode=mode, **own)  # type: ignore[arg-type]

    def values(logits_NC: Tensor, target: SparseLogits, _labels: Tensor) -> Tensor:
        given = {"log_normaliser_N": target.log_normaliser, "temperature": temperature, "topk_mode": mode, **own}
        return divergence_of(logits_NC, target.log_p, target.ids, **given).values

    return RowTerm(values, form=form)


SPARSE_CASES = [(kind, "tail", T) for kind in ("forward_kl", "reverse_kl", "jsd")]
SPARSE_CASES += [("forward_kl", mode, T) for mode in sparse.TOPK_MODES[1:]] + [("forward_kl", "raw", 1.0)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("kind", "mode", "temperature"), SPARSE_CASES)
@pytest.mark.parametrize("with_ce", one_and_others(True, False))
@pytest.mark.parametrize("head", HEADS)
def test_of_a_teacher_known_in_part_neither_value_nor_gradient_moves(kind, mode, temperature, with_ce, head, dtype):
    student, teacher = rows(D_STUDENT, dtype, like=HEADS[head]), rows(D_TEACHER, dtype, seed=1)
    names = ("ce", "kd") if with_ce else ("kd",)
    terms = {"ce": TERMS["ce"], "kd": sparse_term(kind, temperature, mode)}
    weights = {"ce": 0.3 / N, "kd": 0.6 / N}
    for ragged, exact in ((False, False), (True, False), (False, True)):
        target = known_in_part(teacher, temperature, ragged=ragged, exact=exact)
        found = fused(student, target, labels(), {n: terms[n] for n in names}, weights, diagnose=True, options=FEW_ROWS)
        logits_NC = student.logits()
        shares = [weights[name] * terms[name].values(logits_NC, target, labels()).sum() for name in names]
        gradients = [torch.autograd.grad(loss, leaves(student)) for loss in (found.loss, torch.stack(shares).sum())]
        assert max(map(relative, *gradients)) <= TOLERANCE[dtype]
        assert relative(found.loss, torch.stack(shares).sum()) <= TOLERANCE[dtype]
        expected = sparse.sparse_forward_kl(logits_NC.detach(), target.log_p, target.ids)
        assert relative(found.diagnostics["kl"], expected.values) <= TOLERANCE[dtype]
        assert relative(found.diagnostics["teacher_mass"], expected.mass) <= TOLERANCE[dtype]
        agrees_N = logits_NC.argmax(dim=-1) == target.ids[:, 0]
        assert torch.equal(found.diagnostics["agreement"], agrees_N.to(dtype))


def test_of_a_teacher_known_in_part_every_class_is_read_once_and_none_differentiated(monkeypatch) -> None:
    """The closed form is what runs: autograd on all classes of a block would be right as well, and slow."""
    student, teacher = rows(D_STUDENT, torch.float32), rows(D_TEACHER, torch.float32, seed=1)
    monkeypatch.setattr(row_math, "_by_autograd", lambda *_: pytest.fail("differentiated"))
    terms = {"ce": TERMS["ce"], "kd": sparse_term("forward_kl", T, "tail")}
    fused(student, known_in_part(teacher), labels(), terms, {"ce": 1.0, "kd": 1.0}, diagnose=True)


def test_a_student_sure_of_what_the_teacher_knows_keeps_finite_gradients() -> None:
    """What it leaves for the other classes is less than float32 can say, but not its logarithm."""
    student, teacher = rows(D_STUDENT, torch.float32), rows(D_TEACHER, torch.float32, seed=1)
    target = known_in_part(teacher)
    with torch.no_grad():
        student.head.bias.index_fill_(0, target.ids[0], 300.0)  # type: ignore[union-attr]
    term, first = sparse_term("reverse_kl", 1.0, "tail"), slice(1)
    given, known = student.take(first), target.take(first)
    found = fused(given, known, labels()[first], {"kd": term}, {"kd": 1.0})
    expected = term.values(given.logits(), known, labels()[first]).sum()
    gradients = [torch.autograd.grad(loss, leaves(student)) for loss in (found.loss, expected)]
    assert found.loss.isfinite()
    assert max(map(relative, *gradients)) <= 1e-5


def test_drawn_classes_are_no_likeliest_ones() -> None:
    student, teacher = rows(D_STUDENT, torch.float32), rows(D_TEACHER, torch.float32, seed=1)
    drawn = replace(known_in_part(teacher, ragged=True), is_sampled=True)
    found = fused(student, drawn, labels(), {"kd": sparse_term("forward_kl", 1.0, "raw")}, {"kd": 1.0}, diagnose=True)
    assert not found.diagnostics


def test_rows_that_do_not_count_cost_nothing_and_get_no_gradient(monkeypatch) -> None:
    student, teacher = rows(D_STUDENT, torch.float64), rows(D_TEACHER, torch.float64, seed=1)
    valid_N = torch.arange(N) % 2 == 0
    seen = []
    multiply = Products.logits
    monkeypatch.setattr(
        Products, "logits", lambda self, part: seen.append(part.stop - part.start) or multiply(self, part)
    )
    names = ("ce", "forward_kl")
    terms = {name: TERMS[name] for name in names}
    found = fused(student, teacher, labels(), terms, weights_of(names), valid_N=valid_N)
    assert sum(seen) == 2 * int(valid_N.sum()), "once for each model"
    kept = [torch.autograd.grad(loss, student.hidden)[0] for loss in (found.loss,)]
    assert not kept[0][~valid_N].any()
    expected = loss_of(names, student.take(valid_N), teacher.logits().detach()[valid_N], labels()[valid_N])
    torch.testing.assert_close(kept[0], torch.autograd.grad(expected, student.hidden)[0])


def test_a_frozen_head_is_not_differentiated(monkeypatch) -> None:
    student, teacher = rows(D_STUDENT, torch.float32), rows(D_TEACHER, torch.float32, seed=1)
    student.head.weight.requires_grad_(False)
    monkeypatch.setattr(Products, "add_weight_gradient", lambda *_: pytest.fail("a gradient that nobody asked for"))
    found = fused(student, teacher, labels(), {"ce": TERMS["ce"]}, {"ce": 1.0})
    found.loss.backward()
    assert student.hidden.grad is not None
    assert student.head.weight.grad is None


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("head", HEADS)
def test_a_low_rank_part_beside_a_frozen_weight_is_all_that_is_differentiated(head, dtype, monkeypatch) -> None:
    monkeypatch.setattr(Products, "add_weight_gradient", lambda *_: pytest.fail("a gradient that nobody asked for"))
    student, teacher = rows(D_STUDENT, dtype, like=HEADS[head], bias=False), rows(D_TEACHER, dtype, seed=1)
    beside = rows(3, dtype, seed=2)
    student.head.weight.requires_grad_(False)
    given = replace(student, head=replace(student.head, up=beside.head.weight), low=beside.hidden)
    names = ("ce", "forward_kl")
    terms = {name: TERMS[name] for name in names}
    found = fused(given, teacher, labels(), terms, weights_of(names), options=FEW_ROWS)
    expected = loss_of(names, given, teacher.logits().detach(), labels())
    leaves_of = (student.hidden, beside.hidden, beside.head.weight)
    gradients = [torch.autograd.grad(loss, leaves_of) for loss in (found.loss, expected)]
    assert relative(found.loss, expected) <= TOLERANCE[dtype]
    assert max(map(relative, *gradients)) <= TOLERANCE[dtype]
    some = given.take(slice(3, 9))
    torch.testing.assert_close(some.logits(), given.logits()[3:9])


def test_without_rows_every_gradient_is_zero() -> None:
    student, teacher = rows(D_STUDENT, torch.float32).take(slice(0)), rows(D_TEACHER, torch.float32).take(slice(0))
    found = fused(student, teacher, labels()[:0], {"ce": TERMS["ce"]}, {"ce": 1.0}, diagnose=True)
    found.loss.backward()
    assert found.loss == 0.0
    assert {name: len(each) for name, each in found.diagnostics.items()} == {"entropy": 0, "kl": 0, "agreement": 0}
    assert student.head.weight.grad is not None
    assert not student.head.weight.grad.any()


def test_a_second_backward_pass_finds_the_same_gradients() -> None:
    student, teacher = rows(D_STUDENT, torch.float64), rows(D_TEACHER, torch.float64, seed=1)
    found = fused(student, teacher, labels(), {"jsd": TERMS["jsd"]}, {"jsd": 0.1})
    first = torch.autograd.grad(3.0 * found.loss, leaves(student), retain_graph=True)
    again = torch.autograd.grad(3.0 * found.loss, leaves(student))
    assert all(map(torch.equal, first, again))


def test_tied_embeddings_get_both_gradients() -> None:
    student, teacher = rows(D_STUDENT, torch.float64, bias=False), rows(D_TEACHER, torch.float64, seed=1)
    weight = student.head.weight
    hidden_ND = torch.tanh(weight[:N])
    given = HeadInput(hidden_ND, Head(weight))
    found = fused(given, teacher, labels(), {"ce": TERMS["ce"]}, weights_of(("ce",)))
    expected = loss_of(("ce",), given, teacher.logits().detach(), labels())
    assert (
        relative(*(torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in (found.loss, expected))) <= 1e-12
    )


@pytest.mark.parametrize(("logits_dtype", "tolerance"), [(torch.float32, 5e-3), (torch.bfloat16, 2e-2)])
def test_sixteen_bits_are_added_up_in_thirty_two(logits_dtype: torch.dtype, tolerance: float) -> None:
    student, teacher = rows(D_STUDENT, torch.bfloat16), rows(D_TEACHER, torch.bfloat16, seed=1)
    names = ("ce", "forward_kl")
    terms = {name: TERMS[name] for name in names}
    options = replace(FEW_ROWS, logits_dtype=logits_dtype)
    found = fused(student, teacher, labels(), terms, weights_of(names), options=options)
    exact, exact_teacher = (
        HeadInput(
            *(each.detach().double().requires_grad_() for each in (given.hidden,)),
            head=Head(
                given.head.weight.detach().double().requires_grad_(),
                given.head.bias.detach().double().requires_grad_(),  # type: ignore[union-attr]
            ),
        )
        for given in (student, teacher)
    )
    expected = loss_of(names, exact, exact_teacher.logits().detach(), labels())
    gradients = torch.autograd.grad(found.loss, leaves(student)), torch.autograd.grad(expected, leaves(exact))
    assert max(map(relative, *gradients)) <= tolerance
    assert relative(found.loss, expected) <= tolerance / 10
    assert found.loss.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chosen", [True, False])
def test_no_more_than_a_chunk_of_logits_lives(dtype: torch.dtype, chosen: bool, monkeypatch) -> None:
    """By default as many rows in 16 bits as in 32: twice as many took twice the memory, and no less time."""
    student, teacher = rows(D_STUDENT, dtype), rows(D_TEACHER, dtype, seed=1)
    monkeypatch.setitem(fused_module.CHUNK_BYTES, "cpu", 5 * 2 * C * 4)
    monkeypatch.setattr(fused_module, "MIN_CHUNK_ROWS", 1)
    largest = 0
    empty = torch.Tensor.new_empty

    def noted(self: Tensor, *size, **options) -> Tensor:
        nonlocal largest
        made = empty(self, *size, **options)
        largest = max(largest, made.numel())
        return made

    monkeypatch.setattr(torch.Tensor, "new_empty", noted)
    options = Options(dtype, chunk_bytes=5 * 2 * C * dtype.itemsize if chosen else None)
    fused(student, teacher, labels(), {"ce": TERMS["ce"]}, {"ce": 1.0}, options=options)
    assert largest == 5 * C


def test_a_row_that_is_not_finite_is_seen() -> None:
    student, teacher = rows(D_STUDENT, torch.float32), rows(D_TEACHER, torch.float32, seed=1)
    with torch.no_grad():
        teacher.hidden[4] = math.nan
    found = fused(student, teacher, labels(), {"jsd": TERMS["jsd"]}, {"jsd": 1.0})
    assert (~found.values["jsd"].isfinite()).nonzero().flatten().tolist() == [4]


@pytest.mark.slow
@pytest.mark.thorough
def test_compiled_row_math_is_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces it was slower than not compiled, and nobody saw."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, fullgraph=True))
    row_math._compiled.cache_clear()
    student, teacher = rows(D_STUDENT, torch.float32), rows(D_TEACHER, torch.float32, seed=1)
    names = ("ce", "smoothed", "forward_kl", "tvd")
    terms = {name: TERMS[name] for name in names}
    options = replace(FEW_ROWS, compiled=True)
    fused(student, teacher, labels(), terms, weights_of(names), diagnose=True, options=options)
    row_math._compiled.cache_clear()


@pytest.mark.slow
@pytest.mark.thorough
def test_compiled_row_math_is_the_same() -> None:
    student, teacher = rows(D_STUDENT, torch.float32), rows(D_TEACHER, torch.float32, seed=1)
    names = ("ce", "forward_kl", "jsd")
    terms = {name: TERMS[name] for name in names}
    options = replace(FEW_ROWS, compiled=True)
    found = fused(student, teacher, labels(), terms, weights_of(names), diagnose=True, options=options)
    expected = fused(student, teacher, labels(), terms, weights_of(names), diagnose=True)
    gradients = [torch.autograd.grad(each.loss, leaves(student)) for each in (found, expected)]
    assert max(map(relative, *gradients)) <= 1e-5
    assert tuple(found.diagnostics) == row_math.DIAGNOSED
