"""An adapter: its start, the packed forward with it, the reference without it, its files, its merge."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qhk.errors import UserError
from qhk.policy.adapter import (
    adapted_layers,
    adapter_dropout,
    adapter_weights,
    at_reference,
    count_parameters,
    keep_start,
    rest_dropout,
)
from qhk.policy.adapter_base import Base, bits_problem
from qhk.policy.families import FAMILIES
from qhk.policy.head import read_head
from qhk.policy.load import Policy, digest_of, load_merged, load_policy, save_policy, with_adapter
from qhk.policy.packed import encode_images, pack_groups, packed_hidden
from qhk.policy.prompt import EncodedPrompt
from qhk.settings.model import AdapterSettings, LinearLayer
from tests.conftest import build_policy
from tests.policy.test_packed import (
    LENGTHS,
    completions_of,
    gradients,
    largest_difference,
    packed_logprobs,
    repeated_logprobs,
)

block_of = FAMILIES["qwen2_5_vl"].block_of

Encode = Callable[[int, int], EncodedPrompt]
LAYERS = list(get_args(LinearLayer))
WHOLE = {"vision": True, "merger": True}
LOAD = {"min_pixels": 256, "max_pixels": 96 * 96}


def settings(**changes: Any) -> AdapterSettings:
    plain = {
        "form": "lora",
        "rank": 3,
        "alpha": 6.0,
        "dropout": 0.0,
        "targets": LAYERS,
        "vision": False,
        "merger": False,
        "lr_factor": 10.0,
    }
    return AdapterSettings(**{**plain, **changes})


def adapted(policy: Policy, *, base: Path | None = None, **changes: Any) -> Policy:
    """The policy with an adapter, whose base is saved in ``base``."""
    if base is not None:
        save_policy(policy, base)
    record = Base(path=str(base), sha256=None if base is None else digest_of(str(base)), bits=None)
    return with_adapter(policy, settings(**changes), seed=5, base=record)


def train(policy: Policy, *, size: float = 0.05) -> Policy:
    """The policy with matrices B as after some training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_B." in name:
                drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(size * drawn)
    return policy


def answers(policy: Policy, prompt: EncodedPrompt) -> Tensor:
    """(N, vocabulary) logits of a few completions."""
    packed = pack_groups([prompt], completions_of(policy, LENGTHS[:1]), device=policy.model.device)
    with torch.no_grad():
        hidden = packed_hidden(policy.model, packed, encode_images(policy.model, [prompt]))
        logits: Tensor = policy.model.lm_head(hidden)
    return logits


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_an_untrained_adapter_changes_no_bit(dtype: torch.dtype) -> None:
    policy = build_policy(dtype=dtype)
    prompt = policy.encoder.encode(*probe())
    before, state = answers(policy, prompt), torch.get_rng_state()
    policy = adapted(policy, **WHOLE)
    assert torch.equal(answers(policy, prompt), before)
    assert torch.equal(torch.get_rng_state(), state)
    kinds = {weight.dtype for weight in adapter_weights(policy.model).values()}
    assert kinds == {torch.promote_types(dtype, torch.float32)}
    assert not torch.equal(answers(train(policy), prompt), before)


def probe() -> tuple[Any, Any]:
    from tests.conftest import MESSAGES, picture

    return MESSAGES, [picture(64, 64)]


