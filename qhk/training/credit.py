"""From rewards to weighted advantages: what is taken off them, group advantages, uncertainty weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qhk.objective.advantage import group_advantages
from qhk.objective.aggregate import Counts
from qhk.objective.uncertainty import (
    group_variances,
    relative_uncertainty,
    smoothed_variances,
    uncertainty_weights,
)
from qhk.rewards.batch import ScoredGroup
from qhk.rollout.group import Group
from qhk.settings import ObjectiveSettings, UncertaintySettings
from qhk.tasks import Task
from qhk.training.distributed import Processes
from qhk.training.earnings import Earnings


@dataclass(frozen=True, kw_only=True)
class Credit:
    """What B groups of G completions are to learn. All of the *global* batch, in global prompt order.

    ``tasks`` names the task of each group. ``rewards`` and ``scores`` (B, G), the former without a KL, the
    latter as parsed, NaN where no number was; ``breakdown`` (B', G) per reward term, unweighted, over the
    groups of its task, named ``task.term`` where a run holds several tasks; ``weights`` (B,);
    ``advantages`` (B, G) already times the weight; ``learns`` bool (B, G): whose tokens enter the loss;
    ``counts`` of the whole step, to divide by; ``num_tokens`` of all completions; ``memory`` the variances
    to remember, by image.
    """

    tasks: tuple[str, ...]
    rewards: Tensor
    scores: Tensor
    breakdown: dict[str, Tensor]
    weights: Tensor
    advantages: Tensor
    learns: Tensor
    counts: Counts
    num_tokens: int
    memory: dict[str, float]


def assign_credit(
    groups: Sequence[Group],
    earnings: Earnings,
    *,
    objective: ObjectiveSettings,
    uncertainty: UncertaintySettings,
    tasks: Mapping[str, Task],
    alpha: float,
    divergence: Tensor | None,
    memory: Mapping[str, float],
    processes: Processes,
) -> Credit:
    """The credit of the whole step's groups; ``groups`` are this process's own.

    ``alpha`` is the uncertainty strength at this step; ``divergence`` (b, G) the KL of this process's
    completions where it is taken off their rewards; ``memory`` the variances of earlier steps, by image.
    Scaling and uncertainty may compare groups, those of one task. A task answered in words has no score to be
    uncertain of, so its groups weigh 1. A completion cut at the length limit (``objective.truncated``)

    keep     learns like any other                              (GRPO; all four releases)
    mask     leaves the loss, every term of it; its reward stays in the group's mean and std, it stays among
             the completions divided by, and its tokens do not  (DAPO, arXiv 2503.14476, overlong filtering;
             TRL's ``mask_truncated_completions``)
    exclude  leaves all of these, as if it had not been sampled (ours)
    """
    lengths, cut = processes.gather_rows(_lengths(groups)).unbind(-1)
    counted = cut == 0 if objective.truncated == "exclude" else torch.ones_like(cut, dtype=torch.bool)
    learns = torch.ones_like(counted) if objective.truncated == "keep" else cut == 0
    rewards = earnings.rewards
    if divergence is not None:
        rewards = rewards - objective.kl_coef * processes.gather_rows(divergence)
    scores, advantages = torch.full_like(rewards, math.nan), torch.zeros_like(rewards)
    weights, seen = torch.ones(len(rewards), dtype=torch.float64), dict[str, float]()
    for task, settings in tasks.items():
        rows = earnings.rows(task)
        if not rows:
            continue
        advantages[rows] = group_advantages(
            rewards[rows],
            scaling=objective.advantage_scaling,
            epsilon=objective.advantage_epsilon,
            counted=counted[rows],
        )
        if settings.has_scores:
            scored = [earnings.seen[row].group for row in rows]
            keys = [f"{task}/{group.dataset}/{group.id}" for group in scored if group is not None]
            scores[rows] = _scores(scored)
            variances = _variances(scores[rows], settings, uncertainty)
            smoothed, new = smoothed_variances(variances, keys, memory, decay=uncertainty.history_decay)
            seen |= new
            weights[rows] = _weights(smoothed, settings, uncertainty, alpha=alpha)
    return Credit(
        tasks=tuple(one.task for one in earnings.seen),
        rewards=earnings.rewards,
        scores=scores,
        breakdown=earnings.breakdown,
        weights=weights,
        advantages=advantages * weights[:, None],
        learns=learns,
        counts=Counts(sequences=max(int(counted.sum()), 1), tokens=int(lengths[learns].sum())),
        num_tokens=int(lengths.sum()),
        memory=seen,
    )


def _lengths(groups: Sequence[Group]) -> Tensor:
    """(b, G, 2): tokens of each completion, and 1 where the length limit cut it."""
    return torch.tensor([[(c.num_tokens, int(c.truncated)) for c in group.completions] for group in groups])


def _scores(groups: Sequence[ScoredGroup | None]) -> Tensor:
    rows = []
    for group in groups:
        assert group is not None, "a task that asks for numbers has examples with a score"
        rows.append([math.nan if score is None else score for score in group.scores])
    return torch.tensor(rows, dtype=torch.float64)


def _variances(scores: Tensor, task: Task, uncertainty: UncertaintySettings) -> Tensor:
    return group_variances(
        scores,
        low=task.low,
        high=task.high,
        minimum_parsed=uncertainty.minimum_parsed,
        out_of_range=uncertainty.out_of_range,
    )


def _weights(variances: Tensor, task: Task, uncertainty: UncertaintySettings, *, alpha: float) -> Tensor:
    spread = relative_uncertainty(variances, low=task.low, high=task.high, normaliser=uncertainty.normaliser)
    return uncertainty_weights(
        spread, form=uncertainty.form, alpha=alpha, unparsed_weight=uncertainty.unparsed_weight
    )
