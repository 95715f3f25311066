"""Every family against its stock class: outputs, gradients, greedy answers, adapters, saved checkpoints."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText
from transformers.utils.chat_template_utils import render_jinja_template

from qhk.errors import UserError
from qhk.policy import template
from qhk.policy.adapter import adapted_layers, count_parameters
from qhk.policy.adapter_base import Base
from qhk.policy.families import FAMILIES, OTHER, family_of
from qhk.policy.families.hugging_face import HuggingFace
from qhk.policy.load import (
    Policy,
    load_policy,
    prepare_model,
    refuse_another_forward,
    save_policy,
    with_adapter,
)
from qhk.policy.prompt import EncodedPrompt
from qhk.policy.repeated import stock_inputs
from qhk.policy.template import render_chat
from qhk.rollout.decode import encode_for_decoding, sample_groups
from qhk.rollout.expected import build_tree, score_trees
from qhk.settings.model import TinyFamily
from qhk.training.forward import vision_is_frozen
from tests.conftest import MESSAGES, build_policy, picture
from tests.policy.others import OTHERS, build_other
from tests.policy.test_packed import LORA, gradients, largest_difference, packed_logprobs

PACKED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
SLOW = ("qwen3_5", *OTHERS)
SAMPLED = (*OTHERS, pytest.param("qwen3_5", marks=pytest.mark.slow))
"""Its own generation takes half a minute on a CPU."""

SIZES = ((64, 64), (96, 32))
LENGTHS = ((4, 1), (2, 6))


@pytest.fixture(autouse=True, scope="module")
def templates_in_this_process() -> Iterator[None]:
    """A process for each template takes a second to start; test_foreign.py has those."""

    def rendered(job: str) -> tuple[str, str]:
        template, messages, special, _ = json.loads(job)
        texts, _ = render_jinja_template(
            conversations=[messages], chat_template=template, add_generation_prompt=True, **special
        )
        return texts[0], ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template, "_rendered", rendered)
        yield


def built(name: str, dtype: torch.dtype = torch.float64) -> Policy:
    return (
        build_other(name, dtype=dtype) if name in OTHERS else build_policy(family=name, dtype=dtype, depth=3)
    )


@cache
def kept(name: str) -> tuple[Policy, list[EncodedPrompt]]:
    """A policy that no test changes, with prompts of two sizes of pictures."""
    policy = built(name)
    return policy, prompts_of(policy)


def prompts_of(policy: Policy) -> list[EncodedPrompt]:
    return [policy.encoder.encode(MESSAGES, [picture(*size, seed=size[0])]) for size in SIZES]


def completions(lengths: Sequence[Sequence[int]] = LENGTHS) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [[torch.randint(0, 200, (n,), generator=generator) for n in group] for group in lengths]


def stock_logprobs(policy: Policy, prompts: Sequence[EncodedPrompt], groups: list[list[Tensor]]) -> Tensor:
    """The oracle: each completion in a row of its own, by the stock class from ids and pixels."""
    pieces = []
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            inputs = stock_inputs(policy.model, prompt, rows=1)
            for name, behind in (
                ("input_ids", completion),
                ("attention_mask", torch.ones_like(completion)),
                ("token_type_ids", torch.zeros_like(completion)),
                ("mm_token_type_ids", torch.zeros_like(completion)),
            ):
                if name in inputs:
                    inputs[name] = torch.cat([inputs[name][0], behind])[None]
            logits = policy.model(**inputs, use_cache=False).logits[0, prompt.num_tokens - 1 : -1]
            pieces.append(logits.log_softmax(-1).gather(1, completion[:, None])[:, 0])
    return torch.cat(pieces)


@pytest.mark.parametrize("name", [*PACKED, *SLOW])
def test_outputs_and_gradients_are_those_of_the_stock_class(name: str, full_precision: None) -> None:
    policy = built(name)
    prompts, groups = prompts_of(policy), completions()
    stock = stock_logprobs(policy, prompts, groups)
    expected = gradients(policy, stock)
    ours = packed_logprobs(policy, prompts, groups)
    # Norms of the slow ones compute in float32, in rows of other lengths.
    limit = 1e-11 if name in PACKED else 2e-5
    assert float((ours - stock).detach().abs().max()) < limit
    plain = gradients(policy, ours)
    scale = max(float(value.abs().max()) for value in expected.values())
    assert scale > 0.1 and largest_difference(plain, expected) < 10 * limit * scale
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy.model.train()
    again = gradients(policy, packed_logprobs(policy, prompts, groups))
    assert largest_difference(again, plain) <= 1e-12 * scale


@pytest.mark.parametrize("name", [*PACKED, *SAMPLED])
def test_greedy_answers_are_those_of_stock_generation(name: str) -> None:
    policy, prompts = kept(name)
    groups = sample_groups(
        policy.model, prompts, np.zeros((2, 2, 8)), temperature=0.0, end_tokens=policy.end_tokens
    )
    for prompt, group in zip(prompts, groups, strict=True):
        stock = policy.model.generate(
            **stock_inputs(policy.model, prompt, rows=1),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=list(policy.end_tokens),
        )[0, prompt.num_tokens :]
        assert all(torch.equal(ids, stock) for ids in group.completion_ids)
        found = packed_logprobs(policy, [prompt], [group.completion_ids]).detach()
        torch.testing.assert_close(torch.cat(group.logprobs), found, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", SAMPLED)
def test_slow_samples_follow_their_own_random_numbers(name: str) -> None:
    """Whatever else is sampled with them; their log-probabilities are those of the forward."""
    policy, prompts = kept(name)
    uniforms = np.random.default_rng(0).random((2, 3, 6))
    both = sample_groups(policy.model, prompts, uniforms, temperature=1.0, end_tokens=policy.end_tokens)
    (alone,) = sample_groups(
        policy.model, prompts[1:], uniforms[1:, :1], temperature=1.0, end_tokens=policy.end_tokens
    )
    assert torch.equal(alone.completion_ids[0], both[1].completion_ids[0])
    assert len({tuple(ids.tolist()) for group in both for ids in group.completion_ids}) > 3
    groups = [group.completion_ids for group in both]
    found = packed_logprobs(policy, prompts, groups).detach()
    sampled = torch.cat([own for group in both for own in group.logprobs])
    torch.testing.assert_close(sampled, found, rtol=0, atol=1e-3)


def test_slow_samples_wait_for_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that share a model sample different prompts, a different number of times."""
    policy, prompts = kept("qwen3_5")

    def never(*_: object, **__: object) -> None:
        pytest.fail("asked the other processes")

    stock = "transformers.generation.utils"
    monkeypatch.setattr(f"{stock}.is_fsdp_managed_module", lambda model: True)
    monkeypatch.setattr(f"{stock}._get_torch_distributed_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", never)
    uniforms = np.random.default_rng(0).random((1, 2, 3))
    (group,) = sample_groups(
        policy.model, prompts[:1], uniforms, temperature=1.0, end_tokens=policy.end_tokens
    )
    assert len(group.completion_ids) == 2


