"""The packed forward equals the repeated one, in outputs and gradients, and does not fall into its traps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from qhk.data.prompts import build_messages, num_pictures
from qhk.policy import prompt as prompt_module
from qhk.policy.adapter_base import Base
from qhk.policy.load import Policy, with_adapter
from qhk.policy.packed import encode_images, pack_groups, packed_hidden
from qhk.policy.prompt import EncodedPrompt, PromptEncoder
from qhk.policy.template import render_chat
from qhk.settings.model import AdapterSettings
from tests.conftest import MESSAGES, build_policy, picture

Encode = Callable[[int, int], EncodedPrompt]
LENGTHS = ((5, 1, 9), (3, 7, 2))


def completions_of(policy: Policy, lengths: Sequence[Sequence[int]], seed: int = 0) -> list[list[Tensor]]:
    """Random completions; the first of every group that has one holds an image token."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = policy.model.config.text_config.vocab_size
    groups = [[torch.randint(0, vocabulary, (n,), generator=generator) for n in group] for group in lengths]
    for group in filter(None, groups):
        group[0][0] = policy.encoder.image_token_id
    return groups


def packed_logprobs(policy: Policy, prompts: Sequence[EncodedPrompt], groups: list[list[Tensor]]) -> Tensor:
    packed = pack_groups(prompts, groups, device=policy.model.device)
    logits = policy.model.lm_head(packed_hidden(policy.model, packed, encode_images(policy.model, prompts)))
    return logits.log_softmax(-1).gather(1, packed.targets[:, None])[:, 0]


def repeated_logprobs(policy: Policy, prompts: Sequence[EncodedPrompt], groups: list[list[Tensor]]) -> Tensor:
    """The oracle: every completion in a row of its own, through the model's own forward."""
    model, pieces = policy.model, []
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            # A sampled image token must stay the embedding it was sampled as, which the stock forward
            # with ids would refuse; so the oracle builds embeddings too, per row.
            features = model.model.get_image_features(
                prompt.pixel_values, prompt.image_grid_thw, return_dict=True
            )
            ids = torch.cat([prompt.input_ids, completion])
            embeddings = model.get_input_embeddings()(ids).clone()
            embeddings[: prompt.num_tokens][prompt.is_image] = torch.cat(list(features.pooler_output))
            after = (torch.arange(len(completion)) + prompt.next_position).expand(3, -1)
            positions = torch.cat([prompt.position_ids, after], dim=1)
            logits = model(
                inputs_embeds=embeddings[None], position_ids=positions[:, None], use_cache=False
            ).logits[0]
            logprobs = logits[prompt.num_tokens - 1 : -1].log_softmax(-1)
            pieces.append(logprobs.gather(1, completion[:, None])[:, 0])
    return torch.cat(pieces)


def stock_logprobs(policy: Policy, prompt: EncodedPrompt, completion: Tensor, *, token_types: bool) -> Tensor:
    """The stock forward from ids and pixels, positions computed by transformers itself."""
    ids = torch.cat([prompt.input_ids, completion])
    types = torch.cat([prompt.is_image.long(), torch.zeros_like(completion)])
    extra = {"mm_token_type_ids": types[None]} if token_types else {}
    logits = policy.model(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids)[None],
        pixel_values=prompt.pixel_values,
        image_grid_thw=prompt.image_grid_thw,
        use_cache=False,
        **extra,
    ).logits[0]
    return logits[prompt.num_tokens - 1 : -1].log_softmax(-1).gather(1, completion[:, None])[:, 0]


