"""From completions to weighted advantages: rewards, group advantages, uncertainty weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


@dataclass(frozen=True, kw_only=True)
class Credit:
    """What B groups of G completions earned. All of the *global* batch, in global prompt order.

    ``rewards`` and ``scores`` (B, G), the latter as parsed, NaN where nothing was; ``breakdown`` (B, G) per
    reward term, unweighted; ``weights`` (B,); ``advantages`` (B, G) already times the weight.
    """

    rewards: Tensor
    scores: Tensor
    breakdown: dict[str, Tensor]
    weights: Tensor
    advantages: Tensor


def assign_credit(
    groups: Sequence[Group],
    *,
    terms: Sequence[RewardTerm],
    objective: ObjectiveSettings,
    uncertainty: UncertaintySettings,
    task: TaskSettings,
    alpha: float,
    processes: Processes,
) -> Credit:
    """The credit of the whole step's groups; ``groups`` are this process's own.

    ``alpha`` is the uncertainty strength at this step. Opinions, scores and what each completion earns by
    itself are gathered first: rewards, scaling and uncertainty may compare groups.
    """
    scored = processes.gather_items([_scored(group) for group in groups])
    breakdown = {term.name: _values(term, groups, scored, processes) for term in terms}
    rewards = torch.stack([term.weight * breakdown[term.name] for term in terms]).sum(0)
    scores = torch.tensor(
        [[math.nan if score is None else score for score in group.scores] for group in scored],
        dtype=torch.float64,
    )
    advantages = group_advantages(
        rewards, scaling=objective.advantage_scaling, epsilon=objective.advantage_epsilon
    )
    spread = group_uncertainty(
        scores,
        low=task.low,
        high=task.high,
        normaliser=uncertainty.normaliser,
        minimum_parsed=uncertainty.minimum_parsed,
        out_of_range=uncertainty.out_of_range,
    )
    weights = uncertainty_weights(
        spread, form=uncertainty.form, alpha=alpha, unparsed_weight=uncertainty.unparsed_weight
    )
    return Credit(
        rewards=rewards,
        scores=scores,
        breakdown=breakdown,
        weights=weights,
        advantages=advantages * weights[:, None],
    )


def _scored(group: Group) -> ScoredGroup:
    return ScoredGroup(
        id=group.example.id,
        dataset=group.example.dataset,
        mos=group.example.opinion,
        scores=tuple(completion.answer.score for completion in group.completions),
    )


def _values(
    term: RewardTerm, groups: Sequence[Group], scored: Sequence[ScoredGroup], processes: Processes
) -> Tensor:
    """What one term gives (B, G), all groups of the step; ``groups`` are this process's, ``scored`` all."""
    if not isinstance(term, CompletionTerm):
        return torch.tensor(batch_values(term, scored), dtype=torch.float64)
    own = [[completion_value(term, c, group.example) for c in group.completions] for group in groups]
    return processes.gather_rows(torch.tensor(own, dtype=torch.float64))