@pytest.mark.parametrize("name", ["qwen3_vl", *SLOW])
def test_a_tree_of_scores_is_each_continuation_by_itself(name: str) -> None:
    policy, prompts = kept(name)
    before, continuations = torch.tensor([5, 6]), [(20, 21), (20, 22, 23), (24,)]
    encoded = encode_for_decoding(
        policy.model, prompts, family_of(policy.model).encode_images(policy.model, prompts)
    )
    with torch.no_grad():
        (found,) = score_trees(
            policy.model, encoded, [(1, before, build_tree(continuations))], rows_at_once=2
        )
        rows = [torch.cat([before, torch.tensor(tokens)]) for tokens in continuations]
        each = stock_logprobs(policy, prompts[1:], [rows]).split([len(row) for row in rows])
    torch.testing.assert_close(found, torch.stack([row[2:].sum() for row in each]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", [*PACKED, *SLOW])
def test_an_adapter_and_a_frozen_tower_know_the_parts(name: str) -> None:
    policy = built(name)
    before = count_parameters(policy.model)
    assert sum(block["total"] for block in before.values()) == policy.num_parameters
    assert all(before[block]["total"] for block in ("vision", "merger", "language")), before
    settings = LORA.model_copy(update={"merger": name != "gemma3"})
    if name == "gemma3":  # its projector is a matrix of its own
        with pytest.raises(UserError, match=r"adapter.merger: a Gemma3\w+ has no linear layer there"):
            adapted_layers(policy.model, settings.model_copy(update={"merger": True}))
    blocks = {"language", "vision", "merger"} - ({"merger"} if name == "gemma3" else set())
    assert set(adapted_layers(policy.model, settings)) == blocks
    prompts, groups = prompts_of(policy)[:1], completions()[:1]
    plain = packed_logprobs(policy, prompts, groups).detach()
    adapted = with_adapter(policy, settings, seed=0, base=Base(path="x", sha256=None, bits=None))
    assert torch.equal(packed_logprobs(adapted, prompts, groups).detach(), plain)
    assert not vision_is_frozen(adapted.model)
    linear = {name for name, part in policy.model.named_modules() if isinstance(part, nn.Linear)}
    with_matrix = {name.rpartition(".base_layer")[0] for name in linear if name.endswith(".base_layer")}
    by_block = dict.fromkeys(("vision", "merger", "language", "head"), 0)
    for layer in with_matrix:
        by_block[family_of(policy.model).block_of(f"{layer}.")] += 1
    assert {block for block, count in by_block.items() if count} == blocks
    for weight in family_of(policy.model).vision_weights(policy.model):
        weight.requires_grad_(False)
    assert vision_is_frozen(policy.model)


@pytest.mark.parametrize("name", [*PACKED, *SLOW])
def test_a_checkpoint_is_read_by_us_and_by_plain_transformers(name: str, tmp_path: Path) -> None:
    policy = built(name, torch.float32)
    policy.model.generation_config.temperature = 1e-6
    policy.model.generation_config.repetition_penalty = 1.05
    save_policy(policy, tmp_path)
    again = load_policy(str(tmp_path), dtype="float32", min_pixels=256, max_pixels=96 * 96, device="cpu")
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path)
    weights = dict(policy.model.named_parameters())
    for model in (again.model, plain):
        assert type(model) is type(policy.model)
        assert all(torch.equal(value, weights[key]) for key, value in model.named_parameters())
    assert again.model.generation_config.temperature == 1.0, "a base model's way of sampling does not leak in"
    assert again.model.generation_config.repetition_penalty == 1.0
    assert again.end_tokens == policy.end_tokens
    prompts = prompts_of(policy)
    assert all(
        torch.equal(ours.input_ids, theirs.input_ids) and torch.equal(ours.pixel_values, theirs.pixel_values)
        for ours, theirs in zip(prompts_of(again), prompts, strict=True)
    )
    assert bool(again.slow_line) == (name in SLOW)


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_uses_its_pictures_otherwise_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here: one whose own forward pass puts other features into the text."""
    policy, _ = kept(name)
    refuse_another_forward(policy)
    plain = HuggingFace.encode_images
    monkeypatch.setattr(HuggingFace, "encode_images", lambda *given: -plain(*given))
    with pytest.raises(UserError, match=r"uses its pictures in another way .* off by"):
        refuse_another_forward(policy)


@pytest.mark.parametrize("name", OTHERS)
def test_a_turn_ends_as_the_processors_own_template_ends_it(name: str) -> None:
    policy, _ = kept(name)
    ends = policy.tokenizer.convert_tokens_to_ids(["<end_of_turn>", "<|im_end|>"])
    assert policy.end_tokens == tuple(ends)


@pytest.mark.parametrize("opened", ["", "<think>\n", "<think>"])
def test_a_thought_is_the_policys_to_open(opened: str) -> None:
    tokenizer = built("llava").tokenizer
    plain = render_chat(tokenizer, MESSAGES, own="")
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n", f"assistant\n{opened}")
    assert render_chat(tokenizer, MESSAGES, own="") == plain and plain.endswith("<start>assistant\n")


def test_twins_of_another_makers_processor_have_the_layout_of_their_originals() -> None:
    for name in OTHERS:
        policy, (prompt, _) = kept(name)
        twin = prompt.with_pixels(*policy.encoder.encode_pixels([picture(*SIZES[0], seed=9)]))
        assert twin.pixel_values.shape == prompt.pixel_values.shape
        assert not torch.equal(twin.pixel_values, prompt.pixel_values)
        with pytest.raises(UserError, match="a twin must have the size of its original"):
            prompt.with_pixels(*policy.encoder.encode_pixels([picture(32, 64)]))


def test_a_processor_that_needs_torchvision_says_how_to_install_it(tmp_path: Path) -> None:
    if importlib.util.find_spec("torchvision") is not None:
        pytest.skip("torchvision is installed")
    save_policy(built("llava", torch.float32), tmp_path)
    for file in tmp_path.glob("*.json"):
        file.write_text(file.read_text().replace("LlavaProcessor", "LlavaOnevisionProcessor"))
    video = {"video_processor_type": "LlavaOnevisionVideoProcessor"}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(video))
    with pytest.raises(UserError, match=r"needs torchvision; install it: pip install torchvision$"):
        load_policy(str(tmp_path), dtype="float32", min_pixels=256, max_pixels=4096, device="cpu")


def test_deep_features_are_further_columns(full_precision: None) -> None:
    policy, prompts = kept("qwen3_vl")
    features = family_of(policy.model).encode_images(policy.model, prompts)
    assert features.shape == (sum(int(prompt.is_image.sum()) for prompt in prompts), 3 * 64)


def test_settings_and_families_name_the_same_types() -> None:
    assert set(get_args(TinyFamily)) == set(FAMILIES)
    assert {name for name, family in FAMILIES.items() if not family.slow_because} == set(PACKED)


def test_a_model_that_is_built_otherwise_is_one_line() -> None:
    model = built("llava").model
    del model.lm_head
    with pytest.raises(UserError, match="a LlavaForConditionalGeneration has no lm_head"):
        OTHER.check(model)


def test_generation_defaults_are_neutral_for_every_family() -> None:
    model = built("gemma3").model
    model.generation_config.top_k, model.generation_config.temperature = 64, 0.3
    assert prepare_model(model).generation_config.top_k == 0
    assert model.generation_config.temperature == 1.0
