"""Rewards and advantages: what compares images sees the whole step, whichever process holds which image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qhk.objective.advantage import decoupled_advantages, group_advantages
from qhk.objective.credit import covariances, drawn_covariances, largest_covariances
from qhk.rewards.batch import ScoredGroup
from qhk.rewards.compose import build_terms
from qhk.rewards.fidelity import thurstone_fidelity
from qhk.rewards.term import CompletionsTerm, Judge
from qhk.rollout.decode import Group
from qhk.settings.objective import NO_COVARIANCE
from qhk.settings.root import Settings
from qhk.settings.views import build_tasks
from qhk.tasks import Task, find_form
from qhk.training.batch import Batch
from qhk.training.distributed import Processes
from qhk.training.metrics import reward_metrics
from qhk.training.run import Run
from qhk.training.step import add_advantages, count_missing, reward, select_tokens
from qhk.types import Answer, Completion, Example
from tests.training.test_step import largest_difference, one_step

SCORES: list[tuple[str, float, tuple[float | None, ...]]] = [
    ("one", 3.0, (3.0, 3.2, 3.4)),
    ("two", 4.0, (1.0, None, 2.0)),
    ("one", 2.2, (2.0, 2.5, 2.1)),
    ("one", 3.0, (4.0, 3.1, 3.6)),
]
FIDELITY: dict[str, Any] = {
    "epsilon": 1e-6,
    "variance": "estimated",
    "form": "continuous",
    "opponent": "mean",
    "alone": 0.7,
}
SPEC: dict[str, dict[str, Any]] = {
    "fidelity": {"_target_": "qhk.rewards.fidelity.thurstone_fidelity", "weight": 2.0, **FIDELITY},
    "length": {"_target_": "tests.training.test_step.length_reward", "weight": 0.5},
}


class OneOfTwo(Processes):
    """One of two processes that are threads: gathering waits for the other."""

    def __init__(self, rank: int, barrier: Barrier, desk: list[Any]) -> None:
        super().__init__("single")
        self.rank, self.count = rank, 2
        self._barrier, self._desk = barrier, desk

    def gather_items(self, items: Sequence[Any]) -> list[Any]:
        self._desk[self.rank] = list(items)
        self._barrier.wait(timeout=30)
        gathered = [*self._desk[0], *self._desk[1]]
        self._barrier.wait(timeout=30)
        return gathered


Row = tuple[str, float, Sequence[float | None]]
"""Data set, opinion, and the scores of the completions."""


def make_batch(rows: Sequence[Row], *, first: int = 0, cut: Sequence[Sequence[int]] = ()) -> Batch:
    """Prompts of the ids ``first``, ``first + 1``, ... with completions of id, id + 1, ... tokens.

    ``cut`` says of each prompt which of its completions the length limit cut.
    """
    numbers = range(first, first + len(rows))
    examples = [
        Example(
            id=str(number),
            dataset=dataset,
            image=Path("x.png"),
            mos=mos,
            mos_native=mos,
            higher_is_better=True,
        )
        for number, (dataset, mos, _) in zip(numbers, rows, strict=True)
    ]
    completions = [
        [
            Completion(
                text="x" * place,
                answer=Answer(score=score),
                num_tokens=number + place,
                truncated=place in (cut[number - first] if cut else ()),
            )
            for place, score in enumerate(scores)
        ]
        for number, (_, _, scores) in zip(numbers, rows, strict=True)
    ]
    return Batch(
        indices=numbers,
        tasks=["score"] * len(rows),
        examples=examples,
        epochs=[0] * len(rows),
        completions=completions,
    )


BATCH = make_batch(SCORES)


def weighed(
    settings: Settings,
    batch: Batch,
    processes: Processes,
    *,
    spec: Mapping[str, dict[str, Any]] = SPEC,
    alpha: float = 0.5,
    divergence: Tensor | None = None,
    memory: Mapping[str, float] | None = None,
) -> Batch:
    """The batch with rewards and advantages, as one process computes them for its own prompts."""
    return add_advantages(
        reward(batch, terms={"score": build_terms(spec)}, processes=processes),
        objective=settings.objective,
        uncertainty=settings.uncertainty,
        tasks=build_tasks(settings),
        alpha=alpha,
        divergence=divergence,
        memory=memory or {},
        processes=processes,
    )


def in_two(
    settings: Settings, batch: Batch, *, divergence: Tensor | None = None, **options: Any
) -> list[Batch]:
    """What two processes have, of which each owns two prompts."""
    barrier, desk = Barrier(2), [None, None]

    def part(rank: int) -> Batch:
        rows = slice(2 * rank, 2 * rank + 2)
        own = None if divergence is None else divergence[rows]
        return weighed(
            settings,
            batch.select(range(rows.start, rows.stop)),
            OneOfTwo(rank, barrier, desk),
            divergence=own,
            **options,
        )

    with ThreadPoolExecutor(2) as threads:
        return [future.result() for future in [threads.submit(part, rank) for rank in range(2)]]


def test_advantages_carry_the_uncertainty_weight(small: Callable[..., Settings]) -> None:
    """Scores of variance 2/3 shrink their group's advantages by e^(-alpha u); equal scores leave theirs."""
    batch = make_batch([("one", 3.0, (2.0, 3.0, 4.0)), ("one", 3.0, (3.0, 3.0, 3.0))])

    def with_form(form: str) -> Batch:
        settings = small(f"uncertainty={form}", name=form)
        only = {"length": SPEC["length"]}
        return weighed(settings, batch, Processes("single"), spec=only, alpha=1.0)

    plain, weighted = with_form("none"), with_form("exponential")
    variance, largest = 2 / 3, 4.0
    expected = torch.tensor([math.exp(-variance / largest), 1.0], dtype=torch.float64)
    assert torch.allclose(weighted.weights.double(), expected, atol=1e-6)
    assert bool((plain.weights == 1).all())
    assert float(plain.advantages.abs().max()) > 0.1
    assert torch.allclose(weighted.advantages, plain.advantages * expected[:, None], atol=1e-6)