@pytest.mark.parametrize("changes", [{}, {**WHOLE, "targets": ["q_proj"]}], ids=["language", "everywhere"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_packed_equals_repeated_with_an_adapter(
    policy: Policy, encode: Encode, full_precision: None, changes: dict[str, Any], checkpointing: bool
) -> None:
    """Values and the gradient of every weight of the adapter; nothing else has one."""
    policy = train(adapted(policy, **changes))
    prompts, groups = [encode(64, 64), encode(96, 32)], completions_of(policy, LENGTHS)
    repeated = repeated_logprobs(policy, prompts, groups)
    expected = gradients(policy, repeated)
    if checkpointing:
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        policy.model.train()
    packed = packed_logprobs(policy, prompts, groups)
    assert float((packed - repeated).detach().abs().max()) < 1e-12
    found = gradients(policy, packed)
    assert largest_difference(found, expected) < 1e-11
    names = {name for name, parameter in policy.model.named_parameters() if ".lora_" in name}
    assert set(found) == names and all(bool(value.any()) for value in found.values())


def test_a_head_in_chunks_gives_the_same_gradients(
    policy: Policy, encode: Encode, full_precision: None
) -> None:
    policy = train(adapted(policy))
    prompts, groups = [encode(64, 64)], completions_of(policy, LENGTHS[:1])
    packed = pack_groups(prompts, groups, device=policy.model.device)

    def found(chunk: int) -> dict[str, Tensor]:
        hidden = packed_hidden(policy.model, packed, encode_images(policy.model, prompts))
        branch = read_head(
            policy.model.lm_head, hidden, packed.targets, temperature=1.0, with_entropy=False, chunk=chunk
        )
        return gradients(policy, branch.logprobs)

    assert largest_difference(found(4), found(1000)) < 1e-12


def test_the_settings_name_the_linear_layers_of_the_class(policy: Policy) -> None:
    linear = [name for name, part in policy.model.named_modules() if isinstance(part, nn.Linear)]
    own = {name.rpartition(".")[2] for name in linear if block_of(name) == "language"}
    assert own == set(LAYERS)
    found = adapted_layers(policy.model, settings(**WHOLE))
    rest = {block: {name.rpartition(".")[2] for name in linear if block_of(name) == block} for block in found}
    assert {block: set(names) for block, names in found.items()} == rest and len(found) == 3
    policy = adapted(policy, **WHOLE)
    assert len(adapter_weights(policy.model)) == 2 * (len(linear) - 1), "all but the head"


def test_targets_are_chosen(policy: Policy) -> None:
    policy = adapted(policy, targets=["q_proj", "v_proj"], merger=True)
    layers = {name.rpartition(".lora_")[0] for name in adapter_weights(policy.model)}
    assert {name.rpartition(".")[2] for name in layers} == {"q_proj", "v_proj", "0", "2"}
    assert not any("visual.blocks" in name for name in layers)


def test_parameters_are_counted_by_block(policy: Policy) -> None:
    before = count_parameters(policy.model)
    assert all(counts["trainable"] == counts["total"] for counts in before.values())
    assert sum(counts["total"] for counts in before.values()) == policy.num_parameters
    policy = adapted(policy, merger=True)
    counts = count_parameters(policy.model)
    own = adapter_weights(policy.model)
    for block in ("language", "merger"):
        size = sum(value.numel() for name, value in own.items() if block_of(name[17:]) == block)
        assert counts[block] == {"trainable": size, "total": before[block]["total"] + size} and size
    assert counts["vision"] == {"trainable": 0, "total": before["vision"]["total"]}
    keep_start(policy.model, own)
    assert count_parameters(policy.model) == counts, "the kept start is no part of the policy"


def test_the_reference_is_the_adapter_off_or_its_kept_start(policy: Policy, encode: Encode) -> None:
    prompt = encode(64, 64)
    plain = answers(policy, prompt)
    policy = train(adapted(policy))
    trained, size = answers(policy, prompt), policy.num_parameters
    learning = [name for name, parameter in policy.model.named_parameters() if parameter.requires_grad]

    def check(expected: Tensor) -> None:
        with at_reference(policy.model):
            assert torch.equal(answers(policy, prompt), expected)
        assert torch.equal(answers(policy, prompt), now)
        assert learning == [n for n, parameter in policy.model.named_parameters() if parameter.requires_grad]

    now = trained
    check(plain)
    assert policy.num_parameters == size
    keep_start(policy.model, adapter_weights(policy.model))
    train(policy_of_learning(policy), size=0.1)
    now = answers(policy, prompt)
    assert not torch.equal(now, trained)
    check(trained)
    keep_start(policy.model, None)
    check(plain)
    assert policy.num_parameters == size


def policy_of_learning(policy: Policy) -> Policy:
    """The policy as it is, its kept start out of the way of ``train``."""
    assert set(policy.model.peft_config) == {"default", "start"}
    kept = [p for n, p in policy.model.named_parameters() if ".start." in n]
    assert kept and not any(parameter.requires_grad for parameter in kept)
    model = copy.copy(policy.model)
    named = [(n, p) for n, p in policy.model.named_parameters() if ".start." not in n]
    model.named_parameters = lambda: iter(named)  # type: ignore[method-assign]
    return Policy(model=model, tokenizer=None, image_processor=None)


def test_dropout_acts_inside_its_context_alone(policy: Policy, encode: Encode) -> None:
    prompt = encode(64, 64)
    policy = train(adapted(policy, dropout=0.5))
    policy.model.train()  # as gradient checkpointing asks
    rest_dropout(policy.model)
    still = answers(policy, prompt)
    assert not torch.equal(still, answers(train(policy, size=0.1), prompt))
    now = answers(policy, prompt)
    with adapter_dropout(policy.model):
        assert not torch.equal(answers(policy, prompt), now)
    assert torch.equal(answers(policy, prompt), now)


# --- files ------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Policy, Path]:
    """A trained adapter in memory, and its folder; its base lies beside it."""
    policy = train(adapted(build_policy(dtype=torch.float32), base=tmp_path / "base", **WHOLE))
    save_policy(policy, tmp_path / "adapter")
    return policy, tmp_path / "adapter"


def load(folder: Path, dtype: str = "float32") -> Policy:
    return load_policy(str(folder), dtype=dtype, device="cpu", **LOAD)


def test_a_saved_adapter_is_loaded_by_us_and_by_plain_peft(saved: tuple[Policy, Path]) -> None:
    from peft import PeftModel
    from transformers import Qwen2_5_VLForConditionalGeneration

    policy, folder = saved
    prompt = policy.encoder.encode(*probe())
    loaded = load(folder)
    assert torch.equal(answers(loaded, prompt), answers(policy, prompt)) and loaded.base == policy.base
    assert not (folder / "config.json").exists(), "no whole model"
    inputs = {
        "input_ids": prompt.input_ids[None],
        "pixel_values": prompt.pixel_values,
        "image_grid_thw": prompt.image_grid_thw,
        "mm_token_type_ids": prompt.is_image.long()[None],
    }
    with torch.no_grad():
        ours = policy.model(**inputs).logits
        plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder.parent / "base").eval()
        base = plain(**inputs).logits
        by_peft = PeftModel.from_pretrained(plain, folder).eval()(**inputs).logits
        by_transformers = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval()(**inputs).logits
    for theirs in (by_peft, by_transformers):  # which embed patches by a convolution
        assert float((theirs - ours).abs().max()) < 1e-4 < 1e-2 < float((base - ours).abs().max())


def rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("language_model.", ""): value for name, value in weights.items()}