def gradients(policy: Policy, logprobs: Tensor) -> dict[str, Tensor]:
    weights = torch.linspace(-1.0, 1.0, len(logprobs), dtype=logprobs.dtype)
    policy.model.zero_grad()
    (weights * logprobs).sum().backward()
    return {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.parametrize("sizes", [((64, 64), (64, 64)), ((64, 64), (96, 32))], ids=["equal", "unequal"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_packed_equals_repeated_outputs_and_gradients(
    policy: Policy,
    encode: Encode,
    full_precision: None,
    sizes: Sequence[tuple[int, int]],
    checkpointing: bool,
) -> None:
    prompts, groups = [encode(*size) for size in sizes], completions_of(policy, LENGTHS)
    repeated = repeated_logprobs(policy, prompts, groups)
    expected = gradients(policy, repeated)
    if checkpointing:
        policy.model.gradient_checkpointing_enable()
        policy.model.train()
    packed = packed_logprobs(policy, prompts, groups)
    assert float((packed - repeated).detach().abs().max()) < 1e-12
    assert largest_difference(gradients(policy, packed), expected) < 1e-11
    assert max(float(value.abs().max()) for value in expected.values()) > 0.1


LORA = AdapterSettings(
    form="lora",
    rank=2,
    alpha=4.0,
    dropout=0.0,
    targets=["q_proj", "v_proj", "down_proj"],
    vision=True,
    merger=True,
    lr_factor=1.0,
)


@cache
def kept(family: str, adapted: bool) -> Policy:
    """A policy that no test changes; its adapter is felt, since its second matrices are not zero."""
    policy = build_policy(family=family)
    if adapted:
        policy = with_adapter(policy, LORA, seed=0, base=Base(path="x", sha256=None, bits=None))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, weight in policy.model.named_parameters():
                if ".lora_B." in name:
                    noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                    weight.copy_(0.1 * noise)
    return policy


SIDES = st.sampled_from((32, 64, 96))
GROUPS = st.lists(
    st.tuples(SIDES, SIDES, st.lists(st.integers(1, 8), max_size=4)), min_size=1, max_size=3
).filter(lambda groups: any(lengths for _, _, lengths in groups))
"""Groups: width and height of the picture, and the length of each completion; a group may have none."""


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=GROUPS)
def test_any_groups_equal_repeated_rows_in_outputs_and_gradients(
    full_precision: None, family: str, adapted: bool, groups: list[tuple[int, int, list[int]]]
) -> None:
    policy = kept(family, adapted)
    prompts = [
        policy.encoder.encode(MESSAGES, [picture(width, height, seed=place)])
        for place, (width, height, _) in enumerate(groups)
    ]
    completions = completions_of(policy, [lengths for _, _, lengths in groups])
    repeated = repeated_logprobs(policy, prompts, completions)
    packed = packed_logprobs(policy, prompts, completions)
    assert float((packed - repeated).detach().abs().max()) < 1e-12
    expected = gradients(policy, repeated)
    assert largest_difference(gradients(policy, packed), expected) < 1e-11
    assert not adapted or all(".lora_" in name for name in expected)


def test_packed_is_close_without_patching_the_float32_islands(policy: Policy, encode: Encode) -> None:
    prompts, groups = [encode(64, 64)], completions_of(policy, LENGTHS[:1])
    packed, repeated = (f(policy, prompts, groups).detach() for f in (packed_logprobs, repeated_logprobs))
    assert float((packed - repeated).detach().abs().max()) < 1e-6


def test_one_completion_and_one_token(policy: Policy, encode: Encode, full_precision: None) -> None:
    prompts, groups = [encode(64, 64)], completions_of(policy, ((1,),))
    packed, repeated = (f(policy, prompts, groups).detach() for f in (packed_logprobs, repeated_logprobs))
    assert packed.shape == (1,) and float((packed - repeated).abs().max()) < 1e-12


def test_order_of_groups_does_not_matter(policy: Policy, encode: Encode, full_precision: None) -> None:
    prompts, groups = [encode(64, 64), encode(96, 32)], completions_of(policy, LENGTHS)
    forwards = packed_logprobs(policy, prompts, groups)
    backwards = packed_logprobs(policy, prompts[::-1], groups[::-1])
    first = sum(LENGTHS[0])
    assert torch.allclose(forwards, torch.cat([backwards[-first:], backwards[:-first]]), atol=1e-12)


def test_image_position_trap(policy: Policy, encode: Encode, full_precision: None) -> None:
    """Stock forward agrees when told which tokens are image tokens, and silently differs when not."""
    prompt = encode(96, 64)
    completion = completions_of(policy, ((6,),))[0][0]
    completion[0] = 5
    packed = packed_logprobs(policy, [prompt], [[completion]])
    right = stock_logprobs(policy, prompt, completion, token_types=True)
    wrong = stock_logprobs(policy, prompt, completion, token_types=False)
    assert float((packed - right).abs().max()) < 1e-12
    assert float((packed - wrong).abs().max()) > 1e-3


def test_positions_left_on_the_model_are_not_used(
    policy: Policy, encode: Encode, full_precision: None
) -> None:
    prompts, groups = [encode(64, 64)], completions_of(policy, LENGTHS[:1])
    before = packed_logprobs(policy, prompts, groups)
    stock_logprobs(policy, encode(96, 32), torch.tensor([5, 6]), token_types=True)
    assert torch.equal(packed_logprobs(policy, prompts, groups), before)


def test_padded_batches_are_masked_under_the_group_name(policy: Policy, full_precision: None) -> None:
    """A registered attention name without its mask function would ignore padding, silently."""
    ids = torch.tensor([[7, 8, 9, 10, 11]])
    padded = torch.cat([torch.tensor([[1, 2]]), ids], dim=1)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1]])
    positions = torch.cat([torch.zeros(2, dtype=torch.long), torch.arange(5)]).expand(3, 1, -1)
    text = policy.model.model.language_model
    plain = text(input_ids=ids, position_ids=torch.arange(5).expand(3, 1, -1)).last_hidden_state
    batch = text(input_ids=padded, attention_mask=mask, position_ids=positions).last_hidden_state
    unmasked = text(input_ids=padded, position_ids=positions).last_hidden_state
    assert torch.allclose(batch[:, 2:], plain, atol=1e-12)
    assert not torch.allclose(unmasked[:, 2:], plain, atol=1e-3)


