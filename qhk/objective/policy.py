"""The policy term: importance ratio and clipped surrogate."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from qhk.errors import UserError

Ratio = Literal["token", "sequence"]

Surrogate = Literal["clip", "cispo", "sapo"]
"""How a ratio bounds what a token teaches: clipped with the gradient, clipped beside it, or let fade."""


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    ratio: Ratio,
    clip_low: float | None,
    clip_high: float | None,
    surrogate: Surrogate = "clip",
    soft_positive: float = 1.0,
    soft_negative: float = 1.05,
) -> tuple[Tensor, Tensor]:
    """Return minus the surrogate per token ``(R, T)``, and where its bounds act, bool ``(R, T)``.

    clip   ``l = -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)``                       (PPO, GRPO)
    cispo  ``l = -clip(r, 1 - clip_low, 1 + clip_high) A lp``, the clipped ratio without gradient, so that no
           token is left out, however far its ratio                          (CISPO, arXiv 2506.13585)
    sapo   ``l = -4 / tau sigmoid(tau (r - 1)) A``, tau ``soft_positive`` where A > 0, else ``soft_negative``:
           its slope is 1 at r = 1 and fades on both sides; no bound is read  (SAPO, arXiv 2511.20347)

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
    if surrogate == "sapo":
        rising, falling = (advantage.new_tensor(value) for value in (soft_positive, soft_negative))
        tau = torch.where(advantage > 0, rising, falling)
        gain = (tau * (probability_ratio - 1.0)).sigmoid() * 4.0 / tau * advantage
        return torch.where(mask, -gain, 0.0), torch.zeros_like(mask)
    if surrogate == "cispo":
        weight = probability_ratio.detach().clamp(
            min=None if clip_low is None else 1.0 - clip_low,
            max=math.inf if clip_high is None else 1.0 + clip_high,
        )
        gain = weight * advantage * torch.where(mask, logprobs, 0.0)
        return torch.where(mask, -gain, 0.0), mask & (weight != probability_ratio.detach())
    if surrogate != "clip":
        raise UserError(f"objective.surrogate: unknown {surrogate!r}; use clip, cispo or sapo")
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
