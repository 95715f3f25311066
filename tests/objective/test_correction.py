"""Weights of what another engine sampled: equal to a loop, bounded, and of the policy term alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from qhk.errors import UserError
from qhk.objective.correction import correction_weights
from tests.objective.test_total import COUNTS, FULL, MASK, OFF, Scene, naive_loss, toy_scene


@pytest.fixture
def scene() -> Scene:
    return toy_scene()


def sampled_elsewhere(scene: Scene, spread: float = 0.6) -> tuple[Tensor, Tensor]:
    """Log-probabilities (R, T) of the old policy, and those of an engine that is not quite the same."""
    old = scene.branch(scene.old, slice(None)).logprobs.detach()
    noise = torch.randn(old.shape, generator=torch.Generator().manual_seed(11), dtype=old.dtype)
    return old, old + spread * noise


def naive_weights(old: Tensor, sampled: Tensor, level: str, bound: float) -> list[list[float]]:
    rows = []
    for row in range(len(old)):
        length = int(MASK[row].sum())
        gaps = [float(old[row, t] - sampled[row, t]) for t in range(length)]
        gaps = [sum(gaps)] * length if level == "sequence" else gaps
        rows.append([min(math.exp(gap), bound) for gap in gaps] + [0.0] * (4 - length))
    return rows


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_weights_equal_a_loop_and_are_truncated(scene: Scene, level: str) -> None:
    old, sampled = sampled_elsewhere(scene)
    for bound in (1.0, 1.3, 100.0):
        weights = correction_weights(old, sampled, MASK, level=level, bound=bound)
        torch.testing.assert_close(
            weights, torch.tensor(naive_weights(old, sampled, level, bound), dtype=torch.float64)
        )
        assert bool((weights == bound).any()) == (bound < 100), "the bound should act in this example"


def test_two_distributions_come_out_right_on_average() -> None:
    """A mean over the sampler's tokens, so weighed, is the mean over the policy's."""
    policy, sampler = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.4, 0.4, 0.2])
    value = torch.tensor([1.0, -2.0, 5.0])
    weights = correction_weights(
        policy.log()[:, None],
        sampler.log()[:, None],
        torch.ones(3, 1, dtype=torch.bool),
        level="token",
        bound=9.0,
    )
    assert float((sampler * weights[:, 0] * value).sum()) == pytest.approx(float((policy * value).sum()))


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_loss_equals_a_loop_in_every_update(scene: Scene, level: str) -> None:
    """Weight (old policy to sampler), ratio (present to old policy) and clipping are three things."""
    old, sampled = sampled_elsewhere(scene)
    weights = naive_weights(old, sampled, level, 1.3)
    correction = correction_weights(old, sampled, MASK, level=level, bound=1.3)
    present = scene.branch(scene.original, slice(None)).logprobs.detach()
    for later in (False, True):
        total = 0.0
        for row in range(4):
            length = int(MASK[row].sum())
            for t in range(length):
                ratio = math.exp(float(present[row, t] - old[row, t])) if later else 1.0
                advantage = float(scene.advantages[row])
                gain = min(ratio * advantage, min(max(ratio, 0.8), 1.28) * advantage)
                total -= weights[row][t] * gain / length / COUNTS.sequences
        loss = scene.loss(OFF, old=later, correction=correction).loss
        assert loss.item() == pytest.approx(total, rel=1e-12)


def test_other_terms_keep_their_weight(scene: Scene) -> None:
    old, sampled = sampled_elsewhere(scene)
    correction = correction_weights(old, sampled, MASK, level="token", bound=2.0)
    without = scene.loss(FULL, correction=correction).loss - scene.loss(OFF, correction=correction).loss
    assert without.item() == pytest.approx(naive_loss(scene, FULL) - naive_loss(scene, OFF), rel=1e-12)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_equal_engines_change_no_bit_and_others_change_the_gradient(scene: Scene, level: str) -> None:
    old, sampled = sampled_elsewhere(scene)
    plain = scene.loss(FULL)
    for mu, same in ((old, True), (sampled, False)):
        weights = correction_weights(old, mu, MASK, level=level, bound=2.0)
        assert not weights.requires_grad
        corrected = scene.loss(FULL, correction=weights)
        assert torch.equal(plain.loss, corrected.loss) == same
        pairs = zip(scene.gradients(plain), scene.gradients(corrected), strict=True)
        assert torch.equal(*next(pairs)) == same, "the original branch"
        assert torch.equal(*next(pairs)), "the degraded branch has no part in it"


def test_no_gradient_and_nothing_outside_the_mask(scene: Scene) -> None:
    old, sampled = sampled_elsewhere(scene)
    learning = old.clone().requires_grad_()
    broken = torch.where(MASK, sampled, math.nan)
    weights = correction_weights(learning, broken, MASK, level="sequence", bound=2.0)
    assert not weights.requires_grad
    assert torch.equal(weights == 0, ~MASK)
    scene.mask = MASK
    assert scene.loss(replace(FULL), correction=torch.where(MASK, weights, math.nan)).loss.isfinite()


@pytest.mark.parametrize(("level", "bound"), [("word", 2.0), ("token", 0.5), ("token", math.nan)])
def test_what_makes_no_sense_is_refused(level: str, bound: float) -> None:
    one = torch.zeros(1, 1)
    with pytest.raises(UserError, match="rollout.correction"):
        correction_weights(one, one, one == 0, level=level, bound=bound)  # type: ignore[arg-type]
