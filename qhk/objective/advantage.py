"""Advantages of the completions of a group, relative to their siblings."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Scaling = Literal["group_std", "batch_std", "none"]


def group_advantages(rewards: Tensor, *, scaling: Scaling, epsilon: float) -> Tensor:
    """Advantages ``(B, G)`` of the rewards ``(B, G)`` of B groups with G completions each.

    ``A_ij = (r_ij - mean_i) / scale``, with ``scale``:

    group_std  ``std_i + epsilon``, unbiased (n - 1) within the group  (GRPO; all four releases, epsilon 1e-4)
    batch_std  ``std + epsilon``, unbiased over all B * G rewards        (TRL's "batch" scaling)
    none       ``1``                                                     (Dr. GRPO, arXiv 2503.20783)

    B is the global batch: only ``batch_std`` depends on the other groups. A group whose rewards are all equal
    gets exactly 0 under every scaling. Nothing carries gradient. ``ValueError`` for G < 2, unknown scaling.
    """
    num_groups, group_size = rewards.shape
    if group_size < 2:
        raise ValueError(f"rollout.group_size: got {group_size}; a group needs at least 2 completions")
    rewards = rewards.detach()
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if scaling == "group_std":
        centred = centred / (rewards.std(dim=1, correction=1, keepdim=True) + epsilon)
    elif scaling == "batch_std":
        centred = centred / (rewards.std(correction=1) + epsilon)
    elif scaling != "none":
        raise ValueError(
            f"objective.advantage_scaling: unknown {scaling!r}; use group_std, batch_std or none"
        )
    # The mean of equal numbers may differ from them by a rounding, which epsilon would turn into a signal.
    return torch.where(_all_equal(rewards), 0.0, centred) if num_groups else centred


def _all_equal(rewards: Tensor) -> Tensor:
    return (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
