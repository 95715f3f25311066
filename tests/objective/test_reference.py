from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qhk.objective.reference import kl_estimate, sequence_kl

POLICY = torch.tensor([0.3, -1.2, 0.8, 0.0, 0.1], dtype=torch.float64)
REFERENCE = torch.tensor([-0.5, 0.4, 0.2, 1.0, -0.3], dtype=torch.float64)


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum()


def expected_value_and_gradient(estimator: str) -> tuple[Tensor, Tensor]:
    """Exact expectation over all tokens, the samples being held fixed as in training."""
    logits = POLICY.clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    estimates = kl_estimate(logprobs, REFERENCE.log_softmax(0), estimator=estimator)
    value = (logprobs.detach().exp() * estimates).sum()
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def exact_gradient(reverse: bool) -> Tensor:
    logits = POLICY.clone().requires_grad_()
    pair = (logits.log_softmax(0), REFERENCE.log_softmax(0))
    (gradient,) = torch.autograd.grad(kl(*(pair[::-1] if reverse else pair)), logits)
    return gradient


def test_by_hand() -> None:
    policy, reference = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([-0.5], dtype=torch.float64)
    assert kl_estimate(policy, reference, estimator="k1").item() == pytest.approx(-0.5)
    assert kl_estimate(policy, reference, estimator="k2").item() == pytest.approx(0.125)
    assert kl_estimate(policy, reference, estimator="k3").item() == pytest.approx(0.1487213, abs=1e-7)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(estimator: str) -> None:
    value, _ = expected_value_and_gradient(estimator)
    torch.testing.assert_close(value, kl(POLICY.log_softmax(0), REFERENCE.log_softmax(0)))


def test_expected_gradients_are_those_stated() -> None:
    assert expected_value_and_gradient("k1")[1].abs().max() < 1e-15
    torch.testing.assert_close(expected_value_and_gradient("k2")[1], exact_gradient(reverse=False))
    torch.testing.assert_close(expected_value_and_gradient("k3")[1], exact_gradient(reverse=True))


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_gradient_reaches_the_policy_alone(estimator: str) -> None:
    policy, reference = POLICY.clone().requires_grad_(), REFERENCE.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: kl_estimate(p, REFERENCE, estimator=estimator), policy)
    estimates = kl_estimate(policy, reference, estimator=estimator)
    gradients = torch.autograd.grad(estimates.sum(), [policy, reference], allow_unused=True)
    assert gradients[0] is not None
    assert gradients[1] is None


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_equal_policies_diverge_by_nothing(estimator: str) -> None:
    assert (kl_estimate(POLICY, POLICY.clone(), estimator=estimator) == 0).all()


def test_unknown_estimator_is_refused() -> None:
    with pytest.raises(ValueError, match=r"objective\.kl_estimator: unknown estimator 'k4'"):
        kl_estimate(POLICY, REFERENCE, estimator="k4")  # type: ignore[arg-type]


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_completions_divergence_is_the_sum_over_its_tokens(estimator: str) -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    policy = torch.where(mask, torch.tensor([[-1.0, -2.0, 0.0], [-0.3, 0.0, 0.0], [0.0] * 3]), torch.nan)
    reference = torch.where(mask, torch.tensor([[-0.5, -2.5, 0.0], [-0.4, 0.0, 0.0], [0.0] * 3]), torch.inf)
    got = sequence_kl(policy.requires_grad_(), reference, mask, estimator=estimator)
    loop = [
        sum(kl_estimate(p, r, estimator=estimator).item() for p, r, m in zip(*row, strict=True) if m)
        for row in zip(policy.double(), reference.double(), mask, strict=True)
    ]
    assert got.tolist() == pytest.approx(loop, rel=1e-14)
    assert got.dtype == torch.float64 and not got.requires_grad


def test_the_policy_gradient_of_k1_as_a_reward_is_that_of_the_divergence() -> None:
    """Over all completions of two tokens: ``sum p(y) K(y) grad log p(y) = grad KL(policy || reference)``."""
    logits = torch.stack([POLICY, POLICY.flip(0)]).requires_grad_()
    logprobs, reference = logits.log_softmax(1), torch.stack([REFERENCE, REFERENCE * 0.5]).log_softmax(1)
    gain = torch.zeros((), dtype=torch.float64)
    for first in range(5):
        for second in range(5):
            chosen = torch.tensor([[first], [second]])
            tokens, theirs = logprobs.gather(1, chosen).T, reference.gather(1, chosen).T
            penalty = sequence_kl(tokens, theirs, torch.ones(1, 2, dtype=torch.bool), estimator="k1")
            probability = tokens.detach().sum().exp()
            gain = gain + probability * penalty[0] * tokens.sum()
    (gradient,) = torch.autograd.grad(gain, logits)
    fresh = logits.detach().clone().requires_grad_()
    exact = sum(kl(row, other) for row, other in zip(fresh.log_softmax(1), reference, strict=True))
    (expected,) = torch.autograd.grad(exact, fresh)  # type: ignore[arg-type]
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)
