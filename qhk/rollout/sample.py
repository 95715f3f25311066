"""Sampling groups of completions in batches, and reading what was sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from qhk.policy.load import Policy
from qhk.policy.prompt import EncodedPrompt
from qhk.rollout.decode import Group, sample_groups
from qhk.types import Answer, Completion

Parser = Callable[[str], Answer]


def sample_in_batches(
    policy: Policy,
    prompts: Sequence[EncodedPrompt],
    streams: Sequence[np.random.Generator],
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    decode_batch: int,
    features: Sequence[Tensor] = (),
) -> list[Group]:
    """Return one sampled group per prompt, at most ``decode_batch`` sequences decoded together.

    ``streams[i]`` gives prompt i its random numbers, so the batch size changes memory and speed only.
    ``features[i]`` are prompt i's image features where they are known; with none, the pixels are encoded.
    """
    together = max(1, decode_batch // group_size)
    groups: list[Group] = []
    for start in range(0, len(prompts), together):
        chosen = slice(start, start + together)
        groups += sample_groups(
            policy.model,
            prompts[chosen],
            np.stack([stream.random((group_size, max_new_tokens)) for stream in streams[chosen]]),
            temperature=temperature,
            end_tokens=policy.end_tokens,
            features=torch.cat(list(features[chosen])) if features else None,
        )
    return groups


def read_completions(policy: Policy, group: Group, parse: Parser) -> list[Completion]:
    """Return the sampled ids as text, each with what the parser reads in it."""
    completions = []
    for ids, truncated in zip(group.completion_ids, group.truncated, strict=True):
        text = policy.tokenizer.decode(ids, skip_special_tokens=True)
        completions.append(
            Completion(text=text, answer=parse(text), num_tokens=len(ids), truncated=truncated)
        )
    return completions
