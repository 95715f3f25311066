"""Advantages of the completions of a group, relative to their siblings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from qhk.errors import UserError

Scaling = Literal["group_std", "batch_std", "none"]


def group_advantages(
    rewards: Tensor, *, scaling: Scaling, epsilon: float, counted: Tensor | None = None
) -> Tensor:
    """Return the advantages ``(B, G)`` of the rewards ``(B, G)`` of B groups with G completions each.

    ``A_ij = (r_ij - mean_i) / scale``, with ``scale``:

    group_std  ``std_i + epsilon``, unbiased (n - 1) within the group  (GRPO; all four releases, epsilon 1e-4)
    batch_std  ``std + epsilon``, unbiased over all B * G rewards        (TRL's "batch" scaling)
    none       ``1``                                                     (Dr. GRPO, arXiv 2503.20783)

    B is the global batch: only ``batch_std`` depends on the other groups. A group whose rewards are all equal
    gets exactly 0 under every scaling. ``counted`` bool (B, G) leaves completions out as if they had not been
    sampled: mean and std are of the others, and they get 0; so does a group with fewer than two others.
    Nothing carries gradient. ``UserError`` for G < 2, unknown scaling.
    """
    num_groups, group_size = rewards.shape
    if group_size < 2:
        raise UserError(f"rollout.group_size: got {group_size}; a group needs at least 2 completions")
    if scaling not in ("group_std", "batch_std", "none"):
        raise UserError(f"objective.advantage_scaling: unknown {scaling!r}; use group_std, batch_std or none")
    rewards = rewards.detach()
    if counted is not None and not bool(counted.all()):
        return _partial_advantages(rewards, counted, scaling=scaling, epsilon=epsilon)
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if scaling == "group_std":
        centred = centred / (rewards.std(dim=1, correction=1, keepdim=True) + epsilon)
    elif scaling == "batch_std":
        centred = centred / (rewards.std(correction=1) + epsilon)
    # The mean of equal numbers may differ from them by a rounding, which epsilon would turn into a signal.
    return torch.where(equal_rewards(rewards)[:, None], 0.0, centred) if num_groups else centred


def decoupled_advantages(
    rewards: Sequence[Tensor], weights: Sequence[float], *, epsilon: float, counted: Tensor | None = None
) -> Tensor:
    """Return the advantages ``(B, G)`` of K rewards, each ``(B, G)``, normalised one by one before they add.

    ``A = S / (std(S) + epsilon)``,  ``S = sum_k w_k (r_k - mean_i) / (std_i + epsilon)``

    ``mean_i`` and ``std_i`` (unbiased) are of reward k within its group, ``std(S)`` (unbiased) is over all
    counted completions of the batch that is given. So two groups whose rewards differ in one part only keep
    different advantages, which the std of the sum would make alike, and a weight says how much a reward
    counts and not how widely it spreads. A reward that is equal throughout a group adds exactly 0 there;
    ``counted`` as in ``group_advantages``. Nothing carries gradient. Source: GDPO (arXiv 2601.05242); TRL's
    ``normalize_then_sum``, which also subtracts the mean of S, 0 but for rounding.
    """
    total = torch.zeros_like(rewards[0])
    for reward, weight in zip(rewards, weights, strict=True):
        total += weight * group_advantages(reward, scaling="group_std", epsilon=epsilon, counted=counted)
    inside = total.flatten() if counted is None else total[counted]
    return total / (inside.std(correction=1) + epsilon) if len(inside) > 1 else total


def flat_groups(rewards: Tensor, *, minimum_std: float, counted: Tensor | None = None) -> Tensor:
    """Return which groups (B,) teach nothing: their rewards are all equal, or spread less than is asked for.

    ``rewards`` (B, G); with ``minimum_std`` 0 these are ``equal_rewards``, else also the groups whose
    unbiased standard deviation is below it. Divided by that deviation, noise of the last digits would count
    as much as a real difference. ``counted`` bool (B, G) leaves completions out as ``group_advantages`` does:
    a group with fewer than two others is flat. Source: the STD filtering of OmniQuality-R (arXiv 2510.10609),
    whose threshold was not at hand.
    """
    if counted is not None and not bool(counted.all()):
        rest = [row[left] for row, left in zip(rewards, counted, strict=True)]
        flat = [
            len(row) < 2 or bool((row == row[0]).all()) or float(row.std(correction=1)) < minimum_std
            for row in rest
        ]
        return torch.tensor(flat, dtype=torch.bool, device=rewards.device)
    equal = equal_rewards(rewards)
    return equal | (rewards.std(dim=1, correction=1) < minimum_std) if minimum_std > 0 else equal


def equal_rewards(rewards: Tensor) -> Tensor:
    """Return which groups (B,) hold one reward G times, exactly: no completion of theirs has an advantage.

    ``rewards`` (B, G). DAPO (arXiv 2503.14476, eq. 11) samples until no such group is left.
    """
    return (rewards == rewards[:, :1]).all(dim=1)


def _partial_advantages(rewards: Tensor, counted: Tensor, *, scaling: Scaling, epsilon: float) -> Tensor:
    number = counted.sum(dim=1, keepdim=True)
    mean = torch.where(counted, rewards, 0.0).sum(dim=1, keepdim=True) / number.clamp(min=1)
    centred = torch.where(counted, rewards - mean, 0.0)
    if scaling == "group_std":
        std = (centred.square().sum(dim=1, keepdim=True) / (number - 1).clamp(min=1)).sqrt()
        centred = centred / (std + epsilon)
    elif scaling == "batch_std" and int(number.sum()) > 1:
        centred = centred / (rewards[counted].std(correction=1) + epsilon)
    # Equal rewards give exactly 0, as in ``group_advantages``: their mean may be off by a rounding.
    smallest = torch.where(counted, rewards, torch.inf).amin(dim=1, keepdim=True)
    largest = torch.where(counted, rewards, -torch.inf).amax(dim=1, keepdim=True)
    return torch.where(largest > smallest, centred, 0.0)
