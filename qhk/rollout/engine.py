"""What samples completions while a policy learns: the policy itself, or an engine with its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from qhk.policy.load import Policy
from qhk.policy.prompt import EncodedPrompt
from qhk.rollout.decode import Group
from qhk.rollout.sample import sample_in_batches
from qhk.settings.rollout import RolloutSettings


class RolloutEngine(Protocol):
    """Samples groups of completions with the weights that it was last given.

    ``is_exact``: it samples from the policy that it is called with, by the numbers of the training forward,
    and is given no weights. ``is_shared``: all processes ask one engine, which one of them gives the weights.
    """

    @property
    def is_exact(self) -> bool: ...

    @property
    def is_shared(self) -> bool: ...

    def load(self, policy: Policy) -> None:
        """Take over the policy's present weights, ready to sample."""

    def rest(self) -> None:
        """Give back what is needed for sampling alone, until weights are loaded again."""

    def sample(
        self,
        policy: Policy,
        prompts: Sequence[EncodedPrompt],
        streams: Sequence[np.random.Generator],
        *,
        rollout: RolloutSettings,
        features: Sequence[Tensor],
    ) -> list[Group]:
        """Return one sampled group per prompt.

        ``streams[i]`` gives prompt i its random numbers; ``features[i]`` are prompt i's image features where
        they are known, with none they are computed.
        """


class PolicyEngine:
    """The policy samples for itself, from prompts that are encoded once."""

    is_exact = True
    is_shared = False

    def load(self, policy: Policy) -> None:
        """Do nothing: the weights are the policy's own."""

    def rest(self) -> None:
        """Do nothing: nothing is kept for sampling."""

    def sample(
        self,
        policy: Policy,
        prompts: Sequence[EncodedPrompt],
        streams: Sequence[np.random.Generator],
        *,
        rollout: RolloutSettings,
        features: Sequence[Tensor],
    ) -> list[Group]:
        """Return one sampled group per prompt, see ``sample_in_batches``."""
        return sample_in_batches(
            policy,
            prompts,
            streams,
            group_size=rollout.group_size,
            max_new_tokens=rollout.max_new_tokens,
            temperature=rollout.temperature,
            decode_batch=rollout.decode_batch,
            features=features,
        )
