"""From completions to weighted advantages: rewards, group advantages, uncertainty weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qhk.objective.advantage import group_advantages
from qhk.objective.uncertainty import group_uncertainty, uncertainty_weights
from qhk.rewards.compose import total_reward
from qhk.rewards.term import RewardTerm
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

    ``alpha`` is the uncertainty strength at this step. Rewards and scores are gathered first, since scaling
    and uncertainty may compare groups.
    """
    rows = [[total_reward(c, group.example, terms) for c in group.completions] for group in groups]
    rewards = torch.tensor([[total for total, _ in row] for row in rows], dtype=torch.float64)
    breakdown = {
        term.name: processes.gather_rows(
            torch.tensor([[parts[term.name] for _, parts in row] for row in rows], dtype=torch.float64)
        )
        for term in terms
    }
    scores = torch.tensor(
        [
            [math.nan if c.answer.score is None else c.answer.score for c in group.completions]
            for group in groups
        ],
        dtype=torch.float64,
    )
    rewards, scores = processes.gather_rows(rewards), processes.gather_rows(scores)
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
