"""The policy term: importance ratio and clipped surrogate."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from qhk.errors import UserError

Ratio = Literal["token", "sequence"]


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    ratio: Ratio,
    clip_low: float | None,
    clip_high: float | None,
) -> tuple[Tensor, Tensor]:
    """Return minus the clipped surrogate per token ``(R, T)``, and where clipping acts, bool ``(R, T)``.

    ``l = -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)``

    token:     ``r_t = exp(lp_t - old_t)``                              (PPO; GRPO, arXiv 2402.03300)
    sequence:  ``r_t = s = exp(mean over the completion of lp_t - old_t)``  (GSPO, arXiv 2507.18071, eq. 7)

    ``logprobs``, ``old_logprobs`` ``(R, T)`` in nats; ``advantages`` ``(R,)``, one for all tokens of a
    completion; ``mask`` ``(R, T)``, True where a token counts. A bound of None leaves that side open; both
    None is the surrogate without clipping (Q-Hawkeye release). Unequal bounds are DAPO's raised upper clip.
    ``old_logprobs`` None means that the rollout is used once: the policy itself, so the ratio is 1, clipping
    cannot act, and the gradient is the plain policy gradient ``-A grad lp``.

    ``old_logprobs`` and ``advantages`` are detached. Values outside the mask are 0, whatever was there.
    """
    old = logprobs.detach() if old_logprobs is None else old_logprobs.detach()
    log_ratio = torch.where(mask, logprobs - old, 0.0)
    if ratio == "sequence":
        length = mask.sum(dim=1, keepdim=True).clamp(min=1)
        log_ratio = (log_ratio.sum(dim=1, keepdim=True) / length).expand_as(log_ratio)
    elif ratio != "token":
        raise UserError(f"objective.ratio: unknown ratio {ratio!r}; use token or sequence")
    probability_ratio = log_ratio.exp()
    advantage = advantages.detach().unsqueeze(1).to(probability_ratio.dtype)
    gain = probability_ratio * advantage
    if clip_low is None and clip_high is None:
        return torch.where(mask, -gain, 0.0), torch.zeros_like(mask)
    bounded = probability_ratio.clamp(
        min=None if clip_low is None else 1.0 - clip_low,
        max=None if clip_high is None else 1.0 + clip_high,
    )
    clipped_gain = bounded * advantage
    clipped = mask & (clipped_gain < gain).detach()
    return torch.where(mask, -torch.minimum(gain, clipped_gain), 0.0), clipped