def test_the_weight_may_read_the_answers_by_a_rule_of_its_own(small: Callable[..., Settings]) -> None:
    """As the release of Q-Hawkeye, which reads signs there and no 3. or .5; a group of words weighs 1."""
    texts = [("3.", "+1", "5", "-2"), ("3.", ".5", "good", "4"), ("1", "5", "1", "5"), ("1", "5", "1", "5")]
    batch = make_batch([("one", 3.0, (3.0, 3.0, 3.0, None))] * 4)
    written = [
        [replace(one, text=f"<answer>{text}</answer>") for one, text in zip(row, own, strict=True)]
        for row, own in zip(batch.completions, texts, strict=True)
    ]
    batch = replace(batch, completions=written, tasks=["score", "score", "score", "words"])
    settings = small(
        "uncertainty.answer_rule=q_hawkeye_release_uncertainty", "uncertainty.unparsed_weight=0.5"
    )
    words = find_form("degradation")(answer_rule="json", low=1.0, high=5.0)

    def part(rows: slice, processes: Processes) -> Batch:
        own = batch.select(range(rows.start, rows.stop))
        return add_advantages(
            reward(own, terms={"score": build_terms({"length": SPEC["length"]})}, processes=processes),
            objective=settings.objective,
            uncertainty=settings.uncertainty,
            tasks={**build_tasks(settings), "words": words},
            alpha=1.0,
            divergence=None,
            memory={},
            processes=processes,
        )

    alone = part(slice(0, 4), Processes("single"))
    # 1, 5 and -2, clipped to 1, have the mean 7/3 and the variance 32/9 of at most 4.
    expected = [math.exp(-8 / 9), 0.5, math.exp(-1), 1.0]
    assert alone.weights.tolist() == pytest.approx(expected, rel=1e-12)
    assert alone.scores[:3].nan_to_num(-1).tolist() == [[3.0, 3.0, 3.0, -1.0]] * 3, "as the task reads them"
    barrier, desk = Barrier(2), [None, None]
    with ThreadPoolExecutor(2) as threads:
        halves = [
            threads.submit(part, slice(2 * rank, 2 * rank + 2), OneOfTwo(rank, barrier, desk))
            for rank in (0, 1)
        ]
        assert all(torch.equal(half.result().weights, alone.weights) for half in halves)


