"""Estimates of the divergence from the frozen reference policy."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, *, estimator: Estimator) -> Tensor:
    """Estimate of KL(policy || reference) at each sampled token, ``(R, T)``, in nats.

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
    raise ValueError(f"objective.kl_estimator: unknown estimator {estimator!r}; use k1, k2 or k3")
