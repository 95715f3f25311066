"""Estimates of the divergence from the frozen reference policy."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from qhk.errors import UserError

Estimator = Literal["k1", "k2", "k3"]


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, *, estimator: Estimator) -> Tensor:
    """Return the estimate of KL(policy || reference) at each sampled token, ``(R, T)``, in nats.

    With ``d = ref - lp``:  k1 ``-d``,  k2 ``d^2 / 2``,  k3 ``exp(d) - d - 1``.

    Tokens are samples of the policy. k1 is unbiased and may be negative; k2 is biased, never negative; k3 is
    unbiased, never negative. As a *loss* they differ from what they estimate: with samples held fixed, the
    expected gradient of k1 is zero, that of k2 is the gradient of KL(policy || reference), and that of k3 is
    the gradient of KL(reference || policy). ``ref_logprobs`` is detached. No bound is applied.
    Source: J. Schulman, "Approximating KL divergence" (2020); all four releases use k3.
    """
    log_ratio = ref_logprobs.detach() - logprobs
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return 0.5 * log_ratio.square()
    if estimator == "k3":
        return log_ratio.exp() - log_ratio - 1.0
    raise UserError(f"objective.kl_estimator: unknown estimator {estimator!r}; use k1, k2 or k3")


def sequence_kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, estimator: Estimator) -> Tensor:
    """Return estimates of KL(policy || reference) per completion ``(R,)``, in nats: ``sum_t kl_estimate_t``.

    ``logprobs``, ``ref_logprobs`` and bool ``mask`` are ``(R, T)``; what is outside the mask counts nothing.
    Detached, in float64: this is what a reward is lessened by, ``r' = r - kl_coef * sequence_kl``, before
    advantages are taken. The policy gradient of that penalty is the gradient of KL(policy || reference) for
    k1, whose sum is unbiased; k2 and k3 are offered as the same numbers that the loss would use. A *sum*,
    not a mean, so a coefficient that suits the loss is about a completion's length too strong here.

    Advantages see it as any reward: scaled by a group's std, completions of equal task reward are ranked by
    their KL alone, at full strength (``advantage_scaling`` batch_std or none keeps its size).
    Source: D. Ziegler et al., arXiv 1909.08593; N. Stiennon et al., arXiv 2009.01325; the sum over tokens of
    k1 before advantages is also what TRL's RLOO trainer does (arXiv 2402.14740).
    """
    policy, reference = (values.detach().to(torch.float64) for values in (logprobs, ref_logprobs))
    divergence = kl_estimate(policy, reference, estimator=estimator)
    return torch.where(mask, divergence, 0.0).sum(dim=1)