def test_total_is_the_weighted_sum_of_an_unweighted_breakdown(small: Callable[..., Settings]) -> None:
    batch = weighed(small(), BATCH, Processes("single"))
    scored = [ScoredGroup(id="", dataset=dataset, mos=mos, scores=scores) for dataset, mos, scores in SCORES]
    fidelity = torch.tensor(thurstone_fidelity(scored, **FIDELITY), dtype=torch.float64)
    assert list(batch.breakdown) == ["fidelity", "length"]
    assert torch.equal(batch.breakdown["fidelity"], fidelity)
    assert batch.breakdown["fidelity"][1].tolist() == [0.7, 0.0, 0.7]
    assert torch.allclose(batch.rewards, 2.0 * fidelity + 0.5 * batch.breakdown["length"])
    assert batch.scores.isnan().tolist() == [[score is None for score in row[2]] for row in SCORES]


def test_the_entropy_of_answers_weighs_groups_otherwise_than_their_variance(
    small: Callable[..., Settings],
) -> None:
    batch = make_batch([*SCORES[:3], ("one", 3.0, (2.0, 2.0, 5.0))])
    none, variance, entropy = (
        weighed(small(f"uncertainty={name}", name=name), batch, Processes("single"))
        for name in ("none", "exponential", "answer_entropy")
    )
    two_of_three = (math.log(3) / 3 + 2 * math.log(1.5) / 3) / math.log(3)
    expected = [1.0, math.log(2) / math.log(3), 1.0, two_of_three]
    assert torch.allclose(entropy.weights, torch.tensor([math.exp(-0.5 * u) for u in expected]).double())
    assert torch.equal(entropy.advantages, none.advantages * entropy.weights[:, None])
    assert not torch.allclose(entropy.advantages, variance.advantages)
    for part in in_two(small("uncertainty=answer_entropy", name="two"), batch):
        assert torch.equal(part.weights, entropy.weights)


def test_two_processes_have_the_rewards_and_advantages_of_one(small: Callable[..., Settings]) -> None:
    settings = small()
    alone = weighed(settings, BATCH, Processes("single"))
    for part in in_two(settings, BATCH):
        assert torch.equal(part.rewards, alone.rewards)
        assert torch.equal(part.advantages, alone.advantages)
        assert torch.equal(part.weights, alone.weights)
        assert torch.equal(part.scores.nan_to_num(-1), alone.scores.nan_to_num(-1))
        assert all(torch.equal(part.breakdown[name], alone.breakdown[name]) for name in alone.breakdown)


@pytest.mark.parametrize("reward", ["visualquality_r1", "visualquality_r1_release", "preresq_r1_score"])
def test_a_step_with_rewards_that_compare_moves_the_policy(
    small: Callable[..., Settings],
    open_run: Callable[[Settings], Run],
    monkeypatch: pytest.MonkeyPatch,
    reward: str,
) -> None:
    def read(text: str) -> Answer:
        """An untaught model's noise, read as numbers from 1 to 5."""
        return Answer(score=None if len(text) % 5 == 0 else 1 + sum(map(ord, text)) % 41 / 10)

    off = ("perception=none", "uncertainty=none", "objective.kl_coef=0", f"reward={reward}")
    still, _ = one_step(open_run(small(*off, name="still")))
    monkeypatch.setattr(Task, "parse", lambda task, text: read(text))
    run = open_run(small(*off, name="read"))
    moved, metrics = one_step(run)
    values = metrics.values()
    compared = [name for name in run.settings.reward.terms if name != "format"]
    assert all(0.0 < values[f"train/reward/{name}/mean"] < 1.01 for name in compared)
    assert largest_difference(still, moved) > 1e-7


CUT = [(), (1,), (0, 2), ()]
CUT_BATCH = make_batch(SCORES, cut=CUT)


