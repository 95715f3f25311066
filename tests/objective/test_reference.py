from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qhk.objective.reference import kl_estimate

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
