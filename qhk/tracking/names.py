"""Every metric there is: its name, what it means, and how its parts are reduced to one number.

Names read ``section/topic/quantity[/statistic]``. A part in braces stands for any one path component.
Recording a name that is not declared here is an error.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from qhk.errors import UserError


class Reduction(StrEnum):
    """How values of one step, from micro-batches and ranks, become one. A mean is kept as sum and count."""

    MEAN = "mean"
    MAX = "max"
    MIN = "min"
    LAST = "last"


@dataclass(frozen=True)
class Metric:
    """One declared name, or a pattern of names with parts in braces."""

    name: str
    reduction: Reduction
    meaning: str


MEAN, MAX, MIN, LAST = Reduction.MEAN, Reduction.MAX, Reduction.MIN, Reduction.LAST

TRAIN = (
    Metric("train/step", LAST, "training steps done; the axis of all curves but the cold start's"),
    Metric("train/loss/total", MEAN, "the minimised loss, all terms with their coefficients"),
    Metric(
        "train/loss/policy",
        MEAN,
        "minus the clipped surrogate per token, advantages times uncertainty weight",
    ),
    Metric("train/reward/total/mean", MEAN, "weighted sum of the reward terms per completion"),
    Metric("train/reward/{term}/mean", MEAN, "one reward term per completion, before its weight"),
    Metric(
        "train/reward/{term}/missing_frac",
        MEAN,
        "share of completions that a service gave no reward, which get the mean of their group",
    ),
    Metric(
        "train/reward/{term}/missing_total",
        LAST,
        "completions of the run so far that a service gave no reward, those of replaced groups too",
    ),
    Metric(
        "train/reward/{term}/factor",
        LAST,
        "what the schedule of a reward term's number, such as a threshold, multiplies it with",
    ),
    Metric("train/parse/failed_frac", MEAN, "share of completions without a readable answer"),
    Metric("train/parse/out_of_range_frac", MEAN, "share of parsed answers outside the scale"),
    Metric("train/completion/truncated_frac", MEAN, "share of completions cut at the length limit"),
    Metric("train/completion/learning_frac", MEAN, "share of completions whose tokens enter the loss"),
    Metric("train/completion/tokens/mean", MEAN, "tokens per completion, the end of turn included"),
    Metric(
        "train/group/equal_reward_frac", MEAN, "share of groups whose rewards are all equal (no advantage)"
    ),
    Metric("train/resample/rounds", LAST, "rounds of dynamic sampling that the step took"),
    Metric("train/resample/prompts", LAST, "prompts sampled to replace groups of equal rewards"),
    Metric("train/group/unparsed_frac", MEAN, "share of groups with no parsed answer at all"),
    Metric("train/group/score_std/mean", MEAN, "standard deviation of a group's parsed scores"),
    Metric("train/uncertainty/weight/mean", MEAN, "uncertainty weight per group"),
    Metric("train/uncertainty/weight/min", MIN, "smallest uncertainty weight of the step"),
    Metric("train/uncertainty/weight/max", MAX, "largest uncertainty weight of the step"),
    Metric(
        "train/uncertainty/weight/{quantile}",
        LAST,
        "a percentile of the step's weights: q10, q25, q50, q75, q90",
    ),
    Metric("train/uncertainty/alpha", LAST, "strength of the uncertainty weight after its schedule"),
    Metric("train/perception/kl", MEAN, "the perception term's own KL estimate per token, bounded"),
    Metric(
        "train/perception/exact_kl",
        MEAN,
        "KL(original||degraded) over the vocabulary per token, also for gamma 0",
    ),
    Metric("train/perception/entropy_original", MEAN, "entropy term on the original image, per token"),
    Metric("train/perception/entropy_degraded", MEAN, "entropy term on the degraded image, per token"),
    Metric("train/perception/logprob_sum_original", MEAN, "log-probability of a completion, original image"),
    Metric("train/perception/logprob_sum_degraded", MEAN, "log-probability of a completion, degraded image"),
    Metric("train/perception/saturated_frac", MEAN, "share of tokens at a bound of the perception KL"),
    Metric("train/perception/gamma", LAST, "coefficient of the perception KL after its schedule"),
    Metric(
        "train/perception/twin_factor", LAST, "how far the strengths of twins have risen, after the schedule"
    ),
    Metric("train/reference/kl", MEAN, "KL estimate to the reference policy per token, without coefficient"),
    Metric(
        "train/reference/sequence_kl",
        MEAN,
        "that KL summed over a completion, where it is taken off the reward",
    ),
    Metric("train/policy/ratio_clipped_frac", MEAN, "share of tokens whose ratio is clipped"),
    Metric("train/policy/credited_frac", MEAN, "share of tokens that the policy term learns from"),
    Metric("train/policy/entropy/mean", MEAN, "entropy in nats of the next-token distribution"),
    Metric(
        "train/policy/entropy_bonus", MEAN, "entropy term of the objective per token of its scope, unweighted"
    ),
    Metric("train/policy/logprob_gap/max", MAX, "largest gap of sampling and training log-probability"),
    Metric(
        "train/rollout/logprob_gap/mean", MEAN, "gap of another engine's log-probability per token, absolute"
    ),
    Metric("train/rollout/kl", MEAN, "KL(engine||policy) per token, estimated on the engine's tokens (k3)"),
    Metric("train/rollout/weight/mean", MEAN, "importance weight of a token that another engine sampled"),
    Metric("train/rollout/weight/min", MIN, "smallest importance weight of the step"),
    Metric("train/rollout/weight/truncated_frac", MEAN, "share of tokens whose importance weight is cut off"),
    Metric("train/scores/distinct", LAST, "different scores among the step's completions"),
    Metric("train/scores/entropy", LAST, "entropy in nats of the step's score distribution"),
    Metric("train/optimizer/learning_rate", LAST, "learning rate of the step"),
    Metric("train/optimizer/grad_norm", LAST, "gradient norm before clipping"),
    Metric("train/tokens_per_s", LAST, "completion tokens sampled and trained on per second"),
)

COLD_START = (
    Metric("cold_start/step", LAST, "supervised steps done; the axis of the cold start's curves"),
    Metric("cold_start/loss", MEAN, "cross-entropy in nats per answer token"),
)

COST = (
    Metric("time/rollout_s", LAST, "seconds spent on sampling completions"),
    Metric("time/load_engine_s", LAST, "seconds of it spent on handing weights to another engine"),
    Metric("time/resample_s", LAST, "seconds spent on replacing groups of equal rewards"),
    Metric("time/score_s", LAST, "seconds spent on rewards, the reference's forward, advantages and weights"),
    Metric("time/update_s", LAST, "seconds spent on forward, backward and the optimizer"),
    Metric("time/step_s", LAST, "seconds of the whole step"),
    Metric("memory/peak_gib", MAX, "largest memory of a device so far (process memory on CPU)"),
)

READOUT_QUANTITIES = {
    "srcc": "Spearman correlation of scores and mos over parsed images",
    "plcc": "Pearson correlation, raw",
    "plcc_fitted": "Pearson correlation after the 4-parameter logistic (raw where the fit fails)",
    "krcc": "Kendall's tau-b",
    "rmse": "root mean squared error on the scale of mos",
    "mae": "mean absolute error on the scale of mos",
    "parsed_frac": "share of images with a readable answer",
    "failed_frac": "share of samples without a readable answer",
    "out_of_range_frac": "share of samples outside the scale, clipped after counting",
    "distinct": "different scores of the read-out",
    "distinct_samples": "different scores among single samples",
    "score_entropy": "entropy in nats of the single-sample score distribution",
    "accuracy": "share of images whose answer in words is right, unreadable ones wrong",
    "distortion_class_accuracy": "share of images whose degradation is named rightly",
    "severity_accuracy": "share of damaged images whose level is named rightly",
    "within_image_std": "mean standard deviation of an image's samples",
}
"""What is measured of one set and read-out, by the last part of its name."""

READOUT_PREFIXES = {
    "cold_start/validation": "validation part, during the cold start",
    "validation": "validation part of the training data, which selects checkpoints",
    "validation/{task}": "validation part of one of several tasks",
    "cold_start/validation/{task}": "the same, during the cold start",
    "eval/mean": "mean over all benchmarks, absent where one of them does not count",
    "eval/{benchmark}": "one benchmark, headline read-out",
}

COLLAPSE_SIGNS = "validation/collapse_signs"

WARNINGS = (
    Metric(COLLAPSE_SIGNS, LAST, "signs of collapse; recorded while there are any, and once they are gone"),
)

READOUTS = tuple(
    Metric(f"{prefix}/{quantity}", LAST, f"{meaning}; {where}")
    for prefix, where in READOUT_PREFIXES.items()
    for quantity, meaning in READOUT_QUANTITIES.items()
)

METRICS: tuple[Metric, ...] = (*TRAIN, *COLD_START, *COST, *WARNINGS, *READOUTS)


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], Metric], ...]:
    parts = ((metric, re.split(r"\{\w+\}", metric.name)) for metric in METRICS)
    return tuple((re.compile("[^/]+".join(map(re.escape, fixed))), metric) for metric, fixed in parts)


@cache
def find_metric(name: str) -> Metric:
    """Return the declaration of ``name``; exact names come before patterns.

    Raises ``UserError`` naming the nearest declared names where there is none.
    """
    matches = [metric for pattern, metric in _patterns() if pattern.fullmatch(name)]
    exact = [metric for metric in matches if metric.name == name]
    if matches:
        return (exact or matches)[0]
    near = difflib.get_close_matches(name, [metric.name for metric in METRICS], n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}" if near else "see the metric glossary"
    raise UserError(f"metric {name!r} is not declared in qhk/tracking/names.py; {hint}")


def glossary_markdown() -> str:
    """Return all metrics as Markdown tables, read-outs as one row per quantity; ends with a newline."""
    lines = ["| metric | reduced by | meaning |", "| --- | --- | --- |"]
    for metric in (*TRAIN, *COLD_START, *COST, *WARNINGS):
        lines.append(f"| `{metric.name}` | {metric.reduction} | {metric.meaning} |")
    lines += ["", "Measured of a set, one number per evaluation:", ""]
    lines += ["| prefix | set |", "| --- | --- |"]
    lines += [f"| `{prefix}/` | {where} |" for prefix, where in READOUT_PREFIXES.items()]
    lines += ["", "| quantity | meaning |", "| --- | --- |"]
    lines += [f"| `{quantity}` | {meaning} |" for quantity, meaning in READOUT_QUANTITIES.items()]
    return "\n".join(lines) + "\n"