def test_group_attention_matches_stock_attention_for_ordinary_use(policy: Policy) -> None:
    ids = torch.arange(12)[None]
    mask = torch.tensor([[0] * 3 + [1] * 9])
    ours = policy.model(input_ids=ids, attention_mask=mask).logits
    policy.model.set_attn_implementation("sdpa")
    assert torch.equal(policy.model(input_ids=ids, attention_mask=mask).logits, ours)


def test_padding_places_tokens_where_they_belong(policy: Policy, encode: Encode) -> None:
    groups = completions_of(policy, LENGTHS)
    packed = pack_groups([encode(64, 64), encode(96, 32)], groups, device=torch.device("cpu"))
    padded, mask = packed.pad(packed.targets), packed.mask()
    rows = [completion for group in groups for completion in group]
    for row, completion in enumerate(rows):
        assert mask[row].sum() == len(completion)
        assert torch.equal(padded[row, : len(completion)], completion)
    assert not padded[~mask].any()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_another_attention_function_is_refused(policy: Policy, encode: Encode, attention: str) -> None:
    """It would ignore the packing: completions would see each other, without an error."""
    policy.model.set_attn_implementation(attention)
    with pytest.raises(ValueError, match="packed rows need 'group'"):
        packed_logprobs(policy, [encode(64, 64)], completions_of(policy, LENGTHS[:1]))


def dense_mask(prompt: EncodedPrompt, group: list[Tensor]) -> Tensor:
    """(1, 1, L, L) additive mask of one packed group, written out entry by entry."""
    owner = [0] * prompt.num_tokens
    for number, completion in enumerate(group, start=1):
        owner += [number] * len(completion)
    mask = torch.full((len(owner), len(owner)), float("-inf"), dtype=torch.float64)
    for row, mine in enumerate(owner):
        for column in range(row + 1):
            if owner[column] in (0, mine):
                mask[row, column] = 0.0
    return mask[None, None]


