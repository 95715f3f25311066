"""Policies on disk and in memory: load a checkpoint or a published model, save in the Hugging Face layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, BitsAndBytesConfig, GenerationConfig
from transformers.utils.hub import cached_file

from qhk.errors import UserError
from qhk.policy.adapter import (
    at_reference,
    is_trained,
    load_adapter,
    merge_adapter,
    put_adapter,
    save_adapter,
)
from qhk.policy.adapter_base import Base, bits_problem, is_adapter, read_base, weights_digest
from qhk.policy.contents import folder_fault, has_contents
from qhk.policy.families import family_named, family_of
from qhk.policy.families.family import Family
from qhk.policy.packed import encode_images, pack_groups, packed_hidden
from qhk.policy.prompt import EncodedPrompt, PromptEncoder
from qhk.policy.repeated import stock_inputs
from qhk.policy.template import render_chat
from qhk.policy.tokenizer import CHAT_TEMPLATE
from qhk.settings.model import AdapterSettings

CHAT = ({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]},)
"""Tried on a chat template before any weight is read."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A model with the tokenizer and image processor that belong to it.

    ``base`` says which weights an adapter in the model belongs to, None where there is no adapter.
    """

    model: Any
    tokenizer: Any
    image_processor: Any
    base: Base | None = None

    @cached_property
    def encoder(self) -> PromptEncoder:
        return family_of(self.model).encoder(self.model, self.tokenizer, self.image_processor)

    @property
    def end_tokens(self) -> tuple[int, ...]:
        return family_of(self.model).end_tokens(self.model, self.tokenizer)

    @property
    def slow_line(self) -> str:
        """Return why the model runs the slow way, as a line; empty where completions are packed."""
        family = family_of(self.model)
        if not family.slow_because:
            return ""
        limits = "" if family.has_pixel_limits else "; model.min_pixels and max_pixels have no effect"
        return (
            f"{type(self.model).__name__} runs the slow way: {family.slow_because}, so each completion "
            f"repeats its prompt{limits}"
        )

    def num_tokens(self, text: str) -> int:
        """Return how many tokens a completion of this text has, without the one that ends it."""
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


def prepare_model(model: Any) -> Any:
    """Return the model with the attention functions of this project and neutral generation defaults.

    Sampling never reads the generation config; it is made neutral so that a saved checkpoint does not
    carry another model's near-greedy values to whoever decodes it next.
    """
    family_of(model).prepare(model)
    text = model.config.text_config
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        repetition_penalty=1.0,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
    )
    return model


def load_policy(
    path: str,
    *,
    dtype: str,
    min_pixels: int,
    max_pixels: int,
    device: str,
    intact: bool = False,
    bits: int | None = None,
    whole: bool = False,
) -> Policy:
    """Return the policy saved in folder ``path`` (or published under that hub id).

    No code of the checkpoint is run: no classes that its files name, no kernels for its attention, which is
    set here. One that cannot do without is refused, as is one whose chat template does not work.

    A folder of an adapter is loaded into the base that it names, on which it must have an effect. ``bits`` 4
    reads the weights quantised; ``whole`` reads a base in full that its adapter was trained on in 4 bits.

    Raises ``UserError`` in one line when the folder is no checkpoint of a known family, and when it is one of
    ours whose files are not those that were written (``intact``: they are known to be), or an adapter whose
    base is not the one that it was trained on.
    """
    folder = Path(path)
    adapts = is_adapter(folder)
    if folder.is_dir() and not adapts and not (folder / "config.json").is_file():
        raise UserError(f"model.path: {path} holds no config.json; give a folder in the Hugging Face layout")
    if not intact and has_contents(folder):
        fault, _ = folder_fault(folder, left_out=("training.pt",))
        if fault:
            raise UserError(f"{path}: is damaged ({fault}); put the file back, or give another checkpoint")
    if adapts:
        pixels = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        return _adapted(folder, dtype=dtype, device=device, whole=whole, **pixels)
    try:
        kind = AutoConfig.from_pretrained(path, trust_remote_code=False).model_type
        family = family_named(kind)
        quantised = _quantised(family, bits, dtype=dtype, device=device)
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        # A limit in the checkpoint's own preprocessor file would win over one that is set later.
        limits = {"min_pixels": min_pixels, "max_pixels": max_pixels} if family.has_pixel_limits else {}
        image_processor = family.processor_class.from_pretrained(path, **limits, trust_remote_code=False)
        tokenizer = family.tokenizer(tokenizer, image_processor)
        render_chat(tokenizer, CHAT, own=CHAT_TEMPLATE)
        model = family.model_class.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
            trust_remote_code=False,
            **quantised,
        )
        family.check(model)
    except (torch.OutOfMemoryError, MemoryError, UserError):
        raise
    except Exception as error:  # a foreign folder: each library has errors of its own for what it cannot read
        if "trust_remote_code" in str(error):
            raise UserError(
                f"model.path: {path} brings code of its own, which is never run; "
                "give a checkpoint of transformers' own classes"
            ) from None
        if isinstance(error, ImportError) and "torchvision" in str(error).lower():
            raise UserError(
                f"model.path: the processor of {path} needs torchvision; install it: pip install torchvision"
            ) from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"model.path: {path} could not be loaded ({reason}); give a folder or a hub id"
        ) from error
    if not quantised:
        model = _owned(model.to(device))
    policy = Policy(model=prepare_model(model).eval(), tokenizer=tokenizer, image_processor=image_processor)
    if family.slow_because:
        refuse_another_forward(policy)
    return policy


@torch.no_grad()
def refuse_another_forward(policy: Policy) -> None:
    """Raise ``UserError`` where the slow way has other logits than the model's own forward pass.

    A model that does more with its pictures than put their features in the places of image tokens (adds them
    to deeper layers, counts places otherwise) would be sampled as it is and trained as something else.
    """
    prompt, token = _noise_prompt(policy)
    packed = pack_groups([prompt], [[token]], device=policy.model.device)
    states = packed_hidden(policy.model, packed, encode_images(policy.model, [prompt]))
    ours = policy.model.lm_head(states)[0].double()
    inputs = stock_inputs(policy.model, prompt, rows=1)
    theirs = policy.model(**inputs, use_cache=False).logits[0, -1].double()
    gap = float((ours - theirs).norm() / theirs.norm())
    if not gap <= (0.05 if states.element_size() < 4 else 1e-3):
        raise UserError(
            f"model.path: {type(policy.model).__name__} uses its pictures in another way than the slow way "
            f"knows (its logits are off by {gap:.1%}); give a model of a family in conf/README.md, or one "
            "whose image features only stand in for image tokens"
        )


def _noise_prompt(policy: Policy) -> tuple[EncodedPrompt, Tensor]:
    """A prompt about a picture of noise, and a completion of one token."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    prompt = policy.encoder.encode(CHAT, [Image.fromarray(noise)])
    return prompt, prompt.input_ids[-1:]


