"""Sampling: recorded log-probabilities are the training forward's, and batching changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from qhk.policy.load import Policy
from qhk.policy.packed import encode_images, pack_groups, packed_hidden, run_text_model
from qhk.policy.prompt import EncodedPrompt
from qhk.rollout import decode
from qhk.rollout.decode import Group, draw, sample_groups
from qhk.rollout.sample import sample_in_batches
from tests.conftest import MESSAGES, build_policy, picture
from tests.policy.test_packed import SIDES, kept, packed_logprobs

Encode = Callable[[int, int], EncodedPrompt]


def sample(
    policy: Policy, prompts: list[EncodedPrompt], temperature: float = 1.0, ends: int = 60
) -> list[Group]:
    """Groups of 5; every id below ``ends`` ends a completion, so lengths differ and rows finish early."""
    uniforms = np.stack([np.random.default_rng(prompt.num_tokens).random((5, 12)) for prompt in prompts])
    return sample_groups(policy.model, prompts, uniforms, temperature=temperature, end_tokens=range(ends))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_recorded_logprobs_are_the_training_forwards(
    policy: Policy, encode: Encode, full_precision: None, temperature: float
) -> None:
    prompts = [encode(64, 64), encode(96, 32), encode(32, 32)]
    groups = sample(policy, prompts, temperature)
    assert len({len(ids) for group in groups for ids in group.completion_ids}) > 2, "lengths should differ"
    recorded = torch.cat([logprobs for group in groups for logprobs in group.logprobs])
    scored = torch.cat(
        [
            torch.cat([scored_at(policy, prompt, ids, temperature) for ids in group.completion_ids])
            for prompt, group in zip(prompts, groups, strict=True)
        ]
    )
    assert torch.allclose(recorded, scored, atol=1e-11)


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pictures=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=3),
    group_size=st.integers(1, 5),
    limit=st.integers(1, 9),
    decode_batch=st.integers(1, 16),
)
def test_any_rollout_records_the_training_forwards_logprobs(
    full_precision: None,
    adapted: bool,
    pictures: list[tuple[int, int]],
    group_size: int,
    limit: int,
    decode_batch: int,
) -> None:
    policy = kept("qwen2_5_vl", adapted)
    prompts = [
        policy.encoder.encode(MESSAGES, [picture(*size, seed=place)]) for place, size in enumerate(pictures)
    ]
    groups = sample_in_batches(
        policy,
        prompts,
        [np.random.default_rng(place) for place in range(len(prompts))],
        group_size=group_size,
        max_new_tokens=limit,
        temperature=1.0,
        decode_batch=decode_batch,
    )
    assert [len(group.completion_ids) for group in groups] == [group_size] * len(prompts)
    recorded = torch.cat([logprobs for group in groups for logprobs in group.logprobs])
    scored = packed_logprobs(policy, prompts, [group.completion_ids for group in groups])
    torch.testing.assert_close(recorded, scored.detach(), rtol=0, atol=1e-11)


def scored_at(policy: Policy, prompt: EncodedPrompt, ids: torch.Tensor, temperature: float) -> torch.Tensor:
    packed = pack_groups([prompt], [[ids]], device=ids.device)
    hidden = packed_hidden(policy.model, packed, encode_images(policy.model, [prompt]))
    logits = policy.model.lm_head(hidden) / temperature
    return logits.log_softmax(-1).gather(1, ids[:, None])[:, 0].detach()


def test_a_group_does_not_depend_on_its_batch(policy: Policy, encode: Encode, full_precision: None) -> None:
    prompts = [encode(64, 64), encode(96, 32), encode(32, 32)]
    together = sample(policy, prompts)
    for prompt, group in zip(prompts, together, strict=True):
        alone = sample(policy, [prompt])[0]
        assert [ids.tolist() for ids in alone.completion_ids] == [
            ids.tolist() for ids in group.completion_ids
        ]
        assert alone.truncated == group.truncated


def test_decode_batch_changes_no_completion(policy: Policy, encode: Encode, full_precision: None) -> None:
    prompts = [encode(64, 64), encode(96, 32), encode(32, 32)]

    def run(decode_batch: int) -> list[list[int]]:
        streams = [np.random.default_rng(index) for index in range(3)]
        groups = sample_in_batches(
            policy,
            prompts,
            streams,
            group_size=4,
            max_new_tokens=6,
            temperature=1.0,
            decode_batch=decode_batch,
        )
        return [ids.tolist() for group in groups for ids in group.completion_ids]

    assert run(4) == run(100)


@pytest.mark.parametrize(("ends", "expected"), [(60, [5, 10]), (20, [7, 12])])
def test_looking_less_often_changes_no_completion(
    policy: Policy,
    encode: Encode,
    full_precision: None,
    monkeypatch: pytest.MonkeyPatch,
    ends: int,
    expected: list[int],
) -> None:
    """Rows that ended between two looks decode on as filling, and leave the batch later."""
    prompts, looks = [encode(64, 64), encode(96, 32), encode(32, 32)], list[int]()
    each_step = sample(policy, prompts, ends=ends)
    look = decode._Rows.look
    monkeypatch.setattr(
        decode._Rows, "look", lambda *args, behind: looks.append(behind) or look(*args, behind=behind)
    )
    monkeypatch.setattr(decode, "steps_between_looks", lambda device: expected[0])
    for one, other in zip(each_step, sample(policy, prompts, ends=ends), strict=True):
        assert one.truncated == other.truncated
        assert [ids.tolist() for ids in one.completion_ids] == [ids.tolist() for ids in other.completion_ids]
        assert torch.allclose(torch.cat(one.logprobs), torch.cat(other.logprobs), atol=1e-11)
    assert looks == expected
    assert not any(all(group.truncated) for group in each_step), "rows should end between looks"


def test_between_looks_nothing_is_read_from_the_device(
    policy: Policy, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that Python asks of a tensor lets a GPU stand still; so does a shape that depends on one."""
    calls = Counter[str]()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls[function.__name__] += 1
            return function(*args, **kwargs or {})

    def step(*args: Any, **kwargs: Any) -> Any:
        with Counting():
            return run_text_model(*args, **kwargs)

    for owner, name in ((decode, "draw"), (decode.GroupCache, "regroup")):
        own = getattr(owner, name)

        def counted(*args: Any, own: Any = own, **kwargs: Any) -> Any:
            with Counting():
                return own(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)
    monkeypatch.setattr(decode, "run_text_model", step)
    sample(policy, [encode(64, 64), encode(96, 32)])
    assert calls["bmm.default"] > 0 and calls["searchsorted.Tensor"] > 0 and calls["index.Tensor"] > 0
    assert not {"_local_scalar_dense.default", "nonzero.default", "item.default"} & calls.keys()


