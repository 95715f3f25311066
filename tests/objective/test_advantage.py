from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qhk.objective.advantage import (
    decoupled_advantages,
    equal_rewards,
    flat_groups,
    group_advantages,
)

REWARDS = torch.tensor([[0.1, 0.9, 0.4, 0.4], [1.8, 0.0, 1.0, 0.2]], dtype=torch.float64)


def naive(rewards: list[list[float]], scaling: str, epsilon: float) -> list[list[float]]:
    everything = [value for group in rewards for value in group]
    rows = []
    for group in rewards:
        scale = {
            "group_std": statistics.stdev(group) + epsilon,
            "batch_std": statistics.stdev(everything) + epsilon,
            "none": 1.0,
        }[scaling]
        rows.append([(value - statistics.fmean(group)) / scale for value in group])
    return rows


@pytest.mark.parametrize("scaling", ["group_std", "batch_std", "none"])
def test_equals_a_loop(scaling: str) -> None:
    got = group_advantages(REWARDS, scaling=scaling, epsilon=1e-4)
    expected = torch.tensor(naive(REWARDS.tolist(), scaling, 1e-4), dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)


def test_hand_worked_unbiased_std_and_epsilon() -> None:
    # mean 2, unbiased std sqrt(2), so (1 - 2) / (1.41421... + 0.5)
    got = group_advantages(torch.tensor([[1.0, 3.0]], dtype=torch.float64), scaling="group_std", epsilon=0.5)
    assert got.tolist()[0] == pytest.approx([-0.5224077499274832, 0.5224077499274832])


@pytest.mark.parametrize("scaling", ["group_std", "batch_std", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_give_exactly_zero(scaling: str, dtype: torch.dtype) -> None:
    rewards = torch.tensor([[0.1] * 7, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]], dtype=dtype)
    got = group_advantages(rewards, scaling=scaling, epsilon=0.0)
    assert (got[0] == 0).all()
    assert got[1].abs().max() > 0.2


@given(
    st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
    st.permutations(range(4)),
    st.floats(-5, 5, width=32),
)
def test_ignores_a_shift_and_follows_a_permutation(
    group: list[float], order: list[int], shift: float
) -> None:
    rewards = torch.tensor([group], dtype=torch.float64)
    plain = group_advantages(rewards, scaling="group_std", epsilon=1e-4)
    moved = group_advantages(rewards[:, order] + shift, scaling="group_std", epsilon=1e-4)
    torch.testing.assert_close(moved, plain[:, order], rtol=1e-6, atol=1e-6)
    assert plain.sum().abs() < 1e-9


def test_other_groups_matter_to_batch_std_alone() -> None:
    other = torch.cat([REWARDS[:1], REWARDS[1:] * 3])
    for scaling, same in (("group_std", True), ("none", True), ("batch_std", False)):
        first = group_advantages(REWARDS, scaling=scaling, epsilon=1e-4)[0]
        second = group_advantages(other, scaling=scaling, epsilon=1e-4)[0]
        assert torch.equal(first, second) is same


def test_refuses_single_completions_and_unknown_scalings() -> None:
    with pytest.raises(ValueError, match=r"rollout\.group_size: got 1"):
        group_advantages(torch.zeros(3, 1), scaling="group_std", epsilon=1e-4)
    with pytest.raises(ValueError, match=r"objective\.advantage_scaling: unknown 'std'"):
        group_advantages(torch.zeros(3, 2), scaling="std", epsilon=1e-4)  # type: ignore[arg-type]


COUNTED = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1]], dtype=torch.bool)


@pytest.mark.parametrize("scaling", ["group_std", "batch_std", "none"])
def test_what_is_not_counted_is_as_if_it_had_not_been_sampled(scaling: str) -> None:
    """Against the loop over the completions that are left, groups being of equal size here."""
    left = [
        [value for value, keep in zip(*rows, strict=True) if keep]
        for rows in zip(REWARDS.tolist(), COUNTED, strict=True)
    ]
    expected = naive(left, scaling, 1e-4)
    got = group_advantages(REWARDS, scaling=scaling, epsilon=1e-4, counted=COUNTED)
    for row, keep, values in zip(got, COUNTED, expected, strict=True):
        assert row[keep].tolist() == pytest.approx(values, rel=1e-12)
        assert (row[~keep] == 0).all()
    wild = torch.where(COUNTED, REWARDS, 1e6)
    assert torch.equal(group_advantages(wild, scaling=scaling, epsilon=1e-4, counted=COUNTED), got)


@pytest.mark.parametrize("scaling", ["group_std", "batch_std", "none"])
def test_counting_everyone_changes_no_bit(scaling: str) -> None:
    everyone = torch.ones_like(COUNTED)
    plain = group_advantages(REWARDS, scaling=scaling, epsilon=1e-4)
    assert torch.equal(group_advantages(REWARDS, scaling=scaling, epsilon=1e-4, counted=everyone), plain)


