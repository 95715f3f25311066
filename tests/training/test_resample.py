"""Dynamic sampling: what is replaced, by what, how often, and on how many processes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch

from qhk.rollout.group import Group
from qhk.training.distributed import Processes
from qhk.training.earnings import Earnings
from qhk.training.resample import Resampled, replace_uninformative
from tests.training.test_credit import OneOfTwo, make_group

DULL, SHARP = (3.0, 3.0), (3.0, 4.0)
START = [make_group(place, "set", 3.0, scores) for place, scores in enumerate([DULL, SHARP, DULL, DULL])]
LATER = {(1, 0): SHARP, (1, 2): DULL, (1, 3): SHARP, (2, 2): DULL, (3, 2): SHARP}
"""(round, place) -> the scores of the group that is sampled there."""


def resample(processes: Processes, max_rounds: int) -> tuple[Resampled, list[tuple[int, int]]]:
    """What one process has afterwards, and the (round, place) pairs that it asked for."""
    own, asked = processes.own_part(4), list[tuple[int, int]]()

    def fresh(number: int, places: Sequence[int]) -> Any:
        asked.extend((number, place) for place in places)
        return [(number, place) for place in places]

    def sample(prompts: Any, number: int) -> list[Group]:
        assert all(prompt[0] == number for prompt in prompts)
        return [make_group(10 * number + place, "set", 3.0, LATER[number, place]) for _, place in prompts]

    def earn(groups: Sequence[Group]) -> Earnings:
        own = torch.tensor([[c.answer.score for c in group.completions] for group in groups])
        return Earnings(seen=[], breakdown={}, rewards=processes.gather_rows(own))

    return (
        replace_uninformative(
            START[own],
            earn(START[own]),
            max_rounds=max_rounds,
            own=own,
            fresh=fresh,
            sample=sample,
            earn=earn,
        ),
        asked,
    )


def ids(drawn: Resampled) -> list[str]:
    return [group.example.id for group in drawn.groups]


def test_groups_of_equal_rewards_are_replaced_until_none_is_left() -> None:
    drawn, asked = resample(Processes("single"), 9)
    assert asked == [(1, 0), (1, 2), (1, 3), (2, 2), (3, 2)]
    assert ids(drawn) == ["10", "1", "32", "13"]
    assert (drawn.num_rounds, drawn.num_prompts) == (3, 5)
    assert drawn.earnings.rewards.tolist() == [list(SHARP)] * 4


@pytest.mark.parametrize(("rounds", "left"), [(0, ["0", "1", "2", "3"]), (1, ["10", "1", "12", "13"])])
def test_rounds_are_limited_and_none_changes_nothing(rounds: int, left: list[str]) -> None:
    drawn, asked = resample(Processes("single"), rounds)
    assert ids(drawn) == left
    assert len(asked) == drawn.num_prompts == 3 * rounds


def test_two_processes_replace_what_one_replaces() -> None:
    alone, all_asked = resample(Processes("single"), 9)
    barrier, desk = Barrier(2), [None, None]
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(resample, OneOfTwo(rank, barrier, desk), 9) for rank in range(2)]
        parts = [future.result() for future in futures]
    assert [name for drawn, _ in parts for name in ids(drawn)] == ids(alone)
    assert sorted(pair for _, asked in parts for pair in asked) == sorted(all_asked)
    for drawn, _ in parts:
        assert (drawn.num_rounds, drawn.num_prompts) == (alone.num_rounds, alone.num_prompts)
        assert torch.equal(drawn.earnings.rewards, alone.earnings.rewards)