def test_what_is_sampled_can_be_learnt_from(
    policy: Policy, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors of inference mode would be refused by autograd; without it the same bits are sampled."""
    prompts = [encode(64, 64), encode(96, 32)]
    groups = sample(policy, prompts)
    ids, logprobs = groups[1].completion_ids, torch.cat(groups[1].logprobs)
    packed = pack_groups(prompts[1:], [ids], device=ids[0].device)
    hidden = packed_hidden(policy.model, packed, encode_images(policy.model, prompts[1:]))
    scored = policy.model.lm_head(hidden).log_softmax(-1).gather(1, packed.targets[:, None])[:, 0]
    ((scored - logprobs) * logprobs).sum().backward()
    assert all(not one.is_inference() for one in (*ids, *groups[1].logprobs))
    assert float(policy.model.get_input_embeddings().weight.grad.abs().max()) > 0
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)
    for one, other in zip(groups, sample(policy, prompts), strict=True):
        pairs = [*zip(one.completion_ids, other.completion_ids, strict=True)]
        pairs += zip(one.logprobs, other.logprobs, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_greedy_equals_transformers_generate(policy: Policy, encode: Encode) -> None:
    prompt = encode(64, 64)
    uniforms = np.zeros((1, 1, 8))
    ours = sample_groups(policy.model, [prompt], uniforms, temperature=0.0, end_tokens=[0])[0].completion_ids[
        0
    ]
    generated = policy.model.generate(
        input_ids=prompt.input_ids[None],
        attention_mask=torch.ones_like(prompt.input_ids)[None],
        mm_token_type_ids=prompt.is_image.long()[None],
        pixel_values=prompt.pixel_values,
        image_grid_thw=prompt.image_grid_thw,
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=0,
    )[0, prompt.num_tokens :]
    assert ours.tolist() == generated.tolist()


def test_end_token_is_kept_and_the_limit_is_told(policy: Policy, encode: Encode) -> None:
    group = sample(policy, [encode(64, 64)], ends=100)[0]
    for ids, truncated in zip(group.completion_ids, group.truncated, strict=True):
        assert (int(ids[-1]) < 100) != truncated
        assert not (ids[:-1] < 100).any()
        assert len(ids) == 12 or not truncated


def test_activation_checkpointing_does_not_lose_the_prompt(
    policy: Policy, encode: Encode, full_precision: None
) -> None:
    """transformers drops its own cache under checkpointing, silently; ours must not go with it."""
    prompts = [encode(64, 64), encode(96, 32)]
    plain = sample(policy, prompts)
    policy.model.gradient_checkpointing_enable()
    policy.model.train()
    checkpointed = sample(policy, prompts)
    for first, second in zip(plain, checkpointed, strict=True):
        assert [ids.tolist() for ids in first.completion_ids] == [
            ids.tolist() for ids in second.completion_ids
        ]


def test_draw_inverts_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]], dtype=torch.float64)
    uniforms = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    tokens, logprobs = draw(logits.expand(10_000, -1), uniforms, temperature=0.5)
    expected = (logits[0] / 0.5).softmax(-1)
    shares = torch.bincount(tokens, minlength=4) / 10_000
    assert torch.allclose(shares.double(), expected, atol=2e-4)
    assert torch.allclose(logprobs.exp(), expected[tokens])


def test_the_largest_uniform_number_stays_inside_the_vocabulary() -> None:
    logits = torch.full((1, 7), -3.0)
    token, _ = draw(logits, torch.tensor([np.nextafter(1.0, 0.0)]), temperature=1.0)
    assert 0 <= int(token) < 7


def test_checkpoint_generation_config_is_not_read(policy: Policy) -> None:
    prompt = policy.encoder.encode(MESSAGES, [picture(64, 64)])
    before = sample(policy, [prompt])[0].completion_ids
    policy.model.generation_config.temperature = 0.01
    policy.model.generation_config.top_k = 1
    after = sample(policy, [prompt])[0].completion_ids
    assert [ids.tolist() for ids in before] == [ids.tolist() for ids in after]
    assert packed_logprobs(policy, [prompt], [before]).shape == (sum(map(len, before)),)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_sampled_and_scored_log_probabilities_agree_in_bfloat16(encode: Encode, device: str) -> None:
    """To the rounding of the hidden states: attention scores are not rounded before their softmax."""
    policy = build_policy(dtype=torch.bfloat16)
    policy.model.to(device)
    group = sample(policy, [encode(64, 64)])[0]
    scored = packed_logprobs(policy, [encode(64, 64)], [[ids.to(device) for ids in group.completion_ids]])
    gap = (torch.cat(group.logprobs) - scored.double().cpu()).detach().abs()
    assert float(gap.mean()) < 0.04
