"""What one step measured, under the names declared in ``tracking.names``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from qhk.evaluation.diversity import num_distinct, score_entropy
from qhk.objective.total import LossOutput
from qhk.rollout.group import Group
from qhk.tasks import Task
from qhk.tracking.metrics import MetricSet
from qhk.training.branches import Branches
from qhk.training.credit import Credit
from qhk.training.optimizer import Coefficients
from qhk.training.resample import Resampled

_TERM_NAMES = {
    "policy": "train/loss/policy",
    "clipped": "train/policy/ratio_clipped_frac",
    "reference_kl": "train/reference/kl",
    "entropy": "train/policy/entropy_bonus",
    "perception_kl": "train/perception/kl",
    "perception_saturated": "train/perception/saturated_frac",
    "entropy_original": "train/perception/entropy_original",
    "entropy_degraded": "train/perception/entropy_degraded",
    "logprob_sum_original": "train/perception/logprob_sum_original",
    "logprob_sum_degraded": "train/perception/logprob_sum_degraded",
}
"""The terms of the loss, as measured: without coefficient, per token (logprob sums: per completion)."""


QUANTILES = (10, 25, 50, 75, 90)
"""Percentiles by which the distribution of weights is logged, between its extremes."""


def loss_metrics(output: LossOutput) -> MetricSet:
    """The terms of one micro-batch."""
    metrics = MetricSet()
    for name, (total, count) in output.sums.items():
        metrics.add_sum(_TERM_NAMES[name], total, count)
    return metrics


def branch_metrics(branches: Branches, groups: Sequence[Group]) -> MetricSet:
    """What a measured micro-batch shows besides its loss."""
    metrics, mask = MetricSet(), branches.mask
    tokens = float(mask.sum())
    if branches.original.entropy is not None:
        metrics.add_sum(
            "train/policy/entropy/mean", float(branches.original.entropy.detach()[mask].sum()), tokens
        )
    if branches.exact_kl is not None:
        metrics.add_sum("train/perception/exact_kl", float(branches.exact_kl.detach()[mask].sum()), tokens)
    sampled = torch.cat([logprobs for group in groups for logprobs in group.sampled_logprobs])
    gap = (branches.original.logprobs.detach()[mask].double().cpu() - sampled).abs()
    metrics.add("train/policy/logprob_gap/max", float(gap.max()))
    return metrics


def rollout_metrics(groups: Sequence[Group], *, tasks: Mapping[str, Task]) -> MetricSet:
    """What this process's completions look like, each on the scale of its own task."""
    metrics = MetricSet()
    completions = [completion for group in groups for completion in group.completions]
    scored = [
        (tasks[g.task], c.answer.score) for g in groups for c in g.completions if c.answer.score is not None
    ]
    count = len(completions)
    metrics.add_sum("train/parse/failed_frac", sum(not c.answer.parsed for c in completions), count)
    metrics.add_sum(
        "train/parse/out_of_range_frac",
        sum(not task.low <= score <= task.high for task, score in scored),
        len(scored),
    )
    unread = sum(not any(c.answer.parsed for c in group.completions) for group in groups)
    metrics.add_sum("train/group/unparsed_frac", unread, len(groups))
    metrics.add_sum("train/completion/truncated_frac", sum(c.truncated for c in completions), count)
    metrics.add_sum("train/completion/tokens/mean", sum(c.num_tokens for c in completions), count)
    return metrics


def credit_metrics(credit: Credit) -> MetricSet:
    """Rewards, spreads and weights of the global batch, which every process knows alike."""
    metrics, parsed = MetricSet(), ~credit.scores.isnan()
    metrics.add("train/reward/total/mean", float(credit.rewards.mean()))
    for name, values in credit.breakdown.items():
        metrics.add(f"train/reward/{name}/mean", float(values.mean()))
    equal = (credit.rewards == credit.rewards[:, :1]).all(1)
    metrics.add("train/group/equal_reward_frac", float(equal.double().mean()))
    for row, keep in zip(credit.scores, parsed, strict=True):
        if keep.sum() > 1:
            metrics.add("train/group/score_std/mean", float(row[keep].std(correction=1)))
    for statistic, value in (
        ("mean", credit.weights.mean()),
        ("min", credit.weights.min()),
        ("max", credit.weights.max()),
        *((f"q{percent}", credit.weights.quantile(percent / 100)) for percent in QUANTILES),
    ):
        metrics.add(f"train/uncertainty/weight/{statistic}", float(value))
    metrics.add("train/completion/learning_frac", float(credit.learns.double().mean()))
    scores = credit.scores[parsed].tolist()
    if scores:
        metrics.add("train/scores/distinct", num_distinct(scores))
        metrics.add("train/scores/entropy", score_entropy([scores]))
    return metrics


def divergence_metrics(divergence: Tensor, groups: Sequence[Group]) -> MetricSet:
    """The KL (b, G) that is taken off the rewards of this process's completions, before its coefficient."""
    metrics, total = MetricSet(), float(divergence.sum())
    metrics.add_sum("train/reference/kl", total, sum(group.num_tokens for group in groups))
    metrics.add_sum("train/reference/sequence_kl", total, divergence.numel())
    return metrics


def resample_metrics(drawn: Resampled) -> MetricSet:
    """What dynamic sampling cost, which every process knows alike."""
    metrics = MetricSet()
    metrics.add("train/resample/rounds", drawn.num_rounds)
    metrics.add("train/resample/prompts", drawn.num_prompts)
    return metrics


def coefficient_metrics(now: Coefficients) -> MetricSet:
    """What the schedules said."""
    metrics = MetricSet()
    metrics.add("train/optimizer/learning_rate", now.learning_rate)
    metrics.add("train/uncertainty/alpha", now.alpha)
    metrics.add("train/perception/gamma", now.terms.gamma)
    metrics.add("train/perception/twin_factor", now.twin_factor)
    return metrics
