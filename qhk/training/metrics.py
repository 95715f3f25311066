"""What one step measured, under the names declared in ``tracking.names``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from qhk.objective.advantage import equal_rewards
from qhk.objective.total import Branch, LossOutput
from qhk.rollout.decode import Group
from qhk.statistics.diversity import num_distinct, score_entropy
from qhk.tasks import Task
from qhk.tracking.metrics import MetricSet
from qhk.training.batch import Batch
from qhk.training.optimizer import Coefficients

_TERM_NAMES = {
    "policy": "train/loss/policy",
    "clipped": "train/policy/ratio_clipped_frac",
    "credited": "train/policy/credited_frac",
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
    """Return the terms of one micro-batch."""
    metrics = MetricSet()
    for name, (total, count) in output.sums.items():
        metrics.add_sum(_TERM_NAMES[name], total, count)
    return metrics


def branch_metrics(
    mask: Tensor, original: Branch, exact_kl: Tensor | None, groups: Sequence[Group]
) -> MetricSet:
    """Return what a measured micro-batch shows besides its loss; all tensors (R, T)."""
    metrics, tokens = MetricSet(), float(mask.sum())
    if original.entropy is not None:
        metrics.add_sum("train/policy/entropy/mean", float(original.entropy.detach()[mask].sum()), tokens)
    if exact_kl is not None:
        metrics.add_sum("train/perception/exact_kl", float(exact_kl.detach()[mask].sum()), tokens)
    sampled = torch.cat([logprobs for group in groups for logprobs in group.logprobs])
    gap = (original.logprobs.detach()[mask].double().cpu() - sampled).abs()
    metrics.add("train/policy/logprob_gap/max", float(gap.max()))
    return metrics


def engine_metrics(
    mask: Tensor, old: Tensor, sampled: Tensor, weights: Tensor | None, *, bound: float
) -> MetricSet:
    """Return how far the engine that sampled is from the policy that is trained; all tensors (R, T).

    ``old`` are the policy's log-probabilities before the first update, ``sampled`` the engine's. The KL is
    k3 on the engine's own tokens: ``exp(old - sampled) - 1 - (old - sampled)``, never negative.
    """
    metrics, tokens = MetricSet(), float(mask.sum())
    gap = (old - sampled).double()[mask]
    metrics.add_sum("train/rollout/logprob_gap/mean", float(gap.abs().sum()), tokens)
    metrics.add_sum("train/rollout/kl", float((gap.exp() - 1 - gap).sum()), tokens)
    if weights is not None:
        inside = weights[mask].double()
        metrics.add_sum("train/rollout/weight/mean", float(inside.sum()), tokens)
        metrics.add("train/rollout/weight/min", float(inside.min()))
        metrics.add_sum("train/rollout/weight/truncated_frac", float((inside >= bound).sum()), tokens)
    return metrics


def rollout_metrics(batch: Batch, *, tasks: Mapping[str, Task]) -> MetricSet:
    """Return what this process's completions look like, each on the scale of its own task."""
    metrics = MetricSet()
    completions = [completion for group in batch.completions for completion in group]
    scored = [
        (tasks[task], completion.answer.score)
        for task, group in zip(batch.tasks, batch.completions, strict=True)
        for completion in group
        if completion.answer.score is not None
    ]
    count = len(completions)
    metrics.add_sum("train/parse/failed_frac", sum(not c.answer.parsed for c in completions), count)
    metrics.add_sum(
        "train/parse/out_of_range_frac",
        sum(not task.low <= score <= task.high for task, score in scored),
        len(scored),
    )
    unparsed = sum(not any(c.answer.parsed for c in group) for group in batch.completions)
    metrics.add_sum("train/group/unparsed_frac", unparsed, len(batch))
    metrics.add_sum("train/completion/truncated_frac", sum(c.truncated for c in completions), count)
    metrics.add_sum("train/completion/tokens/mean", sum(c.num_tokens for c in completions), count)
    return metrics


def reward_metrics(batch: Batch, *, missing: Mapping[str, int]) -> MetricSet:
    """Return rewards, spreads and weights of the whole step, which every process knows alike.

    ``missing`` counts by reward the completions of the run so far that it gave nothing.
    """
    metrics, parsed = MetricSet(), ~batch.scores.isnan()
    metrics.add("train/reward/total/mean", float(batch.rewards.mean()))
    for name, values in batch.breakdown.items():
        metrics.add(f"train/reward/{name}/mean", float(values.mean()))
    for name, gone in batch.missing_rewards.items():
        metrics.add(
            f"train/reward/{name}/missing_frac", int(gone.sum()) / max(batch.breakdown[name].numel(), 1)
        )
        metrics.add(f"train/reward/{name}/missing_total", missing.get(name, 0))
    metrics.add("train/group/equal_reward_frac", float(equal_rewards(batch.rewards).double().mean()))
    for row, keep in zip(batch.scores, parsed, strict=True):
        if keep.sum() > 1:
            metrics.add("train/group/score_std/mean", float(row[keep].std(correction=1)))
    for statistic, value in (
        ("mean", batch.weights.mean()),
        ("min", batch.weights.min()),
        ("max", batch.weights.max()),
        *((f"q{percent}", batch.weights.quantile(percent / 100)) for percent in QUANTILES),
    ):
        metrics.add(f"train/uncertainty/weight/{statistic}", float(value))
    metrics.add("train/completion/learning_frac", float(batch.loss_mask.double().mean()))
    scores = batch.scores[parsed].tolist()
    if scores:
        metrics.add("train/scores/distinct", num_distinct(scores))
        metrics.add("train/scores/entropy", score_entropy([scores]))
    return metrics


def divergence_metrics(divergence: Tensor, groups: Sequence[Group]) -> MetricSet:
    """Return what the KL (b, G) is that is taken off this process's rewards, before its coefficient."""
    metrics, total = MetricSet(), float(divergence.sum())
    metrics.add_sum("train/reference/kl", total, sum(group.num_tokens for group in groups))
    metrics.add_sum("train/reference/sequence_kl", total, divergence.numel())
    return metrics


def resample_metrics(batch: Batch) -> MetricSet:
    """Return what dynamic sampling cost, which every process knows alike."""
    metrics = MetricSet()
    metrics.add("train/resample/rounds", batch.num_rounds)
    metrics.add("train/resample/prompts", batch.num_resampled)
    return metrics


def coefficient_metrics(now: Coefficients) -> MetricSet:
    """Return what the schedules said."""
    metrics = MetricSet()
    metrics.add("train/optimizer/learning_rate", now.learning_rate)
    metrics.add("train/uncertainty/alpha", now.alpha)
    metrics.add("train/perception/gamma", now.terms.gamma)
    metrics.add("train/perception/twin_factor", now.twin_factor)
    for task, factors in now.reward_factors.items():
        for place, value in factors.items():
            name = place if len(now.reward_factors) == 1 else f"{task}.{place}"
            metrics.add(f"train/reward/{name}/factor", value)
    return metrics
