"""Policies on disk and in memory: load a checkpoint or a published model, save in the Hugging Face layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from qhk.errors import UserError
from qhk.policy.attention import GROUP_ATTENTION, register_group_attention
from qhk.policy.contents import folder_fault, has_contents
from qhk.policy.prompt import PromptEncoder
from qhk.policy.template import render_chat
from qhk.policy.tokenizer import CHAT_TEMPLATE, end_token_ids

CHAT = ({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]},)
"""Tried on a chat template before any weight is read."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A model with the tokenizer and image processor that belong to it."""

    model: Any
    tokenizer: Any
    image_processor: Any

    @property
    def encoder(self) -> PromptEncoder:
        return PromptEncoder(tokenizer=self.tokenizer, image_processor=self.image_processor)

    @property
    def end_tokens(self) -> tuple[int, ...]:
        return end_token_ids(self.tokenizer)

    def num_tokens(self, text: str) -> int:
        """Return how many tokens a completion of this text has, without the one that ends it."""
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


def prepare_model(model: Any) -> Any:
    """Return the model with group attention in its language part and neutral generation defaults.

    Sampling never reads the generation config; it is made neutral so that a saved checkpoint does not
    carry another model's near-greedy values to whoever decodes it next.
    """
    register_group_attention()
    model.set_attn_implementation({"text_config": GROUP_ATTENTION, "vision_config": "sdpa"})
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
    path: str, *, dtype: str, min_pixels: int, max_pixels: int, device: str, intact: bool = False
) -> Policy:
    """Return the policy saved in folder ``path`` (or published under that hub id).

    The PIL image processor is named explicitly, and the pixel limits are given at load, since a limit in
    the checkpoint's own preprocessor file would win over one given later.

    No code of the checkpoint is run: no classes that its files name, no kernels for its attention, which is
    set here. One that cannot do without is refused, as is one whose chat template does not work.

    Raises ``UserError`` in one line when the folder is not a Qwen2.5-VL checkpoint, and when it is one of
    ours whose files are not those that were written (``intact``: they are known to be).
    """
    folder = Path(path)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(f"model.path: {path} holds no config.json; give a folder in the Hugging Face layout")
    if not intact and has_contents(folder):
        fault, _ = folder_fault(folder, left_out=("training.pt",))
        if fault:
            raise UserError(f"{path}: is damaged ({fault}); put the file back, or give another checkpoint")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        image_processor = Qwen2VLImageProcessorPil.from_pretrained(
            path, min_pixels=min_pixels, max_pixels=max_pixels, trust_remote_code=False
        )
        render_chat(tokenizer, CHAT, own=CHAT_TEMPLATE)
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            path, dtype=getattr(torch, dtype), attn_implementation="sdpa", trust_remote_code=False
        )
    except (torch.OutOfMemoryError, MemoryError, UserError):
        raise
    except Exception as error:  # a foreign folder: each library has errors of its own for what it cannot read
        if "trust_remote_code" in str(error):
            raise UserError(
                f"model.path: {path} brings code of its own, which is never run; "
                "give a checkpoint of transformers' own classes"
            ) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"model.path: {path} could not be loaded ({reason}); give a folder or a hub id"
        ) from error
    model = _owned(model.to(device))  # type: ignore[arg-type]
    return Policy(model=prepare_model(model).eval(), tokenizer=tokenizer, image_processor=image_processor)


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

    ``weights`` by name are written where they are given, else the model's own.
    """
    policy.model.save_pretrained(folder, state_dict=weights)
    policy.tokenizer.save_pretrained(folder)
    policy.image_processor.save_pretrained(folder)
