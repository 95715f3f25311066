"""Which tokens of a completion its advantage goes to, and how much of it: weights of the policy term."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Scope = Literal["completion", "reasoning", "answer"]
"""The tokens that a completion's advantage goes to: all, those outside its answer, those inside."""


def top_tokens(values: Tensor, mask: Tensor, *, share: float) -> Tensor:
    """Return which tokens hold the largest values of their completion, bool ``(R, T)``.

    The ``ceil(share n)`` largest of the n tokens under the bool ``mask (R, T)``; of equal ones the first. All
    of them for share 1. Detached. Within a completion, so that a token's place depends on no other one.

    Values are entropies for entropy gating: a policy learns where it decides, not where it writes what must
    follow (arXiv 2506.01939, a share of 0.2 over a batch; the entropy gating of OmniQuality-R, arXiv
    2510.10609; TRL's ``top_entropy_quantile`` is over the batch of one device).
    """
    ranked = torch.where(mask, values.detach(), -torch.inf)
    order = ranked.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    lengths = mask.sum(dim=1, keepdim=True)
    # A share of 0.4 of 5 tokens is 2, which 0.4 * 5 may miss by a rounding.
    kept = (lengths.double() * share - 1e-9).ceil()
    return mask & (rank < kept)


def visual_credit(
    dependency: Tensor, mask: Tensor, *, group_size: int, share: float, lowest: float
) -> Tensor:
    """Return VPPO's weights of tokens ``(R, T)``, >= 0, from how much each depends on the picture.

    ``w = a_r`` for the ``ceil(share n)`` most dependent tokens of a completion, 0 for the others;
    ``a_r = lowest + (highest - lowest) v_r``, ``v_r`` the completion's mean dependency, brought to [0, 1] by
    the least and the largest of its group, and ``highest`` such that the mean of ``a`` over the group is 1.

    ``dependency (R, T)`` is a divergence per token, in nats, between the policy's distributions on the
    picture and on its degraded copy; the R rows are whole groups of ``group_size``. Where a group's means are
    all equal ``a`` is 1; completions without tokens are left out. Detached.

    Source: VPPO (arXiv 2510.09285); its release has share 0.4 and lowest 0.9, and compares the completions of
    an update instead of those of a group, so that what a completion weighs depends on the batch there.
    """
    kept = top_tokens(dependency, mask, share=share)
    inside = torch.where(mask, dependency.detach(), 0.0)
    lengths = mask.sum(dim=1)
    means = (inside.sum(dim=1) / lengths.clamp(min=1)).view(-1, group_size)
    there = (lengths > 0).view(-1, group_size)
    least = torch.where(there, means, torch.inf).amin(dim=1, keepdim=True)
    largest = torch.where(there, means, -torch.inf).amax(dim=1, keepdim=True)
    varies = largest > least
    relative = torch.where(there & varies, (means - least) / torch.where(varies, largest - least, 1.0), 0.0)
    average = relative.sum(dim=1, keepdim=True) / there.sum(dim=1, keepdim=True).clamp(min=1)
    highest = lowest + (1.0 - lowest) / torch.where(varies, average, 1.0)
    weights = torch.where(varies, lowest + (highest - lowest) * relative, 1.0)
    return kept * weights.view(-1, 1)


def gated_credit(dependency: Tensor, mask: Tensor, *, threshold: float, strength: float) -> Tensor:
    """Return weights of tokens ``(R, T)``, >= 0, whose sum over a completion is its number of tokens.

    ``w_t = n g_t / sum g``, with ``g_t = 1 + strength v_t`` where ``v_t >= threshold`` and else
    ``v_t / threshold``; ``v_t = d_t / max d`` is the token's dependency over the largest of its completion.

    ``dependency`` as in ``visual_credit``. What tokens that follow from the language alone lose goes to those
    that depend on the picture, so the advantage of the whole completion stays. With strength 0 and threshold
    0 every weight is 1; so it is where no token depends on the picture. Detached.

    Source: PGPO (arXiv 2604.01840) has a gate by threshold that conserves the sum; its formula was not at
    hand, so this is ours, and so are its two numbers.
    """
    inside = torch.where(mask, dependency.detach(), 0.0).clamp(min=0.0)
    largest = inside.amax(dim=1, keepdim=True)
    relative = inside / torch.where(largest > 0, largest, 1.0)
    below = relative / threshold if threshold > 0 else relative
    gate = torch.where(relative >= threshold, 1.0 + strength * relative, below)
    gate = torch.where(mask & (largest > 0), gate, mask.to(gate.dtype))
    return gate * mask.sum(dim=1, keepdim=True) / gate.sum(dim=1, keepdim=True).clamp(min=1e-12)


def covariances(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """Return ``(lp - mean lp) (A - mean A)`` of each token ``(N,)``; means are over all N tokens.

    ``logprobs (N,)`` of the sampled tokens, ``advantages (N,)`` of their completions. A step along the policy
    gradient changes the entropy by about minus the mean of these: what is likely already and made likelier
    takes entropy away. Detached. Source: Cui et al., "The entropy mechanism of reinforcement learning for
    reasoning language models" (arXiv 2505.22617).
    """
    logprobs, advantages = logprobs.detach(), advantages.detach()
    return (logprobs - logprobs.mean()) * (advantages - advantages.mean())


def largest_covariances(covariance: Tensor, *, share: float) -> Tensor:
    """Return which tokens, bool ``(N,)``, have the largest covariances: ``max(1, floor(share N))`` of them.

    KL-Cov (arXiv 2505.22617) penalises these; published share 2e-4 to 2e-3.
    """
    chosen = torch.zeros_like(covariance, dtype=torch.bool)
    if len(covariance):
        number = max(1, math.floor(share * len(covariance)))
        chosen[covariance.argsort(descending=True, stable=True)[:number]] = True
    return chosen


def drawn_covariances(covariance: Tensor, *, share: float, low: float, high: float, order: Tensor) -> Tensor:
    """Return which tokens, bool ``(N,)``, are drawn from those with a covariance in (low, high).

    The first ``max(1, floor(share N))`` of them in ``order (N,)``, a permutation of all places. Clip-Cov
    (arXiv 2505.22617) takes these out of the gradient; published are share 2e-4, low 1, high 5.
    """
    inside = (covariance > low) & (covariance < high)
    candidates = order[inside[order]]
    chosen = torch.zeros_like(inside)
    chosen[candidates[: max(1, math.floor(share * len(covariance)))]] = True
    return chosen
