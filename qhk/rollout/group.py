"""A group: one prompt, kept once, and the G completions sampled for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from qhk.policy.load import Policy
from qhk.policy.prompt import EncodedPrompt
from qhk.rollout.decode import SampledGroup, sample_groups
from qhk.types import Answer, Completion, Example

Parser = Callable[[str], Answer]


@dataclass(frozen=True, kw_only=True)
class Group:
    """One example's prompt (ids, pixels, positions), the same prompt on its degraded twin, and G completions.

    ``completion_ids`` are 1-d tensors, the end token included where one was sampled; ``sampled_logprobs``
    are their log-probabilities as sampled. ``twin`` is None where no term of the loss looks at it. ``task``
    is the name of the run's task that the prompt belongs to.
    """

    task: str
    example: Example
    prompt: EncodedPrompt
    twin: EncodedPrompt | None
    completion_ids: list[Tensor]
    sampled_logprobs: list[Tensor]
    completions: list[Completion]

    @property
    def num_tokens(self) -> int:
        """Completion tokens of the whole group."""
        return sum(len(ids) for ids in self.completion_ids)


def read_completions(policy: Policy, sampled: SampledGroup, parse: Parser) -> list[Completion]:
    """The sampled ids as text with what the parser reads in each."""
    completions = []
    for ids, truncated in zip(sampled.completion_ids, sampled.truncated, strict=True):
        text = policy.tokenizer.decode(ids, skip_special_tokens=True)
        completions.append(
            Completion(text=text, answer=parse(text), num_tokens=len(ids), truncated=truncated)
        )
    return completions


def sample_in_batches(
    policy: Policy,
    prompts: Sequence[EncodedPrompt],
    streams: Sequence[np.random.Generator],
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    decode_batch: int,
) -> list[SampledGroup]:
    """One sampled group per prompt, at most ``decode_batch`` sequences decoded together.

    ``streams[i]`` gives prompt i its random numbers, so the batch size changes memory and speed only.
    """
    together = max(1, decode_batch // group_size)
    sampled: list[SampledGroup] = []
    for start in range(0, len(prompts), together):
        chosen = slice(start, start + together)
        uniforms = np.stack([stream.random((group_size, max_new_tokens)) for stream in streams[chosen]])
        sampled += sample_groups(
            policy.model, prompts[chosen], uniforms, temperature=temperature, end_tokens=policy.end_tokens
        )
    return sampled