def test_packed_equals_a_dense_mask(policy: Policy, encode: Encode, full_precision: None) -> None:
    """The second oracle: one row under stock attention with the whole mask written out."""
    prompt, group = encode(64, 64), completions_of(policy, LENGTHS[:1])[0]
    group[0][0] = 5
    packed = packed_logprobs(policy, [prompt], [group])
    policy.model.set_attn_implementation("sdpa")
    features = policy.model.model.get_image_features(
        prompt.pixel_values, prompt.image_grid_thw, return_dict=True
    )
    embeddings = policy.model.get_input_embeddings()(torch.cat([prompt.input_ids, *group])).clone()
    embeddings[: prompt.num_tokens][prompt.is_image] = torch.cat(list(features.pooler_output))
    after = [(torch.arange(len(c)) + prompt.next_position).expand(3, -1) for c in group]
    logits = policy.model(
        inputs_embeds=embeddings[None],
        position_ids=torch.cat([prompt.position_ids, *after], dim=1)[:, None],
        attention_mask=dense_mask(prompt, group),
        use_cache=False,
    ).logits[0]
    start, pieces = prompt.num_tokens, []
    for completion in group:
        rows = torch.tensor([prompt.num_tokens - 1, *range(start, start + len(completion) - 1)])
        pieces.append(logits[rows].log_softmax(-1).gather(1, completion[:, None])[:, 0])
        start += len(completion)
    assert float((packed - torch.cat(pieces)).detach().abs().max()) < 1e-12


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_packed_rounds_no_worse_than_repeated_in_bfloat16(encode: Encode, device: str) -> None:
    """Both ways round differently; neither may be much further from the exact value than the other."""
    policy, exact = build_policy(dtype=torch.bfloat16), build_policy(dtype=torch.float64)
    policy.model.to(device)
    exact.model.load_state_dict({name: value.double() for name, value in policy.model.state_dict().items()})
    prompts, groups = [encode(64, 64), encode(96, 32)], completions_of(policy, LENGTHS)
    there = [[completion.to(device) for completion in group] for group in groups]
    truth = packed_logprobs(exact, prompts, groups)
    on_device = [prompt_on(prompt, device) for prompt in prompts]
    gaps = {
        forward: (forward(policy, on_device, there).double().cpu() - truth).detach().abs()
        for forward in (packed_logprobs, repeated_logprobs)
    }
    packed, repeated = gaps[packed_logprobs], gaps[repeated_logprobs]
    assert float(packed.mean()) < 1.5 * float(repeated.mean()) + 1e-3
    assert float(packed.max()) < 2.0 * float(repeated.max()) + 1e-2


def prompt_on(prompt: EncodedPrompt, device: str) -> EncodedPrompt:
    """The prompt with its tensors on a device, which the stock forward wants."""
    tensors = {name: value.to(device) for name, value in vars(prompt).items() if isinstance(value, Tensor)}
    return replace(prompt, **tensors)


CONF_PROMPTS = sorted((Path(__file__).parents[2] / "conf" / "prompt").glob("*_short.yaml"))


@pytest.mark.parametrize("path", CONF_PROMPTS, ids=lambda path: path.stem)
def test_two_prompts_of_every_task_with_pictures_of_different_sizes(
    path: Path, policy: Policy, full_precision: None
) -> None:
    """Each prompt shows as many pictures as its task, no two of one size, and meets no other's pixels."""
    wording = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(wording, dict)
    user = str(wording["user"])
    messages, count = build_messages(user=user, system=None), num_pictures(user)
    sizes = [(32 + 16 * place, 96 - 16 * place) for place in range(2 * count)]
    sizes = [(max(32, width % 97), max(32, height % 97)) for width, height in sizes]
    pictures = [picture(*size, seed=place) for place, size in enumerate(sizes)]
    prompts = [policy.encoder.encode(messages, part) for part in (pictures[:count], pictures[count:])]
    assert not torch.equal(prompts[0].image_grid_thw, prompts[1].image_grid_thw)
    groups = completions_of(policy, LENGTHS)
    packed, repeated = packed_logprobs(policy, prompts, groups), repeated_logprobs(policy, prompts, groups)
    torch.testing.assert_close(packed, repeated, rtol=0, atol=1e-11)
    ours, theirs = gradients(policy, packed), gradients(policy, repeated)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-9)


def test_a_question_is_tokenised_once_for_pictures_of_one_size(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is that of a fresh encoder, for each question and size of its own."""

    def fresh() -> PromptEncoder:
        return PromptEncoder(tokenizer=policy.tokenizer, image_processor=policy.image_processor)

    encoder, own, calls = fresh(), policy.tokenizer, []
    encoder.tokenizer = lambda *args, **named: (calls.append(args), own(*args, **named))[1]
    monkeypatch.setattr(
        prompt_module, "render_chat", lambda _, chat, **named: render_chat(own, chat, **named)
    )
    other = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How sharp?"}]}]
    asked = [(MESSAGES, 64, 1), (MESSAGES, 64, 1), (MESSAGES, 32, 2), (other, 32, 3), (MESSAGES, 64, 3)]
    for messages, width, number in asked:
        found, wanted = (each.encode(messages, [picture(width, 64)]) for each in (encoder, fresh()))
        assert torch.equal(found.input_ids, wanted.input_ids) and len(calls) == number
        assert torch.equal(found.position_ids, wanted.position_ids)
    assert policy.encoder is policy.encoder
