"""Dynamic sampling: what is replaced, by what, how often, and on how many processes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
import torch

from qhk.training.batch import Batch
from qhk.training.distributed import Processes
from qhk.training.step import refill
from tests.training.test_advantages import OneOfTwo, make_batch

EQUAL, UNEQUAL = (3.0, 3.0), (3.0, 4.0)
START = make_batch([("set", 3.0, scores) for scores in (EQUAL, UNEQUAL, EQUAL, EQUAL)])
LATER = {(1, 0): UNEQUAL, (1, 2): EQUAL, (1, 3): UNEQUAL, (2, 2): EQUAL, (3, 2): UNEQUAL}
"""(round, place) -> the scores of the group that is sampled there."""


def refilled(processes: Processes, max_rounds: int) -> tuple[Batch, list[tuple[int, int]]]:
    """What one process has afterwards, and the (round, place) pairs that it asked for."""
    asked = list[tuple[int, int]]()

    def fresh(number: int, places: Sequence[int]) -> Batch:
        asked.extend((number, place) for place in places)
        none = Batch(indices=[], tasks=[], examples=[], epochs=[])
        return START.select(places) if places else none

    def sample(prompts: Batch, number: int) -> Batch:
        for row, place in enumerate(prompts.indices):
            scores = LATER[number, place]
            drawn = make_batch([("set", 3.0, scores)], first=10 * number + place)
            prompts = prompts.with_prompts([row], replace(drawn, indices=[place]))
        return prompts

    def reward(batch: Batch) -> Batch:
        scores = [[one.answer.score for one in group] for group in batch.completions]
        rewards = processes.gather_rows(torch.tensor(scores), batch.indices)
        return replace(batch, rewards=rewards, missing_rewards={"service": rewards == 3.0})

    batch = reward(START.select(processes.own_part([1.0] * 4)))
    filled = refill(
        batch,
        max_rounds=max_rounds,
        counted=lambda batch: processes.gather_rows(
            torch.tensor([[not one.truncated for one in group] for group in batch.completions]),
            batch.indices,
        ),
        fresh=fresh,
        sample=sample,
        reward=reward,
    )
    return filled, asked


def ids(batch: Batch) -> list[str]:
    return [example.id for example in batch.examples]


def test_groups_of_equal_rewards_are_replaced_until_none_is_left() -> None:
    batch, asked = refilled(Processes("single"), 9)
    assert asked == [(1, 0), (1, 2), (1, 3), (2, 2), (3, 2)]
    assert ids(batch) == ["10", "1", "32", "13"]
    assert list(batch.indices) == [0, 1, 2, 3]
    assert (batch.num_rounds, batch.num_resampled) == (3, 5)
    assert batch.missing_replaced == {"service": 5 * 2}  # 4 * 1 more are missing in the groups that stay
    assert batch.rewards.tolist() == [list(UNEQUAL)] * 4


def test_a_group_whose_difference_was_cut_off_is_replaced_as_well() -> None:
    asked: list[int] = []

    def fresh(number: int, places: Sequence[int]) -> Batch:
        asked.extend(places)
        return whole.select(places)

    whole = make_batch([("set", 3.0, (3.0, 3.0, 4.0))] * 2, cut=[(2,), (0,)])
    whole = replace(whole, rewards=torch.tensor([[3.0, 3.0, 4.0]] * 2))
    refill(
        whole,
        max_rounds=1,
        counted=lambda batch: torch.tensor([[True, True, False], [False, True, True]]),
        fresh=fresh,
        sample=lambda prompts, number: prompts,
        reward=lambda batch: batch,
    )
    assert asked == [0]


@pytest.mark.parametrize(("rounds", "left"), [(0, ["0", "1", "2", "3"]), (1, ["10", "1", "12", "13"])])
def test_rounds_are_limited_and_none_changes_nothing(rounds: int, left: list[str]) -> None:
    batch, asked = refilled(Processes("single"), rounds)
    assert ids(batch) == left
    assert len(asked) == batch.num_resampled == 3 * rounds


def test_two_processes_replace_what_one_replaces() -> None:
    alone, all_asked = refilled(Processes("single"), 9)
    barrier, desk = Barrier(2), [None, None]
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(refilled, OneOfTwo(rank, barrier, desk), 9) for rank in range(2)]
        parts = [future.result() for future in futures]
    assert [name for batch, _ in parts for name in ids(batch)] == ids(alone)
    assert sorted(pair for _, asked in parts for pair in asked) == sorted(all_asked)
    for batch, _ in parts:
        assert (batch.num_rounds, batch.num_resampled) == (alone.num_rounds, alone.num_resampled)
        assert torch.equal(batch.rewards, alone.rewards)
        assert batch.missing_replaced == alone.missing_replaced