def test_cut_completions_learn_count_or_leave_as_the_setting_says(small: Callable[..., Settings]) -> None:
    """Tokens 0 to 2, 1 to 3, 2 to 4 and 3 to 5, 30 in all; the cut ones have 2, 2 and 4."""

    keep, mask, exclude = (
        weighed(
            small(f"objective.truncated={truncated}", "uncertainty=none", name=truncated),
            CUT_BATCH,
            Processes("single"),
        )
        for truncated in ("keep", "mask", "exclude")
    )
    cut = torch.tensor([[place in places for place in range(3)] for places in CUT])
    assert keep.loss_mask.all() and torch.equal(mask.loss_mask, ~cut) and torch.equal(exclude.loss_mask, ~cut)
    assert [(c.counts.sequences, c.counts.tokens) for c in (keep, mask, exclude)] == [
        (12, 30),
        (12, 22),
        (9, 22),
    ]
    assert keep.num_tokens == mask.num_tokens == exclude.num_tokens == 30
    assert torch.equal(mask.advantages, keep.advantages)
    for rewards, advantages, left in zip(exclude.rewards, exclude.advantages, ~cut, strict=True):
        alone = rewards[left]
        expected = (alone - alone.mean()) / (alone.std() + 1e-4) if len(alone) > 1 else alone * 0
        assert torch.allclose(advantages[left], expected, rtol=1e-12)
        assert (advantages[~left] == 0).all()


def test_spread_is_that_of_the_completions_that_count(small: Callable[..., Settings]) -> None:
    words = ("uncertainty=none", "objective.minimum_std=0.018")
    batch = make_batch([("one", 3.0, (3.0, 3.05, 1.0))] * 2, cut=[(0,), ()])
    keep, exclude = (
        weighed(small(f"objective.truncated={name}", *words, name=name), batch, Processes("single"))
        for name in ("keep", "exclude")
    )
    assert float(keep.rewards[0].std()) > 0.018 > float(keep.rewards[0, 1:].std()) > 0
    assert keep.advantages[0].abs().max() > 0
    assert not exclude.advantages[0].any(), "what was cut spread the group's rewards"
    assert torch.allclose(exclude.advantages[1], keep.advantages[1], rtol=1e-12)


def test_without_cut_completions_the_setting_changes_no_bit(small: Callable[..., Settings]) -> None:
    first, *others = [
        weighed(small(f"objective.truncated={name}", name=name), BATCH, Processes("single"))
        for name in ("keep", "mask", "exclude")
    ]
    for other in others:
        assert torch.equal(other.advantages, first.advantages) and other.counts == first.counts


@pytest.mark.parametrize("scaling", ["group_std", "batch_std", "none"])
def test_a_divergence_is_taken_off_the_reward_before_advantages(
    small: Callable[..., Settings], scaling: str
) -> None:
    settings = small(f"objective.advantage_scaling={scaling}", "objective.kl_coef=0.1", "uncertainty=none")
    divergence = torch.arange(12, dtype=torch.float64).view(4, 3) ** 2 / 10
    with_kl = weighed(settings, BATCH, Processes("single"), divergence=divergence)
    without = weighed(settings, BATCH, Processes("single"))
    lessened = without.rewards - 0.1 * divergence
    expected = group_advantages(lessened, scaling=scaling, epsilon=1e-4)  # type: ignore[arg-type]
    assert torch.equal(with_kl.advantages, expected)
    assert torch.equal(with_kl.rewards, without.rewards)
    assert not torch.allclose(with_kl.advantages, without.advantages)


def test_two_processes_agree_on_divergence_cuts_and_memory(small: Callable[..., Settings]) -> None:
    settings = small(
        "objective.truncated=mask",
        "objective.advantage_scaling=batch_std",
        "objective.kl_coef=0.1",
        "uncertainty.history_decay=0.5",
    )
    divergence = torch.arange(12, dtype=torch.float64).view(4, 3) / 7
    memory = {"score/one/0": 0.5, "score/two/1": 0.1}
    options: dict[str, Any] = {"divergence": divergence, "memory": memory}
    alone = weighed(settings, CUT_BATCH, Processes("single"), **options)
    for part in in_two(settings, CUT_BATCH, **options):
        assert torch.equal(part.advantages, alone.advantages)
        assert torch.equal(part.loss_mask, alone.loss_mask)
        assert part.counts == alone.counts and part.variances == alone.variances


