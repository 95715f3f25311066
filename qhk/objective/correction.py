"""Weights for completions that another engine sampled, which rounds otherwise than the training forward."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from qhk.errors import UserError

Level = Literal["token", "sequence"]


def correction_weights(
    old_logprobs: Tensor, sampled_logprobs: Tensor, mask: Tensor, *, level: Level, bound: float
) -> Tensor:
    """Return truncated importance weights ``(R, T)``, in (0, bound], detached; 0 outside the mask.

    token:     ``w_t = min(exp(old_t - mu_t), bound)``
    sequence:  ``w_t = w = min(exp(sum over the completion of old_t - mu_t), bound)``

    ``old_logprobs`` ``(R, T)`` are those of the policy before the first update, as the training forward
    finds them, ``sampled_logprobs`` ``(R, T)`` those that the completions were drawn with (``mu``), both in
    nats and at the same temperature; ``mask`` ``(R, T)`` is True where a token counts. The weight belongs to
    the sampling alone: it stays the same in every update on these completions, beside the ratio of the
    present to the old policy. Truncation bounds the variance and leaves a bias where it acts.

    Source: truncated importance sampling, Ionides, J. Comput. Graph. Stat. 17(2), 2008; for the gap between
    sampler and trainer, Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training" (token), and Liu et al. 2025, "When speed kills stability" (sequence). Raises ``UserError`` on
    another level and on a bound below 1, which would weigh down completions of equal probabilities.
    """
    if level not in ("token", "sequence"):
        raise UserError(f"rollout.correction.level: unknown {level!r}; use none, token or sequence")
    if not bound >= 1.0:
        raise UserError(f"rollout.correction.bound: must be >= 1, got {bound}")
    log_weights = torch.where(mask, old_logprobs.detach() - sampled_logprobs.detach(), 0.0)
    if level == "sequence":
        log_weights = log_weights.sum(dim=1, keepdim=True).expand_as(log_weights)
    return torch.where(mask, log_weights.clamp(max=math.log(bound)).exp(), 0.0)
