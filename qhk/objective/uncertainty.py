"""How sure the policy is of a score, and what a group weighs for it (Q-Hawkeye, arXiv 2601.22920)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from qhk.errors import UserError
from qhk.objective.forms import UNCERTAINTY_FORMS
from qhk.types import SCORE_DECIMALS

Normaliser = Literal["fixed_maximum", "batch_relative"]
OutOfRange = Literal["clip", "refuse"]


def group_variances(
    scores: Tensor, *, low: float, high: float, minimum_parsed: int, out_of_range: OutOfRange
) -> Tensor:
    """Return the population variances ``(B,)`` of groups' parsed scores ``(B, G)``; NaN for too few parsed.

    ``scores`` holds NaN where nothing was parsed. Scores outside ``[low, high]`` are clipped, or with
    ``refuse`` count as not parsed. A group with fewer than ``minimum_parsed`` parsed scores gets NaN (with 1,
    a single score is a variance of 0). Equal scores give exactly 0. No gradient.
    """
    _check_range(low, high, minimum_parsed)
    values = _in_range(scores.detach(), low, high, out_of_range)
    valid = ~values.isnan()
    num_valid = valid.sum(dim=1)
    variance = _population_variance(values, valid)
    return torch.where(num_valid >= minimum_parsed, variance, torch.nan)


def answer_entropies(
    scores: Tensor, *, low: float, high: float, minimum_parsed: int, out_of_range: OutOfRange
) -> Tensor:
    """Return the entropies ``(B,)`` in nats of which score groups ``(B, G)`` gave how often; NaN as above.

    ``H_i = - sum_k p_ik log p_ik``, ``p_ik`` the share of the group's parsed scores that are its k-th
    distinct one; H in [0, log G]. Answers that say one score mean the same, whatever is reasoned before;
    unlike the variance it does not ask how far apart the others are. Arguments and NaN are those of
    ``group_variances``. No gradient.

    Source: the discrete semantic entropy of Farquhar et al. (Nature 630, 2024). SEED-GRPO (arXiv 2505.12346)
    weighs advantages by a semantic entropy over its maximum, log G, estimated there from the probabilities of
    whole answers, which here would say how sure the words are.
    """
    _check_range(low, high, minimum_parsed)
    values = _in_range(scores.detach(), low, high, out_of_range)
    num_valid = (~values.isnan()).sum(dim=1)
    # Of each answer, how many of its group say the same: comparisons with NaN are false.
    alike = (values.unsqueeze(2) - values.unsqueeze(1)).abs() < 10.0**-SCORE_DECIMALS
    share = alike.sum(dim=2).to(scores.dtype) / num_valid.clamp(min=1).unsqueeze(1)
    # An answer stands for its part of the sum over distinct ones: p log p, shared by those that say it.
    surprise = torch.where(share > 0, -share.clamp(min=torch.finfo(share.dtype).tiny).log(), 0.0)
    entropy = surprise.sum(dim=1) / num_valid.clamp(min=1)
    return torch.where(num_valid >= minimum_parsed, entropy, torch.nan)


def smoothed_variances(
    variances: Tensor, keys: Sequence[str], memory: Mapping[str, float], *, decay: float
) -> tuple[Tensor, dict[str, float]]:
    """Return the variances ``(B,)`` after each image's history, and what to remember of the images, by key.

    ``v <- decay v_before + (1 - decay) var``, and ``v = var`` at first sight: an exponential moving average
    over the times that the image came up, so of its epochs; decay 0 is no memory, bit for bit. ``keys`` name
    the images (data set and id); one that comes up twice in a step is smoothed twice, in order. A group with
    too few parsed scores (NaN) stays NaN and leaves its image's memory as it was: that an image *was* rated
    alike says nothing of answers that cannot be read. Ours; the release has no memory. No gradient.
    """
    if not 0.0 <= decay < 1.0:
        raise UserError(f"uncertainty.history_decay: got {decay}; must lie in [0, 1)")
    if decay == 0.0:
        return variances, {}
    found: dict[str, float] = {}
    smoothed: list[float] = []
    for key, now in zip(keys, variances.tolist(), strict=True):
        before = found.get(key, memory.get(key))
        smoothed.append(now if before is None else decay * before + (1.0 - decay) * now)
        if not math.isnan(now):
            found[key] = smoothed[-1]
    return variances.new_tensor(smoothed), found


def largest_variance(low: float, high: float) -> float:
    """Return the largest variance that the range allows, ``0.25 (high - low)^2``."""
    return 0.25 * (high - low) ** 2


def relative_uncertainty(variances: Tensor, *, largest: float, normaliser: Normaliser) -> Tensor:
    """Return the uncertainty ``u (B,)`` in [0, 1] of groups with the variances ``(B,)``; NaN stays NaN.

    fixed_maximum   ``u_i = var_i / largest``, ``largest_variance`` (release, but for its + 1e-8 in the
                    denominator), or of entropies ``log G``
    batch_relative  ``u_i = var_i / max_b var_b``, over the global batch; all 0 where no group varies
    """
    known = ~variances.isnan()
    if normaliser == "fixed_maximum":
        uncertainty = variances / largest
    elif normaliser == "batch_relative":
        widest = torch.where(known, variances, 0.0).amax() if len(variances) else variances.sum()
        uncertainty = torch.where(widest > 0, variances / widest, 0.0)
    else:
        raise UserError(
            f"uncertainty.normaliser: unknown {normaliser!r}; use fixed_maximum or batch_relative"
        )
    return torch.where(known, uncertainty.clamp(0.0, 1.0), torch.nan)


def uncertainty_weights(
    uncertainty: Tensor, *, form: str, alpha: float, unparsed_weight: float | Literal["minimum"]
) -> Tensor:
    """Return the weight ``(B,)`` of each group, in [0, 1], never rising with ``uncertainty (B,)``.

    ``form`` is a name of ``UNCERTAINTY_FORMS``, whose functions hold the formulas; with ``none``, and with
    alpha 0, every weight is exactly 1. A form by rank takes ``u = rank / (B' - 1)``: ``rank`` counts from 0
    (most certain) among the B' groups that have an uncertainty; ties share the mean of their ranks; with
    B' = 1 the weight is 1. ``alpha`` is the strength at this step: a schedule multiplies it beforehand. Where
    it is above 0, a group without uncertainty (NaN) weighs ``unparsed_weight``, or with "minimum" what u = 1
    would weigh; in the release such a group weighs 1, as if it were the most certain.

    The same weight multiplies the G advantages after normalisation; neither KL nor perception is scaled.
    Raises UserError for an unknown form, and for an alpha or a weight out of range.
    """
    if form not in UNCERTAINTY_FORMS:
        raise UserError(f"uncertainty.form: unknown {form!r}; use one of {', '.join(UNCERTAINTY_FORMS)}")
    chosen = UNCERTAINTY_FORMS[form]
    if form == "none" or alpha == 0:
        return torch.ones_like(uncertainty)
    if not 0 <= alpha <= chosen.largest_alpha:
        raise UserError(
            f"uncertainty.alpha: got {alpha} with form={form}; must be >= 0, and <= 1 for linear and rank"
        )
    weights = chosen.weight(_relative_rank(uncertainty) if chosen.by_rank else uncertainty, alpha)
    if unparsed_weight == "minimum":
        fallback = chosen.weight(uncertainty.new_ones(()), alpha)
    elif math.isfinite(unparsed_weight) and 0.0 <= unparsed_weight <= 1.0:
        fallback = uncertainty.new_full((), unparsed_weight)
    else:
        raise UserError(
            f"uncertainty.unparsed_weight: got {unparsed_weight}; must lie in [0, 1] or be minimum"
        )
    return torch.where(uncertainty.isnan(), fallback, weights)


def _check_range(low: float, high: float, minimum_parsed: int) -> None:
    if not low < high:
        raise UserError(f"task.low, task.high: need low < high, got {low} and {high}")
    if minimum_parsed < 1:
        raise UserError(f"uncertainty.minimum_parsed: got {minimum_parsed}; must be at least 1")


def _in_range(scores: Tensor, low: float, high: float, out_of_range: str) -> Tensor:
    if out_of_range == "clip":
        return scores.clamp(low, high)  # NaN stays NaN
    if out_of_range == "refuse":
        return torch.where((scores < low) | (scores > high), torch.nan, scores)
    raise UserError(f"uncertainty.out_of_range: unknown {out_of_range!r}; use clip or refuse")


def _population_variance(values: Tensor, valid: Tensor) -> Tensor:
    """Population variance of the valid entries of each row, ``(B, G) -> (B,)``; 0 where all are equal."""
    known = torch.where(valid, values, 0.0)
    num_valid = valid.sum(dim=1, keepdim=True).clamp(min=1)
    mean = known.sum(dim=1, keepdim=True) / num_valid
    variance = torch.where(valid, values - mean, 0.0).square().sum(dim=1) / num_valid.squeeze(1)
    smallest = torch.where(valid, values, torch.inf).amin(dim=1)
    largest = torch.where(valid, values, -torch.inf).amax(dim=1)
    # Rounding, of this mean or of means that are scores, would leave a constant row a variance of 1e-15.
    return torch.where(largest - smallest < 10.0**-SCORE_DECIMALS, 0.0, variance)


def _relative_rank(uncertainty: Tensor) -> Tensor:
    """Rank / (B' - 1) in [0, 1] among the known entries, ties averaged; 0 for unknown ones and for B' = 1."""
    compared = uncertainty.round(decimals=SCORE_DECIMALS)
    row, column = compared.unsqueeze(1), compared.unsqueeze(0)
    num_less = (column < row).sum(dim=1)  # comparisons with NaN are False
    num_equal = (column == row).sum(dim=1)
    rank = num_less + 0.5 * (num_equal - 1).clamp(min=0)
    num_known = int((~uncertainty.isnan()).sum())
    return rank.to(uncertainty.dtype) / max(num_known - 1, 1)