def test_history_weighs_an_image_by_what_it_showed_before(small: Callable[..., Settings]) -> None:
    """Variance 2/3 now, 2 before, decay 1/2: 4/3 over the largest, 4. The unread group has no memory."""
    settings = small("uncertainty.history_decay=0.5", "uncertainty.unparsed_weight=0.25")
    batch = make_batch([("one", 3.0, (2.0, 3.0, 4.0)), ("one", 3.0, (None, None, 2.0))])
    memory = {"score/one/0": 2.0, "score/one/1": 0.0}
    batch = weighed(settings, batch, Processes("single"), alpha=1.0, memory=memory)
    assert batch.weights.tolist() == pytest.approx([math.exp(-1 / 3), 0.25])
    assert batch.variances == pytest.approx({"score/one/0": 4 / 3})


def test_each_reward_is_normalised_by_itself_whichever_process_holds_it(
    small: Callable[..., Settings],
) -> None:
    """GDPO over the whole step: the terms unweighted, their weights beside them."""
    settings = small("objective=gdpo", "uncertainty=none")
    whole = weighed(settings, BATCH, Processes("single"))
    parts = [whole.breakdown[name] for name in SPEC]
    expected = decoupled_advantages(parts, [2.0, 0.5], epsilon=1e-4)
    assert torch.equal(whole.advantages, expected) and float(expected.abs().max()) > 0.1
    total = weighed(small("objective=grpo", "uncertainty=none"), BATCH, Processes("single"))
    assert float((total.advantages - expected).abs().max()) > 0.05
    for half in in_two(settings, BATCH):
        assert torch.equal(half.advantages, expected)


def test_a_group_that_spreads_less_than_asked_has_no_advantage(small: Callable[..., Settings]) -> None:
    plain = weighed(small("uncertainty=none"), BATCH, Processes("single"))
    spread = plain.rewards.std(dim=1, correction=1)
    limit = float(spread.sort().values[1:3].mean())
    found = weighed(small("uncertainty=none", f"objective.minimum_std={limit}"), BATCH, Processes("single"))
    assert found.advantages.any(dim=1).tolist() == (spread > limit).tolist()
    kept = spread > limit
    assert torch.equal(found.advantages[kept], plain.advantages[kept])


def with_logprobs(batch: Batch) -> Batch:
    """The batch with log-probabilities that tell every token apart, its first completion left out."""
    groups = []
    for place, group in zip(batch.indices, batch.completions, strict=True):
        lengths = [one.num_tokens + 1 for one in group]
        logprobs = [-torch.arange(n).double() / 7 - 0.1 * place - 0.01 * k for k, n in enumerate(lengths)]
        ids = [torch.arange(n) for n in lengths]
        groups.append(Group(completion_ids=ids, logprobs=logprobs, truncated=[False] * len(ids)))
    mask = torch.ones(len(batch.rewards), 3, dtype=torch.bool)
    mask[0, 0] = False
    return replace(batch, groups=groups, loss_mask=mask)