def lacking(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(list(weights.items())[1:])


def narrow(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[:-1] if index == 0 else value for index, (name, value) in enumerate(weights.items())}


@pytest.mark.parametrize("harm", [rename, lacking, narrow])
def test_every_weight_of_an_adapter_has_its_place(
    saved: tuple[Policy, Path], harm: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    _, folder = saved
    file = folder / "adapter_model.safetensors"
    save_file({name: value.contiguous() for name, value in harm(load_file(file)).items()}, file)
    with pytest.raises(UserError, match="not those of the model's adapted layers"):
        load(folder)


def test_an_adapter_without_effect_is_noticed(
    saved: tuple[Policy, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = saved
    monkeypatch.setattr("qhk.policy.load.at_reference", lambda model: torch.no_grad())
    with pytest.raises(AssertionError, match="no effect"):
        load(folder)


def test_an_adapter_belongs_to_its_base(saved: tuple[Policy, Path], tmp_path: Path) -> None:
    _, folder = saved
    file = folder.parent / "base" / "model.safetensors"
    changed = load_file(file)
    next(iter(changed.values()))[0] += 1e-3
    save_file(changed, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="belongs to other weights than"):
        load(folder)
    record = folder / "adapter_base.json"
    record.write_text(json.dumps({"path": "../gone", "sha256": None, "bits": None}))
    with pytest.raises(UserError, match="are gone"):
        load(folder)
    record.write_text(json.dumps({"path": str(folder), "sha256": None, "bits": None}))
    with pytest.raises(UserError, match="is an adapter itself"):
        load(folder)
    record.write_text("[]")
    with pytest.raises(UserError, match="a record of base weights"):
        load(folder)


def test_what_is_no_lora_is_refused(saved: tuple[Policy, Path]) -> None:
    _, folder = saved
    path = folder / "adapter_config.json"
    said = json.loads(path.read_text())
    for change, message in (
        ({"peft_type": "IA3"}, "must describe a LoRA adapter"),
        ({"unheard_of": 1}, "does not fit the model"),
        ({"target_modules": ["nowhere"]}, "does not fit the model"),
    ):
        path.write_text(json.dumps({**said, **change}))
        with pytest.raises(UserError, match=message):
            load(folder)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 2e-5)])
def test_merged_weights_answer_alike(
    tmp_path: Path, full_precision: None, dtype: str, tolerance: float
) -> None:
    policy = train(
        adapted(build_policy(dtype=getattr(torch, dtype)), base=tmp_path / "base", **WHOLE), size=0.02
    )
    save_policy(policy, tmp_path / "adapter")
    prompt = policy.encoder.encode(*probe())
    before = adapter_weights(policy.model), answers(policy, prompt)
    merged = load_merged(str(tmp_path / "adapter"), dtype=dtype, **LOAD)
    assert merged.base is None and not hasattr(merged.model, "peft_config")
    found = answers(merged, prompt)
    assert float((found - before[1]).abs().max()) < tolerance
    assert torch.equal(answers(policy, prompt), before[1]), "the policy itself stays as it was"
    plain = load(tmp_path / "base", dtype)
    assert float((answers(plain, prompt) - found).abs().max()) > 1e-3


def test_a_merge_in_bfloat16_is_rounded_once(tmp_path: Path) -> None:
    policy = train(adapted(build_policy(dtype=torch.bfloat16), base=tmp_path / "base"), size=0.01)
    save_policy(policy, tmp_path / "adapter")
    name = "model.language_model.layers.0.self_attn.q_proj"
    layer = policy.model.get_submodule(name)
    delta = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * 2.0
    wanted = (layer.base_layer.weight.float() + delta).to(torch.bfloat16)
    merged = load_merged(str(tmp_path / "adapter"), dtype="bfloat16", **LOAD).model
    assert torch.equal(merged.get_submodule(name).weight, wanted)
    assert not torch.equal(wanted, layer.base_layer.weight)
    assert torch.equal(merged.lm_head.weight, policy.model.lm_head.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "rank"),
        ({"alpha": 0.0}, "alpha"),
        ({"dropout": 1.0}, "dropout"),
        ({"targets": ["lm_head"]}, "targets"),
        ({"targets": []}, "targets must name a layer"),
        ({"targets": ["q_proj", "q_proj"]}, "targets must differ"),
        ({"lr_factor": 0.0}, "lr_factor"),
    ],
)
def test_wrong_adapters_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)


@pytest.mark.skipif(not bits_problem(), reason="bitsandbytes is here")
def test_weights_in_four_bits_need_their_library(saved: tuple[Policy, Path]) -> None:
    _, folder = saved
    with pytest.raises(UserError, match=r"pip install 'qhk\[qlora\]'"):
        load_policy(str(folder.parent / "base"), dtype="float32", device="cpu", bits=4, **LOAD)
