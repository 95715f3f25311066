"""How far each completion lies from the reference, for a KL that is taken off its reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qhk.objective.reference import Estimator, sequence_kl
from qhk.policy.packed import pack_tokens
from qhk.rollout.group import Group
from qhk.training.branches import logprobs_of


@torch.no_grad()
def sequence_divergences(
    reference: Any,
    groups: Sequence[Group],
    *,
    estimator: Estimator,
    temperature: float,
    prompts_per_device: int,
) -> Tensor:
    """(b, G) float64 on the CPU: each completion's estimated KL(policy || reference), summed over tokens.

    The policy's log-probabilities are those it sampled with, so this costs one forward of the reference and
    none of the policy. The same forward, in the same micro-batches, as the KL in the loss.
    """
    parts = []
    for start in range(0, len(groups), prompts_per_device):
        part = groups[start : start + prompts_per_device]
        tokens = pack_tokens([group.completion_ids for group in part], device=reference.device)
        reference_logprobs = tokens.pad(logprobs_of(reference, part, tokens, temperature=temperature))
        sampled = torch.cat([logprobs for group in part for logprobs in group.sampled_logprobs])
        sampled_logprobs = tokens.pad(sampled.to(reference_logprobs.device))
        kl = sequence_kl(sampled_logprobs, reference_logprobs, tokens.mask(), estimator=estimator)
        parts.append(kl.view(len(part), -1).cpu())
    return torch.cat(parts)
