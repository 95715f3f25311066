"""All read-outs of a set of prompts at once: one encoding, one prefill, one decoding loop.

Read-outs that draw alike (so many samples, at this temperature, of this length) read the same completions, so
an expected score costs no decoding where its reasoning is sampled anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from qhk.policy.load import Policy
from qhk.policy.packed import encode_images
from qhk.policy.prompt import EncodedPrompt
from qhk.rollout.decode import (
    EncodedPrompts,
    Group,
    RepeatedPrompts,
    decode_groups,
    encode_for_decoding,
    for_decoding,
)
from qhk.rollout.expected import ExpectedScores
from qhk.rollout.sample import read_completions
from qhk.settings.base import Draw, Readout
from qhk.tasks import Task
from qhk.types import Completion

Stream = Callable[[], np.random.Generator]
"""Makes a prompt's stream of random numbers, from its beginning: each read-out draws from one of its own."""


def applicable(readouts: Mapping[str, Readout], task: Task) -> dict[str, Readout]:
    """Return the read-outs that a task has: those of expected scores need answers in numbers."""
    return {
        name: readout for name, readout in readouts.items() if task.has_scores or readout.score == "written"
    }


class ReadoutSampler:
    """Samples the read-outs of one task's prompts, at most ``decode_batch`` sequences decoded together.

    ``decimals`` is how many the prompt asks for: it makes the possible scores of expected read-outs.
    """

    def __init__(
        self,
        policy: Policy,
        readouts: Mapping[str, Readout],
        *,
        task: Task,
        decimals: int,
        decode_batch: int,
    ) -> None:
        self.policy, self.readouts, self.task = policy, readouts, task
        self.draws = list(dict.fromkeys(readout.draw for readout in readouts.values()))
        self.together = max(1, decode_batch // sum(draw.num_samples for draw in self.draws))
        self.expected = ExpectedScores(
            policy,
            grid=task.possible_scores(decimals=decimals),
            spans=task.number_spans,
            rows_at_once=decode_batch,
        )

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[EncodedPrompt], streams: Sequence[Stream]
    ) -> list[dict[str, list[Completion]]]:
        """Return each prompt's completions by read-out; ``streams[i]`` gives prompt i its random numbers.

        What a prompt is answered does not depend on the other prompts or read-outs, but for the rounding of
        their common products.
        """
        found: list[dict[str, list[Completion]]] = []
        with for_decoding(self.policy.model):
            for start in range(0, len(prompts), self.together):
                chosen = slice(start, start + self.together)
                found += self._batch(prompts[chosen], streams[chosen])
        return found

    def _batch(
        self, prompts: Sequence[EncodedPrompt], streams: Sequence[Stream]
    ) -> list[dict[str, list[Completion]]]:
        model = self.policy.model
        encoded = encode_for_decoding(model, prompts, encode_images(model, prompts))
        groups = self._decode(encoded, streams)
        read = {
            draw: [read_completions(self.policy, group, self.task.parse) for group in drawn]
            for draw, drawn in groups.items()
        }
        completions = {
            name: read[readout.draw]
            if readout.score == "written"
            else self.expected.read(encoded, groups[readout.draw], read[readout.draw])
            for name, readout in self.readouts.items()
        }
        return [
            {name: list(own[place]) for name, own in completions.items()} for place in range(len(prompts))
        ]

    def _decode(
        self, encoded: EncodedPrompts | RepeatedPrompts, streams: Sequence[Stream]
    ) -> dict[Draw, list[Group]]:
        """Groups of each draw; those of one length decode as one group."""
        drawn: dict[Draw, list[Group]] = {}
        for length in dict.fromkeys(draw.max_new_tokens for draw in self.draws):
            alike = [draw for draw in self.draws if draw.max_new_tokens == length]
            uniforms = [
                np.concatenate([stream().random((draw.num_samples, length)) for draw in alike])
                for stream in streams
            ]
            groups = decode_groups(
                self.policy.model,
                encoded,
                np.stack(uniforms),
                temperatures=[draw.temperature for draw in alike for _ in range(draw.num_samples)],
                end_tokens=self.policy.end_tokens,
            )
            first = 0
            for draw in alike:
                drawn[draw] = [group.part(first, first + draw.num_samples) for group in groups]
                first += draw.num_samples
        return drawn