def _quantised(family: Family, bits: int | None, *, dtype: str, device: str) -> dict[str, Any]:
    """What transformers is told to read weights in 4 bits, straight onto the device; nothing for None."""
    if bits is None:
        return {}
    if bits_problem():
        raise UserError(bits_problem())
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        llm_int8_skip_modules=["lm_head", *family.vision_modules],
    )
    return {"quantization_config": config, "device_map": {"": device}}


def load_merged(path: str, *, dtype: str, min_pixels: int, max_pixels: int) -> Policy:
    """Return the policy saved at ``path`` as a plain model on the CPU, an adapter added to its weights.

    They are added in float32 at least, and rounded to ``dtype`` once. Weights that were trained on in 4 bits
    are read whole.
    """
    policy = load_policy(
        path,
        dtype=_wide(dtype),
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        device="cpu",
        whole=True,
    )
    if policy.base is not None:
        merge_adapter(policy.model)
    model = policy.model.to(getattr(torch, dtype))
    return replace(policy, model=model, base=None)


def _wide(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def _adapted(
    folder: Path, *, dtype: str, min_pixels: int, max_pixels: int, device: str, whole: bool
) -> Policy:
    """The base of an adapter with that adapter in it."""
    base = read_base(folder)
    path = base.beside(folder)
    if base.path.startswith(".") and not Path(path).is_dir():
        raise UserError(f"{folder}: the weights that its adapter belongs to are gone ({path}); put them back")
    if is_adapter(Path(path)):
        raise UserError(f"{folder}: its base {path} is an adapter itself; merge that one with qhk export")
    policy = load_policy(
        path,
        dtype=dtype,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        device=device,
        bits=None if whole else base.bits,
    )
    if base.sha256 is not None and digest_of(path) != base.sha256:
        raise UserError(
            f"{folder}: its adapter belongs to other weights than {path} holds now; put those back, "
            "or give a checkpoint that was trained on these"
        )
    load_adapter(policy.model, folder)
    policy = replace(policy, base=base)
    if is_trained(policy.model):
        assert _has_effect(policy), f"the adapter in {folder} has no effect on the model"
    return policy


@torch.no_grad()
def _has_effect(policy: Policy) -> bool:
    """Return whether the model with its adapter answers otherwise about a picture than without it."""
    prompt, token = _noise_prompt(policy)
    packed = pack_groups([prompt], [[token]], device=policy.model.device)

    def hidden() -> Tensor:
        return packed_hidden(policy.model, packed, encode_images(policy.model, [prompt]))

    with at_reference(policy.model):
        without = hidden()
    return not torch.equal(hidden(), without)


def digest_of(path: str) -> str:
    """Return the digest of the weight files in a folder, or of a hub id's copy in the cache."""
    if Path(path).is_dir():
        return weights_digest(Path(path))
    config = cached_file(path, "config.json")
    assert config is not None, "it has just been loaded from there"
    return weights_digest(Path(config).parent)


def with_adapter(policy: Policy, settings: AdapterSettings, *, seed: int, base: Base) -> Policy:
    """Return the policy with a new adapter in its model, which computes what it did until that is trained."""
    put_adapter(policy.model, settings, seed=seed)
    return replace(policy, base=base)


def _owned(model: Any) -> Any:
    """The model with its weights in memory of its own, where loading has left them mapped from the file.

    A mapped weight begins wherever the file puts it, and products of matrices may round differently by
    where a matrix begins: a resumed run would part from the undisturbed one. Nor should a file that is
    removed or cut short take a running model with it.
    """
    for weight in model.parameters():
        if weight.device.type == "cpu":
            weight.data = weight.data.clone()
    return model


def save_policy(policy: Policy, folder: Path, *, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write model, tokenizer and image processor for plain transformers, under stock class names.

    Of a model with an adapter, that one alone, for plain peft. ``weights`` by name are written where they are
    given, else the model's own.
    """
    if policy.base is None:
        policy.model.save_pretrained(folder, state_dict=weights)
    else:
        save_adapter(policy.model, policy.base, folder, weights=weights)
    policy.tokenizer.save_pretrained(folder)
    policy.image_processor.save_pretrained(folder)
