"""All read-outs in one pass are those of separate passes, and cost one encoding and one prefill."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest

from qhk.data.seeds import stream_generator
from qhk.evaluation import readouts as module
from qhk.evaluation.readouts import ReadoutSampler, applicable
from qhk.policy.load import Policy
from qhk.policy.prompt import EncodedPrompt
from qhk.rollout.sample import read_completions, sample_in_batches
from qhk.settings.base import Readout
from qhk.types import Completion
from tests.rollout.test_decode import Encode
from tests.tasks.builders import task_of

TASK = task_of("score", "visualquality_r1_release")
"""Reads the first number anywhere, which an untrained policy writes now and then."""

LENGTH = 40
MEAN = Readout(num_samples=3, temperature=0.8, max_new_tokens=LENGTH)
GREEDY = Readout(num_samples=1, temperature=0.0, max_new_tokens=LENGTH)
READOUTS = {
    "mean": MEAN,
    "greedy": GREEDY,
    "short": Readout(num_samples=2, temperature=1.0, max_new_tokens=10),
    "expected": GREEDY.model_copy(update={"score": "expected"}),
    "mean_expected": MEAN.model_copy(update={"score": "expected"}),
}


def sampler(policy: Policy, readouts: dict[str, Readout], decode_batch: int = 100) -> ReadoutSampler:
    return ReadoutSampler(policy, readouts, task=TASK, decimals=1, decode_batch=decode_batch)


def streams(number: int) -> list[partial[np.random.Generator]]:
    return [partial(stream_generator, 0, place) for place in range(number)]


@pytest.fixture
def prompts(encode: Encode) -> list[EncodedPrompt]:
    return [encode(64, 64), encode(96, 32), encode(32, 32), encode(64, 32)]


def equal(one: Completion, other: Completion) -> bool:
    if one.distribution is None or other.distribution is None:
        return one == other
    pairs = zip(one.distribution.__dict__.values(), other.distribution.__dict__.values(), strict=True)
    return one.text == other.text and all(math.isclose(a, b, rel_tol=1e-10) for a, b in pairs)


def test_one_pass_equals_a_pass_for_each_readout(
    policy: Policy, prompts: list[EncodedPrompt], full_precision: None
) -> None:
    together = sampler(policy, READOUTS)(prompts, streams(4))
    assert [list(found) for found in together] == [list(READOUTS)] * 4
    for name, readout in READOUTS.items():
        alone = sampler(policy, {name: readout}, decode_batch=3)(prompts, streams(4))
        for found, own in zip(together, alone, strict=True):
            assert all(map(equal, found[name], own[name])) and len(found[name]) == readout.num_samples
    read = [completion for found in together for completion in found["mean_expected"]]
    assert sum(completion.distribution is not None for completion in read) > 2, "nothing was read"
    for found in together:
        for one, other in (("greedy", "expected"), ("mean", "mean_expected")):
            assert [each.text for each in found[one]] == [each.text for each in found[other]]
            assert [each.answer.parsed for each in found[one]] == [
                each.answer.parsed for each in found[other]
            ]


def test_each_draw_begins_its_own_stream(
    policy: Policy, prompts: list[EncodedPrompt], full_precision: None
) -> None:
    """Two sampled draws of one length decode as one group: neither is moved on by the other."""
    drawn = {
        name: Readout(num_samples=number, temperature=1.0, max_new_tokens=LENGTH)
        for name, number in (("three", 3), ("two", 2))
    }
    for found in sampler(policy, drawn)(prompts[:2], streams(2)):
        texts = {name: [each.text for each in said] for name, said in found.items()}
        assert texts["two"] == texts["three"][:2] and len(set(texts["three"])) == 3


def test_a_single_readout_is_what_training_samples_bit_for_bit(
    policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    for readout in (MEAN, GREEDY):
        found = sampler(policy, {"one": readout}, decode_batch=6)(prompts, streams(4))
        groups = sample_in_batches(
            policy,
            prompts,
            [stream() for stream in streams(4)],
            group_size=readout.num_samples,
            max_new_tokens=LENGTH,
            temperature=readout.temperature,
            decode_batch=6,
        )
        assert [each["one"] for each in found] == [
            read_completions(policy, group, TASK.parse) for group in groups
        ]


def test_pictures_and_prompts_are_encoded_once(
    policy: Policy, prompts: list[EncodedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str) -> None:
        inner = getattr(module, name)

        def call(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            return inner(*arguments, **named)

        monkeypatch.setattr(module, name, call)

    for name in ("encode_images", "encode_for_decoding", "decode_groups"):
        counted(name)
    sampler(policy, READOUTS)(prompts, streams(4))
    assert calls == ["encode_images", "encode_for_decoding", "decode_groups", "decode_groups"]
    calls.clear()
    sampler(policy, READOUTS, decode_batch=12)(prompts, streams(4))
    assert calls.count("encode_images") == 2, "two prompts of six sequences each fit twelve"


def test_a_task_in_words_has_no_expected_scores() -> None:
    assert list(applicable(READOUTS, TASK)) == list(READOUTS)
    assert list(applicable(READOUTS, task_of("degradation", "json"))) == ["mean", "greedy", "short"]
