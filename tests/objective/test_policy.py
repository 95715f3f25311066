from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from qhk.objective.policy import Ratio, Surrogate, policy_loss

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    logprobs = -3 * torch.rand(3, 4, generator=generator, dtype=torch.float64)
    old = logprobs + 0.6 * torch.randn(3, 4, generator=generator, dtype=torch.float64)
    return logprobs, old, torch.tensor([1.5, -0.7, 0.2], dtype=torch.float64)


def naive(
    logprobs: Tensor, old: Tensor, advantages: Tensor, ratio: str, low: float | None, high: float | None
) -> tuple[Tensor, Tensor]:
    losses, flags = torch.zeros_like(logprobs), torch.zeros_like(MASK)
    for row in range(len(logprobs)):
        length = int(MASK[row].sum())
        mean = sum(float(logprobs[row, t] - old[row, t]) for t in range(length)) / length
        for t in range(length):
            r = math.exp(mean if ratio == "sequence" else float(logprobs[row, t] - old[row, t]))
            bounded = r if low is None else max(r, 1 - low)
            bounded = bounded if high is None else min(bounded, 1 + high)
            advantage = float(advantages[row])
            losses[row, t] = -min(r * advantage, bounded * advantage)
            flags[row, t] = bounded * advantage < r * advantage
    return losses, flags


@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize(
    "bounds", [(None, None), (0.2, 0.2), (0.2, 0.28), (0.2, None), (None, 0.2), (3e-4, 4e-4)]
)
def test_equals_a_loop(ratio: str, bounds: tuple[float | None, float | None]) -> None:
    logprobs, old, advantages = batch()
    got, clipped = policy_loss(
        logprobs, old, advantages, MASK, ratio=ratio, clip_low=bounds[0], clip_high=bounds[1]
    )
    expected, flags = naive(logprobs, old, advantages, ratio, *bounds)
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)
    assert torch.equal(clipped, flags)


def test_clipping_acts_on_the_side_that_the_advantage_pushes_to() -> None:
    logprobs = torch.tensor([[0.5, -0.5], [0.5, -0.5]], dtype=torch.float64, requires_grad=True)
    losses, clipped = policy_loss(
        logprobs,
        torch.zeros(2, 2, dtype=torch.float64),
        torch.tensor([1.0, -1.0], dtype=torch.float64),
        torch.ones(2, 2, dtype=torch.bool),
        ratio="token",
        clip_low=0.2,
        clip_high=0.28,
    )
    assert clipped.tolist() == [[True, False], [False, True]]
    expected = [[-1.28, -math.exp(-0.5)], [math.exp(0.5), 0.8]]
    assert torch.allclose(losses, torch.tensor(expected, dtype=torch.float64), rtol=1e-14)
    losses.sum().backward()
    assert logprobs.grad is not None
    assert (logprobs.grad == 0).tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_one_update_is_the_plain_policy_gradient_and_never_clips(ratio: str) -> None:
    logprobs, _, advantages = batch()
    logprobs.requires_grad_()
    losses, clipped = policy_loss(logprobs, None, advantages, MASK, ratio=ratio, clip_low=0.2, clip_high=0.2)
    assert torch.equal(losses, torch.where(MASK, -advantages[:, None], 0.0))
    assert not clipped.any()
    (gradient,) = torch.autograd.grad((losses / MASK.sum(1, keepdim=True)).sum(), logprobs)
    expected = torch.where(MASK, -advantages[:, None], 0.0) / MASK.sum(1, keepdim=True)
    torch.testing.assert_close(gradient, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_gradient_by_finite_differences(ratio: str) -> None:
    logprobs, old, advantages = batch()

    def loss(values: Tensor) -> Tensor:
        return policy_loss(values, old, advantages, MASK, ratio=ratio, clip_low=0.2, clip_high=0.28)[0]

    assert torch.autograd.gradcheck(loss, logprobs.requires_grad_())


def test_sequence_ratio_couples_the_tokens_of_a_completion_only() -> None:
    logprobs, old, advantages = batch()
    logprobs.requires_grad_()
    losses, _ = policy_loss(logprobs, old, advantages, MASK, ratio="sequence", clip_low=None, clip_high=None)
    (gradient,) = torch.autograd.grad(losses[0, 0], logprobs)
    assert (gradient != 0).tolist() == [[True, True, True, False], [False] * 4, [False] * 4]


def test_old_logprobs_and_advantages_are_detached() -> None:
    logprobs, old, advantages = (value.requires_grad_() for value in batch())
    losses, _ = policy_loss(logprobs, old, advantages, MASK, ratio="token", clip_low=0.2, clip_high=0.2)
    gradients = torch.autograd.grad(losses.sum(), [logprobs, old, advantages], allow_unused=True)
    assert gradients[0] is not None
    assert gradients[1:] == (None, None)


def test_values_outside_the_mask_change_nothing() -> None:
    logprobs, old, advantages = batch()
    spoiled = torch.where(MASK, logprobs, torch.nan).requires_grad_()
    clean = logprobs.clone().requires_grad_()
    for ratio in ("token", "sequence"):
        results = []
        for values in (clean, spoiled):
            losses, _ = policy_loss(values, old, advantages, MASK, ratio=ratio, clip_low=0.2, clip_high=0.2)
            (gradient,) = torch.autograd.grad(losses.sum(), values)
            results.append((losses, gradient))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])


