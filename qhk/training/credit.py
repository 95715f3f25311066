"""From completions to weighted advantages: rewards, group advantages, uncertainty weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qhk.objective.advantage import group_advantages
from qhk.objective.uncertainty import group_uncertainty, uncertainty_weights
from qhk.rewards.batch import ScoredGroup
from qhk.rewards.compose import batch_values, completion_value
from qhk.rewards.term import CompletionTerm, RewardTerm
from qhk.rollout.group import Group
from qhk.settings import ObjectiveSettings, TaskSettings, UncertaintySettings
from qhk.training.distributed import Processes
from qhk.types import ANSWER_LABELS


@dataclass(frozen=True, kw_only=True)
class Credit:
    """What B groups of G completions earned. All of the *global* batch, in global prompt order.

    ``tasks`` names the task of each group. ``rewards`` and ``scores`` (B, G), the latter as parsed, NaN where
    no number was; ``breakdown`` (B', G) per reward term, unweighted, over the groups of its task, named
    ``task.term`` where a step holds several tasks; ``weights`` (B,); ``advantages`` (B, G) already times the
    weight.
    """

    tasks: tuple[str, ...]
    rewards: Tensor
    scores: Tensor
    breakdown: dict[str, Tensor]
    weights: Tensor
    advantages: Tensor


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What every process knows of a group: its task, and its scores where the task asks for numbers."""

    task: str
    group: ScoredGroup | None


def assign_credit(
    groups: Sequence[Group],
    *,
    terms: Mapping[str, Sequence[RewardTerm]],
    objective: ObjectiveSettings,
    uncertainty: UncertaintySettings,
    tasks: Mapping[str, TaskSettings],
    alpha: float,
    processes: Processes,
) -> Credit:
    """The credit of the whole step's groups; ``groups`` are this process's own.

    ``alpha`` is the uncertainty strength at this step. Opinions, scores and what each completion earns by
    itself are gathered first: rewards, scaling and uncertainty may compare groups. They compare those of one
    task: rewards of different tasks have different ranges. A task answered in words has no score to be
    uncertain of, so its groups weigh 1.
    """
    seen = processes.gather_items([_seen(group) for group in groups])
    size = len(groups[0].completions)
    rewards = torch.zeros(len(seen), size, dtype=torch.float64)
    scores = torch.full_like(rewards, math.nan)
    advantages, weights = torch.zeros_like(rewards), torch.ones(len(seen), dtype=torch.float64)
    breakdown: dict[str, Tensor] = {}
    for task, settings in tasks.items():
        rows = [place for place, one in enumerate(seen) if one.task == task]
        for term in terms[task]:
            values = _values(term, task, groups, seen, processes)[rows]
            rewards[rows] += term.weight * values
            breakdown[term.name if len(tasks) == 1 else f"{task}.{term.name}"] = values
        if not rows:
            continue
        advantages[rows] = group_advantages(
            rewards[rows], scaling=objective.advantage_scaling, epsilon=objective.advantage_epsilon
        )
        if settings.form not in ANSWER_LABELS:
            scores[rows] = _scores([seen[row].group for row in rows])
            weights[rows] = _weights(scores[rows], settings, uncertainty, alpha=alpha)
    return Credit(
        tasks=tuple(one.task for one in seen),
        rewards=rewards,
        scores=scores,
        breakdown=breakdown,
        weights=weights,
        advantages=advantages * weights[:, None],
    )


def _seen(group: Group) -> _Seen:
    example, answers = group.example, [completion.answer for completion in group.completions]
    if example.mos is None:
        return _Seen(task=group.task, group=None)
    scored = ScoredGroup(
        id=example.id,
        dataset=example.dataset,
        mos=example.mos,
        scores=tuple(answer.score for answer in answers),
        aspects=tuple(answer.aspects for answer in answers),
    )
    return _Seen(task=group.task, group=scored)


def _scores(groups: Sequence[ScoredGroup | None]) -> Tensor:
    rows = []
    for group in groups:
        assert group is not None, "a task that asks for numbers has examples with a score"
        rows.append([math.nan if score is None else score for score in group.scores])
    return torch.tensor(rows, dtype=torch.float64)


def _weights(scores: Tensor, task: TaskSettings, uncertainty: UncertaintySettings, *, alpha: float) -> Tensor:
    spread = group_uncertainty(
        scores,
        low=task.low,
        high=task.high,
        normaliser=uncertainty.normaliser,
        minimum_parsed=uncertainty.minimum_parsed,
        out_of_range=uncertainty.out_of_range,
    )
    return uncertainty_weights(
        spread, form=uncertainty.form, alpha=alpha, unparsed_weight=uncertainty.unparsed_weight
    )


def _values(
    term: RewardTerm, task: str, groups: Sequence[Group], seen: Sequence[_Seen], processes: Processes
) -> Tensor:
    """What one term gives (B, G) all groups of the step, 0 for those of other tasks.

    ``groups`` are this process's, ``seen`` all.
    """
    size = len(groups[0].completions)
    if not isinstance(term, CompletionTerm):
        places = [place for place, one in enumerate(seen) if one.task == task and one.group is not None]
        values = torch.zeros(len(seen), size, dtype=torch.float64)
        if places:
            compared = [one.group for one in seen if one.task == task and one.group is not None]
            values[places] = torch.tensor(batch_values(term, compared), dtype=torch.float64)
        return values
    own = [
        [completion_value(term, c, group.example) if group.task == task else 0.0 for c in group.completions]
        for group in groups
    ]
    return processes.gather_rows(torch.tensor(own, dtype=torch.float64))
