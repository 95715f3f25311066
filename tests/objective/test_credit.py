"""Which tokens an advantage goes to: each rule against a loop, and the places where it changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from qhk.objective.credit import (
    covariances,
    drawn_covariances,
    gated_credit,
    largest_covariances,
    top_tokens,
    visual_credit,
)

GENERATOR = torch.Generator().manual_seed(3)
VALUES = torch.rand(6, 7, generator=GENERATOR, dtype=torch.float64) * 2
MASK = torch.zeros(6, 7, dtype=torch.bool)
for row, length in enumerate((7, 5, 1, 0, 6, 3)):
    MASK[row, :length] = True
MASK[0, 2] = False  # a hole: not the policy's token
GROUP = 3


def tokens(row: int) -> list[int]:
    return [int(place) for place in MASK[row].nonzero().flatten()]


def top_loop(values: Tensor, share: float) -> Tensor:
    kept = torch.zeros_like(MASK)
    for row in range(len(values)):
        order = sorted(tokens(row), key=lambda t: -float(values[row, t]))
        for t in order[: math.ceil(share * len(order) - 1e-9)]:
            kept[row, t] = True
    return kept


@pytest.mark.parametrize("share", [0.1, 0.4, 0.5, 0.99, 1.0])
def test_the_largest_values_of_each_completion(share: float) -> None:
    kept = top_tokens(VALUES, MASK, share=share)
    assert torch.equal(kept, top_loop(VALUES, share))
    assert torch.equal(top_tokens(VALUES, MASK, share=1.0), MASK)


def test_of_equal_values_the_first_and_of_five_two_fifths_are_two() -> None:
    mask = torch.ones(1, 5, dtype=torch.bool)
    kept = top_tokens(torch.ones(1, 5), mask, share=0.4)
    assert kept.tolist() == [[True, True, False, False, False]]


def visual_loop(dependency: Tensor, share: float, lowest: float) -> Tensor:
    kept, weights = top_loop(dependency, share), torch.zeros_like(dependency)
    for start in range(0, len(dependency), GROUP):
        rows = [row for row in range(start, start + GROUP) if tokens(row)]
        means = {row: sum(float(dependency[row, t]) for t in tokens(row)) / len(tokens(row)) for row in rows}
        low, high = min(means.values()), max(means.values())
        for row in rows:
            if high > low:
                relative = {r: (means[r] - low) / (high - low) for r in rows}
                highest = lowest + (1 - lowest) / (sum(relative.values()) / len(rows))
                weight = lowest + (highest - lowest) * relative[row]
            else:
                weight = 1.0
            for t in tokens(row):
                weights[row, t] = weight * float(kept[row, t])
    return weights


@pytest.mark.parametrize(("share", "lowest"), [(0.4, 0.9), (1.0, 0.0), (0.2, 1.0)])
def test_vppo_against_a_loop(share: float, lowest: float) -> None:
    found = visual_credit(VALUES, MASK, group_size=GROUP, share=share, lowest=lowest)
    torch.testing.assert_close(found, visual_loop(VALUES, share, lowest), rtol=1e-12, atol=1e-12)


def test_vppo_weighs_the_completions_of_a_group_by_one_in_the_mean() -> None:
    found = visual_credit(VALUES, MASK, group_size=GROUP, share=1.0, lowest=0.9)
    own = [float(found[row, 0]) for row in (0, 1, 2)]
    assert sum(own) / 3 == pytest.approx(1.0) and min(own) == pytest.approx(0.9) and max(own) > 1.05
    alike = visual_credit(torch.ones_like(VALUES), MASK, group_size=GROUP, share=1.0, lowest=0.9)
    assert torch.equal(alike, MASK.double())


@pytest.mark.parametrize(("threshold", "strength"), [(0.5, 1.0), (0.0, 2.0), (1.0, 0.5)])
def test_pgpo_against_a_loop_and_the_sum_stays(threshold: float, strength: float) -> None:
    found = gated_credit(VALUES, MASK, threshold=threshold, strength=strength)
    for row in range(len(VALUES)):
        places = tokens(row)
        largest = max((float(VALUES[row, t]) for t in places), default=1.0)
        gates = {}
        for t in places:
            v = float(VALUES[row, t]) / largest
            gates[t] = 1 + strength * v if v >= threshold else v / threshold
        for t in places:
            expected = len(places) * gates[t] / sum(gates.values())
            assert float(found[row, t]) == pytest.approx(expected, rel=1e-12)
        assert float(found[row].sum()) == pytest.approx(len(places))
    assert not found[~MASK].any()


def test_pgpo_without_a_dependency_or_a_strength_changes_nothing() -> None:
    assert torch.equal(gated_credit(VALUES * 0, MASK, threshold=0.5, strength=1.0), MASK.double())
    torch.testing.assert_close(gated_credit(VALUES, MASK, threshold=0.0, strength=0.0), MASK.double())


def test_covariances_and_the_tokens_that_they_select() -> None:
    logprobs = -torch.rand(50, generator=GENERATOR, dtype=torch.float64)
    advantages = torch.randn(50, generator=GENERATOR, dtype=torch.float64)
    found = covariances(logprobs, advantages)
    lp, a = logprobs.tolist(), advantages.tolist()
    expected = [(x - sum(lp) / 50) * (y - sum(a) / 50) for x, y in zip(lp, a, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    for share, number in ((0.001, 1), (0.1, 5), (1.0, 50)):
        chosen = largest_covariances(found, share=share)
        best = sorted(range(50), key=lambda i: -expected[i])[:number]
        assert sorted(chosen.nonzero().flatten().tolist()) == sorted(best)
    order = torch.from_numpy(np.random.default_rng(0).permutation(50))
    low, high = sorted(expected)[20], sorted(expected)[40]
    drawn = drawn_covariances(found, share=0.1, low=low, high=high, order=order)
    inside = [i for i in order.tolist() if low < expected[i] < high]
    assert drawn.nonzero().flatten().tolist() == sorted(inside[:5])
    assert not drawn_covariances(found, share=0.1, low=9.0, high=10.0, order=order).any()
    nothing = torch.zeros(0, dtype=torch.float64)
    assert not len(largest_covariances(covariances(nothing, nothing), share=0.1))
