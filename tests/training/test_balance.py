"""Prompts dealt out over processes and micro-batches: evenly, and without a trace in what is learnt."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qhk.settings.data import WHOLE, FramingSettings
from qhk.settings.objective import NO_COVARIANCE
from qhk.settings.root import Settings
from qhk.tracking.metrics import MetricSet
from qhk.training import step as step_module
from qhk.training.balance import WORTH, deal, largest_sum
from qhk.training.batch import Batch
from qhk.training.distributed import Processes
from qhk.training.inputs import plan, prompt_sizes
from qhk.training.run import Run
from qhk.training.step import even_out, select_tokens
from tests.training.test_advantages import BATCH, OneOfTwo, weighed, with_logprobs
from tests.training.test_step import Weights, largest_difference, one_step, spread_reward

SIZES = st.lists(st.integers(0, 1000), max_size=12)


@given(sizes=SIZES, count=st.integers(1, 4))
def test_each_place_is_dealt_once_and_the_largest_part_never_grows(sizes: list[int], count: int) -> None:
    first = -(-len(sizes) // count)
    capacities = [min(first, max(0, len(sizes) - first * part)) for part in range(count)]
    parts = deal(sizes, capacities, least=100)
    assert [len(part) for part in parts] == capacities
    assert sorted(place for part in parts for place in part) == list(range(len(sizes)))
    assert all(part == sorted(part) for part in parts)
    start, plain = 0, []
    for capacity in capacities:
        plain.append(list(range(start, start + capacity)))
        start += capacity
    after, before = largest_sum(sizes, parts), largest_sum(sizes, plain)
    assert parts == plain or (after <= WORTH * before and before - after >= 100)


def test_large_ones_are_spread() -> None:
    assert deal([9, 8, 1, 2], [2, 2], least=1) == [[0, 2], [1, 3]]
    assert deal([9, 8, 1, 2], [2, 2], least=8) == [[0, 1], [2, 3]], "17 would become 10"
    assert deal([5, 5, 5, 5], [2, 2], least=1) == [[0, 1], [2, 3]], "nothing is moved for nothing"
    assert deal([9, 8, 7, 8], [2, 2], least=1) == [[0, 1], [2, 3]], "17 would become 16"
    assert deal([7, 1, 6, 2, 5], [2, 2, 1], least=1) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("parts", [([0, 3], [1, 2]), ([3, 1], [2, 0])])
def test_a_step_knows_no_assignment(small: Callable[..., Settings], parts: Sequence[Sequence[int]]) -> None:
    """Rewards that compare images, advantages and selected tokens, on two processes with any prompts each."""
    settings = small("uncertainty=none")
    how = NO_COVARIANCE.model_copy(update={"form": "clip", "share": 0.2, "low": -0.2, "high": 0.9})

    def selected(own: Batch, processes: Processes) -> Batch:
        rng = np.random.default_rng(0)
        return select_tokens(own, covariance=how, rng=rng, processes=processes)

    whole = selected(with_logprobs(weighed(settings, BATCH, Processes("single"))), Processes("single"))
    barrier, desk = Barrier(2), [None, None]

    def part(rank: int) -> Batch:
        processes = OneOfTwo(rank, barrier, desk)
        own = weighed(settings, BATCH.select(parts[rank]), processes)
        return selected(with_logprobs(own), processes)

    with ThreadPoolExecutor(2) as threads:
        halves = [future.result() for future in [threads.submit(part, rank) for rank in range(2)]]
    for half, places in zip(halves, parts, strict=True):
        assert torch.equal(half.rewards, whole.rewards) and torch.equal(half.advantages, whole.advantages)
        assert half.counts == whole.counts and list(half.indices) == list(places)
        for own, place in zip(half.selected, places, strict=True):
            pairs = zip(own, whole.selected[place], strict=True)
            assert all(torch.equal(one, other) for one, other in pairs)


def test_micro_batches_get_even_tokens() -> None:
    """One long prompt with long answers goes beside a short one."""
    tokens = [(100, 500), (100, 480), (20, 10), (20, 40)]
    batch = Batch(
        indices=[4, 5, 6, 7],
        tasks=["score"] * 4,
        examples=[SimpleNamespace(id=str(place)) for place in range(4)],  # type: ignore[misc]
        epochs=[0] * 4,
        prompts=[SimpleNamespace(num_tokens=prompt) for prompt, _ in tokens],  # type: ignore[misc]
        groups=[SimpleNamespace(num_tokens=answers) for _, answers in tokens],  # type: ignore[misc]
        rewards=torch.zeros(8, 2),
    )
    evened = even_out(batch, size=2)
    assert list(evened.indices) == [4, 6, 5, 7]
    assert [one.num_tokens for one in evened.prompts] == [100, 20, 100, 20]
    assert [one.id for one in evened.examples] == ["0", "2", "1", "3"]
    assert evened.rewards is batch.rewards
    for size in (1, 4):
        assert list(even_out(batch, size=size).indices) == [4, 5, 6, 7]


@pytest.mark.parametrize("places", [[3, 1, 0, 2], [1, 3, 2, 0]])
def test_the_order_of_prompts_changes_rounding_alone(
    small: Callable[..., Settings],
    open_run: Callable[[Settings], Run],
    monkeypatch: pytest.MonkeyPatch,
    places: list[int],
) -> None:
    """With a KL in the reward, fresh prompts, a degraded branch, and a bonus on answers."""
    words = (
        *spread_reward("picky_reward"),
        *("model.dtype=float64", "perception=exact", "perception.gamma=0.1", "objective.max_resamples=1"),
        *("objective.kl_coef=0.3", "objective.kl_placement=reward", "objective.entropy_coef=0.1"),
        "objective.entropy_scope=answer",
    )

    def learnt(name: str, order: list[int]) -> tuple[Weights, MetricSet]:
        monkeypatch.setattr(step_module, "even_out", lambda batch, size: batch.in_order(order))
        return one_step(open_run(small(*words, name=name)))

    plain, one = learnt("plain", [0, 1, 2, 3])
    other, two = learnt("other", places)
    # AdamW's first step is the gradient's sign: tiny ones may flip.
    assert largest_difference(plain, other) < 1e-6
    first, second = one.values(), two.values()
    for name in ("train/loss/total", "train/optimizer/grad_norm", "train/reference/kl"):
        assert math.isclose(first[name], second[name], rel_tol=1e-6), name
    assert first["train/reward/total/mean"] == second["train/reward/total/mean"]


def test_sizes_are_those_that_the_model_sees(
    small: Callable[..., Settings], open_run: Callable[[Settings], Run]
) -> None:
    run = open_run(small())
    planned = plan(run.data, 0, seed=0, prompts_per_step=4)
    facts = [run.data.files[example.image] for example in planned.examples]
    plain = [one.width * one.height for one in facts]
    model = SimpleNamespace(min_pixels=1, max_pixels=10**9)
    settings: Any = SimpleNamespace(model=model, framing=WHOLE)
    assert prompt_sizes(planned, run.data, settings) == plain
    model.max_pixels = min(plain) - 1
    assert prompt_sizes(planned, run.data, settings) == [model.max_pixels] * 4
    settings.framing = FramingSettings(form="crop", side=8, pieces=None)
    assert prompt_sizes(planned, run.data, settings) == [64] * 4
