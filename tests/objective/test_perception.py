from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from qhk.objective.perception import bounded_kl, categorical_kl, sampled_kl

ORIGINAL = torch.tensor([0.3, -1.2, 0.8, 0.0, 0.1], dtype=torch.float64)
DEGRADED = torch.tensor([-0.5, 0.4, 0.2, 1.0, -0.3], dtype=torch.float64)


def k3(x: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Values, saturation and gradient in x of the published bounds; the original branch is 0."""
    degraded = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    value, saturated = sampled_kl(torch.zeros_like(degraded), degraded, exponent_bound=20.0, value_bound=10.0)
    (gradient,) = torch.autograd.grad(value.sum(), degraded)
    return value.detach()[0], saturated[0], gradient[0]


def test_published_vectors() -> None:
    value, saturated, gradient = k3([0.5, -0.5, 3.0, 0.0])
    assert value.tolist() == pytest.approx([0.1487, 0.1065, 10.0, 0.0], abs=5e-5)
    assert saturated.tolist() == [False, False, True, False]
    assert gradient.tolist() == pytest.approx([math.exp(0.5) - 1, math.exp(-0.5) - 1, 0.0, 0.0])


def test_saturation_begins_where_stated() -> None:
    _, saturated, gradient = k3([2.610, 2.612, -10.99, -11.01, 50.0, -50.0])
    assert saturated.tolist() == [False, True, False, True, True, True]
    assert (gradient == 0).tolist() == [False, True, False, True, True, True]


def test_exponent_bound_alone_saturates_too() -> None:
    value, saturated = sampled_kl(
        torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]), exponent_bound=2.0, value_bound=1e9
    )
    assert saturated.tolist() == [[False, True]]
    assert value[0, 1].item() == pytest.approx(math.exp(2.0) - 3.0, rel=1e-6)


def test_bounds_are_settings() -> None:
    value, saturated = sampled_kl(torch.zeros(1, 1), torch.ones(1, 1), exponent_bound=20.0, value_bound=0.5)
    assert value.item() == 0.5
    assert saturated.all()


def test_low_precision_is_computed_in_float32() -> None:
    value, _ = sampled_kl(
        torch.zeros(1, 1, dtype=torch.bfloat16),
        torch.full((1, 1), 0.0625, dtype=torch.bfloat16),
        exponent_bound=20.0,
        value_bound=10.0,
    )
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(math.exp(0.0625) - 1.0625, rel=1e-3)
    logits = torch.zeros(2, 3, dtype=torch.bfloat16)
    assert categorical_kl(logits, logits).dtype == torch.float32


def exact(first: Tensor, second: Tensor) -> Tensor:
    p, q = first.log_softmax(0), second.log_softmax(0)
    return (p.exp() * (p - q)).sum()


def expected_gradients(detach_degraded: bool) -> tuple[Tensor, Tensor | None]:
    """Exact expectation, over tokens sampled on the original image, of the gradient of k3 in both logits."""
    original, degraded = ORIGINAL.clone().requires_grad_(), DEGRADED.clone().requires_grad_()
    lo, ld = original.log_softmax(0), degraded.log_softmax(0)
    value, _ = sampled_kl(lo, ld.detach() if detach_degraded else ld, exponent_bound=20.0, value_bound=10.0)
    first, second = torch.autograd.grad(
        (lo.detach().exp() * value).sum(), [original, degraded], allow_unused=True
    )
    assert first is not None
    return first, second


def test_the_value_is_kl_original_degraded_but_the_gradient_in_the_original_branch_is_the_reverse() -> None:
    lo, ld = ORIGINAL.log_softmax(0), DEGRADED.log_softmax(0)
    value, _ = sampled_kl(lo, ld, exponent_bound=20.0, value_bound=10.0)
    torch.testing.assert_close((lo.exp() * value).sum(), exact(ORIGINAL, DEGRADED))
    leaf = ORIGINAL.clone().requires_grad_()
    (reverse,) = torch.autograd.grad(exact(DEGRADED, leaf), leaf)
    gradient, none = expected_gradients(detach_degraded=True)
    torch.testing.assert_close(gradient, reverse)
    assert none is None


def test_the_gradient_in_the_degraded_branch_is_that_of_kl_original_degraded() -> None:
    leaf = DEGRADED.clone().requires_grad_()
    (forward,) = torch.autograd.grad(exact(ORIGINAL, leaf), leaf)
    torch.testing.assert_close(expected_gradients(detach_degraded=False)[1], forward)


def test_categorical_kl_equals_torch_and_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 6, 11, generator=generator, dtype=torch.float64)
    got = categorical_kl(first, second)
    expected = torch.nn.functional.kl_div(
        second.log_softmax(-1), first.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    torch.testing.assert_close(got, expected)
    loop = 0.0
    for v in range(11):
        p, q = first[0].softmax(-1)[v].item(), second[0].softmax(-1)[v].item()
        loop += p * math.log(p / q)
    assert got[0].item() == pytest.approx(loop, rel=1e-12)


def test_categorical_kl_gradients_reach_both_branches() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (
        torch.randn(3, 5, generator=generator, dtype=torch.float64).requires_grad_() for _ in "ab"
    )
    assert torch.autograd.gradcheck(categorical_kl, (first, second))


def test_tokens_ruled_out_in_both_branches_add_nothing_and_poison_nothing() -> None:
    first, second = ORIGINAL.clone(), DEGRADED.clone()
    kept = categorical_kl(first[None, 1:], second[None, 1:])
    first[0] = second[0] = -torch.inf
    first.requires_grad_()
    second.requires_grad_()
    got = categorical_kl(first[None], second[None])
    torch.testing.assert_close(got, kept)
    for gradient in torch.autograd.grad(got.sum(), [first, second]):
        assert gradient.isfinite().all()
        assert gradient[0] == 0


def test_bounded_kl_flags_and_flattens() -> None:
    divergence = torch.tensor([[0.5, 3.0]], requires_grad=True)
    value, saturated = bounded_kl(divergence, value_bound=2.0)
    assert value.tolist() == [[0.5, 2.0]]
    assert saturated.tolist() == [[False, True]]
    assert torch.autograd.grad(value.sum(), divergence)[0].tolist() == [[1.0, 0.0]]