def test_an_empty_completion_is_harmless() -> None:
    mask = torch.zeros(1, 3, dtype=torch.bool)
    losses, _ = policy_loss(
        torch.zeros(1, 3), None, torch.ones(1), mask, ratio="sequence", clip_low=0.2, clip_high=0.2
    )
    assert losses.tolist() == [[0.0, 0.0, 0.0]]


def test_unknown_ratio_is_refused() -> None:
    with pytest.raises(ValueError, match=r"objective\.ratio: unknown ratio 'word'"):
        policy_loss(
            torch.zeros(1, 1), None, torch.ones(1), MASK[:1, :1], ratio="word", clip_low=None, clip_high=None
        )


@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize("surrogate", ["cispo", "sapo"])
def test_cispo_and_sapo_against_loops(surrogate: Surrogate, ratio: Ratio) -> None:
    """Value and gradient, token by token; CISPO's ratio has no gradient, SAPO's sigmoid has its own."""
    generator = torch.Generator().manual_seed(5)
    old = -torch.rand(3, 4, generator=generator, dtype=torch.float64) * 3
    logprobs = (old + torch.randn(3, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    advantages = torch.tensor([1.5, -0.7, 0.0], dtype=torch.float64)
    bounds = {
        "clip_low": None if surrogate == "sapo" else 0.4,
        "clip_high": None if surrogate == "sapo" else 0.3,
    }
    loss, clipped = policy_loss(
        logprobs,
        old,
        advantages,
        mask,
        ratio=ratio,
        surrogate=surrogate,
        soft_positive=1.0,
        soft_negative=1.05,
        **bounds,
    )
    loss.sum().backward()
    assert logprobs.grad is not None
    for row in range(3):
        length = int(mask[row].sum())
        gaps = [float(logprobs[row, t].detach() - old[row, t]) for t in range(length)]
        a, slopes = float(advantages[row]), []
        for t in range(length):
            r = math.exp(gaps[t] if ratio == "token" else sum(gaps) / length)
            if surrogate == "cispo":
                weight = min(max(r, 0.6), 1.3)
                value, slope = -weight * a * float(logprobs[row, t].detach()), -weight * a
                assert bool(clipped[row, t]) is (weight != r)
            else:
                tau = 1.0 if a > 0 else 1.05
                soft = 1 / (1 + math.exp(-tau * (r - 1)))
                value, slope = -4 / tau * soft * a, -4 * soft * (1 - soft) * a * r
                assert not clipped[row, t]
            assert float(loss[row, t].detach()) == pytest.approx(value, abs=1e-12)
            slopes.append(slope)
        if ratio == "sequence" and surrogate == "sapo":
            slopes = [sum(slopes) / length] * length
        assert logprobs.grad[row, :length].tolist() == pytest.approx(slopes, abs=1e-12)
        assert not logprobs.grad[row, length:].any()


@pytest.mark.parametrize("surrogate", ["cispo", "sapo"])
def test_in_the_first_update_every_surrogate_is_the_plain_policy_gradient(surrogate: Surrogate) -> None:
    bounds = {"clip_low": None, "clip_high": None}
    grads = []
    for kind in ("clip", surrogate):
        logprobs = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]], dtype=torch.float64, requires_grad=True)
        loss, _ = policy_loss(
            logprobs,
            None,
            torch.tensor([0.8, -1.1], dtype=torch.float64),
            torch.ones(2, 2, dtype=torch.bool),
            ratio="token",
            surrogate=kind,
            **bounds,
        )
        loss.sum().backward()
        grads.append(logprobs.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-15, atol=1e-15)