@pytest.mark.parametrize("form", ["clip", "kl"])
def test_selected_tokens_are_those_of_the_whole_step(small: Callable[..., Settings], form: str) -> None:
    settings = small("uncertainty=none")
    how = NO_COVARIANCE.model_copy(update={"form": form, "share": 0.2, "low": -0.2, "high": 0.9})
    whole = with_logprobs(weighed(settings, BATCH, Processes("single")))
    found = select_tokens(whole, covariance=how, rng=np.random.default_rng(0), processes=Processes("single"))
    flat = [
        (lp, whole.advantages[i, k]) for i, g in enumerate(whole.groups) for k, lp in enumerate(g.logprobs)
    ]
    learning = flat[1:]
    values = covariances(
        torch.cat([lp for lp, _ in learning]), torch.cat([a.expand(len(lp)) for lp, a in learning])
    )
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(values)))
    expected = (
        largest_covariances(values, share=0.2)
        if form == "kl"
        else drawn_covariances(values, share=0.2, low=-0.2, high=0.9, order=order)
    )
    masks = [mask for group in found.selected for mask in group]
    assert not masks[0].any() and [len(mask) for mask in masks] == [len(lp) for lp, _ in flat]
    assert torch.equal(torch.cat(masks[1:]), expected) and 0 < int(expected.sum()) < len(expected) / 2

    barrier, desk = Barrier(2), [None, None]

    def part(rank: int) -> Batch:
        own = weighed(settings, BATCH.select(range(2 * rank, 2 * rank + 2)), OneOfTwo(rank, barrier, desk))
        processes = OneOfTwo(rank, barrier, desk)
        own = with_logprobs(own)
        return select_tokens(own, covariance=how, rng=np.random.default_rng(0), processes=processes)

    with ThreadPoolExecutor(2) as threads:
        halves = [future.result() for future in [threads.submit(part, rank) for rank in range(2)]]
    together = [mask for half in halves for group in half.selected for mask in group]
    assert all(torch.equal(one, other) for one, other in zip(together, masks, strict=True))


def some_lengths(completions: Sequence[Completion], examples: Sequence[Example]) -> list[float | None]:
    """A reward that lacks every completion of two characters, and all of the last example."""
    return [
        None if len(one.text) == 2 or example.id == "3" else 1.0 + len(one.text)
        for one, example in zip(completions, examples, strict=True)
    ]


def test_a_reward_that_is_missing_is_the_mean_of_its_group(small: Callable[..., Settings]) -> None:
    spec = {"service": {"_target_": f"{__name__}.some_lengths", "weight": 2.0}}
    settings = small("uncertainty=none")
    whole = weighed(settings, BATCH, Processes("single"), spec=spec)
    assert whole.breakdown["service"].tolist() == [[1.0, 2.0, 1.5]] * 3 + [[0.0] * 3]
    assert torch.equal(whole.rewards, 2 * whole.breakdown["service"])
    gone = whole.missing_rewards["service"]
    assert gone.tolist() == [[False, False, True]] * 3 + [[True] * 3]
    assert float(whole.advantages[:, 2].abs().max()) == 0.0
    for half in in_two(settings, BATCH, spec=spec):
        assert torch.equal(half.rewards, whole.rewards) and torch.equal(half.missing_rewards["service"], gone)
    missing = {"service": 5}
    terms = {"score": build_terms(spec)}
    count_missing(whole, terms=terms, missing=missing)
    metrics = reward_metrics(whole, missing=missing).values()
    assert metrics["train/reward/service/missing_frac"] == 0.5
    assert metrics["train/reward/service/missing_total"] == 5 + 6


def test_too_many_missing_rewards_of_a_run_end_it(small: Callable[..., Settings]) -> None:
    class Silent(Judge):
        most_missing = 12

        def check(self) -> None:
            raise AssertionError

        def __call__(
            self, completions: Sequence[Completion], examples: Sequence[Example]
        ) -> list[float | None]:
            return [None] * len(completions)

    terms = {"score": [CompletionsTerm(name="mine", weight=1.0, function=Silent())]}
    batch, missing = reward(BATCH, terms=terms, processes=Processes("single")), dict[str, int]()
    count_missing(batch, terms=terms, missing=missing)
    assert missing == {"mine": 12}
    fewer = replace(batch, missing_rewards={"mine": torch.zeros(4, 3, dtype=torch.bool)})
    count_missing(fewer, terms=terms, missing=missing)
    assert missing == {"mine": 12}
    with pytest.raises(ValueError, match="14 completions"):  # two of a group that gave way
        count_missing(replace(fewer, missing_replaced={"mine": 2}), terms=terms, missing=dict(missing))
    with pytest.raises(ValueError, match=r"reward.terms.mine.most_missing: 24 completions .* at most 12 may"):
        count_missing(batch, terms=terms, missing=missing)