@pytest.mark.parametrize("scaling", ["group_std", "batch_std", "none"])
def test_fewer_than_two_counted_or_equal_ones_have_no_advantage(scaling: str) -> None:
    rewards = torch.tensor([[0.1, 0.9, 0.4], [0.1, 0.1, 0.7], [0.3, 0.2, 0.1]])
    counted = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.bool)
    got = group_advantages(rewards, scaling=scaling, epsilon=0.0, counted=counted)
    assert (got == 0).all()
    nobody = torch.zeros_like(counted)
    assert (group_advantages(rewards, scaling=scaling, epsilon=0.0, counted=nobody) == 0).all()


def test_equal_rewards_are_found_exactly() -> None:
    rewards = torch.tensor([[0.3, 0.3, 0.3], [0.3, 0.3, 0.3 + 1e-15], [1.0, 0.0, 1.0]], dtype=torch.float64)
    assert equal_rewards(rewards).tolist() == [True, False, False]


def test_gdpo_against_a_loop() -> None:
    """Each reward over its group's std, weighted and added, then over the std of the whole batch."""
    generator = torch.Generator().manual_seed(1)
    rewards = [torch.rand(3, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    rewards[1][0] = 0.7  # a reward that is equal throughout a group adds nothing there
    weights = [1.0, 0.25]
    sums = []
    for group in range(3):
        for place in range(4):
            total = 0.0
            for reward, weight in zip(rewards, weights, strict=True):
                row = reward[group].tolist()
                mean = sum(row) / 4
                std = (sum((value - mean) ** 2 for value in row) / 3) ** 0.5
                if std > 1e-12:
                    total += weight * (row[place] - mean) / (std + 1e-4)
            sums.append(total)
    mean = sum(sums) / 12
    std = (sum((value - mean) ** 2 for value in sums) / 11) ** 0.5
    found = decoupled_advantages(rewards, weights, epsilon=1e-4)
    assert found.flatten().tolist() == pytest.approx([value / (std + 1e-4) for value in sums], abs=1e-12)


def test_gdpo_tells_groups_apart_that_a_sum_makes_alike() -> None:
    """(0, 1) and (0, 2): the same advantages of the total; of two rewards one by one, twice as large."""
    first, second = torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    together = group_advantages(first + second, scaling="group_std", epsilon=0.0)
    torch.testing.assert_close(together[0], together[1])
    apart = decoupled_advantages([first, second], [1.0, 1.0], epsilon=0.0)
    torch.testing.assert_close(apart[1], 2 * apart[0])


def test_gdpo_leaves_completions_out_and_equal_groups_at_zero() -> None:
    rewards = torch.tensor([[0.1, 0.5, 9.0], [0.3, 0.3, 0.3]], dtype=torch.float64)
    counted = torch.tensor([[True, True, False], [True, True, True]])
    found = decoupled_advantages([rewards], [1.0], epsilon=0.0, counted=counted)
    assert found[0, 2] == 0 and not found[1].any()
    assert found[0, 0].item() == pytest.approx(-found[0, 1].item()) and found[0, 0] < 0


def test_flat_groups_are_equal_or_spread_less_than_asked() -> None:
    rewards = torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.1, 0.2], [0.0, 1.0, 2.0]], dtype=torch.float64)
    assert flat_groups(rewards, minimum_std=0.0).tolist() == [True, False, False]
    assert flat_groups(rewards, minimum_std=0.0999).tolist() == [True, False, False]
    assert flat_groups(rewards, minimum_std=0.11).tolist() == [True, True, False]


def test_flat_groups_are_judged_by_the_completions_that_count() -> None:
    rewards = torch.tensor(
        [[0.5, 0.5, 2.0], [0.0, 0.1, 0.2], [0.0, 9.0, 0.05], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
    ).double()
    counted = torch.tensor(
        [[True, True, False], [True, False, True], [True, False, True], [False, True, False], [True] * 3]
    )
    assert flat_groups(rewards, minimum_std=0.0, counted=counted).tolist() == [
        True,
        False,
        False,
        True,
        False,
    ]
    # Of 0 and 0.05 the deviation is 0.035, of 0 and 0.2 it is 0.141.
    assert flat_groups(rewards, minimum_std=0.1, counted=counted).tolist() == [True, False, True, True, False]
    for minimum_std in (0.0, 0.15):
        whole = flat_groups(rewards, minimum_std=minimum_std)
        assert torch.equal(flat_groups(rewards, minimum_std=minimum_std, counted=counted | True), whole)
        for number, (row, left) in enumerate(zip(rewards, counted, strict=True)):
            if left.sum() > 1:
                alone = flat_groups(row[left][None], minimum_std=minimum_std)
                both = flat_groups(rewards, minimum_std=minimum_std, counted=counted)
                assert bool(alone) == bool(both[number])
