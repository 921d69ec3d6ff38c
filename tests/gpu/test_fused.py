"""The fused head on an accelerator: its kernel, and products of 16 bits added up in 32, against all logits at once.

It needs torch and `potstill.losses` alone, and runs without the rest of the package's dependencies.
"""

# N rows, C classes, D width

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from potstill.losses import divergence, response
from potstill.losses.fused import Options, fused
from potstill.losses.heads import Finish, Head, HeadInput
from potstill.losses.row_forms import Form
from potstill.losses.row_math import RowMath, RowTerm

pytestmark = pytest.mark.gpu
N, C, D_STUDENT, D_TEACHER, T = 300, 5003, 64, 96, 2.0
TERMS = {
    "ce": RowTerm(lambda s, _, labels: response.cross_entropy(s, labels), labelled=True, form=Form("ce")),
    "forward_kl": RowTerm(
        lambda s, t, _: divergence.forward_kl(s, t, temperature=T), form=Form("forward_kl", T, T * T)
    ),
    "forward_ce": RowTerm(
        lambda s, t, _: divergence.forward_ce(s, t, temperature=T), form=Form("forward_ce", T, T * T)
    ),
    "reverse_kl": RowTerm(
        lambda s, t, _: divergence.reverse_kl(s, t, temperature=T), form=Form("reverse_kl", T, T * T)
    ),
    "jsd": RowTerm(lambda s, t, _: divergence.jsd(s, t, beta=0.3, temperature=T), form=Form("jsd", T, T * T, 0.3)),
    "tvd": RowTerm(lambda s, t, _: divergence.tvd(s, t, temperature=T), form=Form("tvd", T)),
}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-3}  # relative, of whole gradients


def rows(dtype: torch.dtype, *, soft_cap: float | None) -> tuple[HeadInput, HeadInput, Tensor]:
    torch.manual_seed(0)

    def made(width: int, *, trained: bool) -> HeadInput:
        hidden = torch.randn(N, width, device="cuda").to(dtype).requires_grad_(trained)
        weight = (torch.randn(C, width, device="cuda") * 2 / width**0.5).to(dtype).requires_grad_(trained)
        return HeadInput(hidden, Head(weight, soft_cap=soft_cap))

    labels_N = torch.randint(C, (N,), device="cuda")
    labels_N[::3] = -100
    return made(D_STUDENT, trained=True), made(D_TEACHER, trained=False), labels_N


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def in_float64(given: HeadInput) -> HeadInput:
    head = Head(given.head.weight.detach().double().requires_grad_(), soft_cap=given.head.soft_cap)
    return HeadInput(given.hidden.detach().double().requires_grad_(), head)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("soft_cap", [None, 4.0])
@pytest.mark.parametrize("names", [(name,) for name in TERMS] + [("ce", name) for name in TERMS if name != "ce"])
def test_the_kernel_moves_no_value_and_no_gradient(
    names: tuple[str, ...], soft_cap: float | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    find = RowMath._kernel
    monkeypatch.setattr(RowMath, "_kernel", lambda *given: ran.append(find(*given)) or ran[-1])
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    student, teacher, labels_N = rows(dtype, soft_cap=soft_cap)
    terms = {name: TERMS[name] for name in names}
    weights = {name: 0.3 * number / N for number, name in enumerate(names, 1)}
    found = fused(student, teacher, labels_N, terms, weights, diagnose=True, options=Options(chunk_bytes=2**22))
    gradients = torch.autograd.grad(found.loss, [student.hidden, student.head.weight])
    exact, exact_teacher = in_float64(student), in_float64(teacher)
    logits_NC, teacher_NC = exact.logits(), exact_teacher.logits().detach()
    values = {name: term.values(logits_NC, teacher_NC, labels_N) for name, term in terms.items()}
    loss = torch.stack([weights[name] * each.sum() for name, each in values.items()]).sum()
    expected = torch.autograd.grad(loss, [exact.hidden, exact.head.weight])
    assert all(ran), "the torch form was tested, not the kernel"
    assert len(ran) > 1, "one chunk only"
    assert relative(found.loss.detach(), loss.detach()) <= 1e-5
    assert max(map(relative, gradients, expected)) <= TOLERANCE[dtype]
    assert relative(found.diagnostics["kl"], divergence.forward_kl(logits_NC, teacher_NC).detach()) <= 1e-5
    assert relative(found.diagnostics["entropy"], divergence.entropy(teacher_NC)) <= 1e-5
    agrees_N = logits_NC.argmax(dim=-1) == teacher_NC.argmax(dim=-1)
    assert (found.diagnostics["agreement"].bool() == agrees_N).float().mean() >= 0.99  # 16 bits may swap two


def test_the_kernel_is_the_torch_form() -> None:
    torch.manual_seed(0)
    student_NC, teacher_NC = torch.randn(2, 7, C, device="cuda") * 4
    labels_N = torch.arange(7, device="cuda") - 1
    terms = (TERMS["ce"], TERMS["jsd"])
    math = RowMath(terms, Finish(0.7, 5.0), Finish(), diagnose=True)
    weights_TN = torch.tensor([[0.3], [0.7]], device="cuda") * torch.arange(1, 8, device="cuda")
    expected_NC = student_NC.clone()
    expected = math.block(expected_NC, teacher_NC.clone(), labels_N, weights_TN)
    found, found_NC = math(student_NC, teacher_NC, labels_N, weights_TN, dtype=torch.float32)
    assert relative(found_NC, expected_NC) <= 1e-5
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(found, expected, strict=True))
