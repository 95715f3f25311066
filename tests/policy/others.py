"""Tiny random models of other makers, with processors that do without torchvision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from qhk.policy.load import Policy, prepare_model
from qhk.policy.tokenizer import build_tokenizer
from tests.conftest import QUESTION

TEMPLATE = (
    "{% for message in messages %}<start>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant\n{% endif %}"
)
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "initializer_range": 0.2,
}


def _tokenizer(image: str, **named: str) -> Any:
    tokenizer = build_tokenizer([QUESTION], num_merged_tokens=20)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<start>", "<end_of_turn>", image, *named.values()]}
    )
    tokenizer.chat_template = None
    tokenizer._set_model_specific_special_tokens({"image_token": image, **named})
    return tokenizer


def _text(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.2,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<end_of_turn>"),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }


def gemma3() -> tuple[Any, Any]:
    """Image tokens see each other; layers with a window beside layers without."""
    tokenizer = _tokenizer("<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
    processor = Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer,
        chat_template=TEMPLATE.replace("IMAGE", "<start_of_image>"),
        image_seq_length=4,
    )
    config = Gemma3Config(
        text_config=_text(tokenizer)
        | {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8},
        vision_config=VISION | {"model_type": "siglip_vision_model"},
        mm_tokens_per_image=4,
        image_token_id=tokenizer.image_token_id,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
    )
    model = Gemma3ForConditionalGeneration(config)
    # It begins with zeros, and pictures would be felt nowhere.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.2)
    return model, processor


def _tiles() -> Any:
    """A processor that cuts pictures into tiles, whose number depends on their size."""
    return Idefics3Processor(
        Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        _tokenizer("<image>"),
        image_seq_len=4,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )


def _of_tiles(processor: Any) -> dict[str, Any]:
    """Return what a model needs to know of them."""
    tokenizer = processor.tokenizer
    return {
        "text_config": _text(tokenizer) | {"model_type": "llama", "vocab_size": len(tokenizer)},
        "vision_config": VISION,
        "scale_factor": 2,
        "image_token_id": processor.image_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def idefics3() -> tuple[Any, Any]:
    """Pictures are cut into tiles."""
    processor = _tiles()
    return Idefics3ForConditionalGeneration(Idefics3Config(**_of_tiles(processor))), processor


def smolvlm() -> tuple[Any, Any]:
    """SmolVLM2's class; its own processor needs torchvision and num2words, so tiles are cut by Idefics3's."""
    processor = _tiles()
    return SmolVLMForConditionalGeneration(SmolVLMConfig(**_of_tiles(processor))), processor


def _whole_pictures(*, patch_size: int) -> Any:
    """A processor of one size of pictures, with an image token for each patch of that size."""
    return LlavaProcessor(
        LlavaImageProcessorPil(size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}),
        _tokenizer("<image>"),
        patch_size=patch_size,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )


def internvl() -> tuple[Any, Any]:
    """InternVL3.5's class; its own processor needs torchvision, so LLaVA's makes pictures, without tiles."""
    processor = _whole_pictures(patch_size=16)
    square = {"image_size": [32, 32], "patch_size": [8, 8]}
    config = InternVLConfig(
        text_config=_text(processor.tokenizer) | {"model_type": "qwen3"},
        vision_config=VISION | square,
        image_token_id=processor.tokenizer.image_token_id,
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    return InternVLForConditionalGeneration(config), processor


def llava() -> tuple[Any, Any]:
    """The plainest of all: one vision tower, one projector, one size of pictures."""
    processor = _whole_pictures(patch_size=8)
    tokenizer = processor.tokenizer
    config = LlavaConfig(
        text_config=_text(tokenizer) | {"model_type": "qwen2"},
        vision_config=VISION | {"model_type": "siglip_vision_model"},
        image_token_id=tokenizer.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=16,
    )
    return LlavaForConditionalGeneration(config), processor


OTHERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "gemma3": gemma3,
    "idefics3": idefics3,
    "internvl": internvl,
    "llava": llava,
    "smolvlm": smolvlm,
}


def build_other(name: str, *, dtype: torch.dtype = torch.float64) -> Policy:
    """Return a policy of another maker's class, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model, processor = OTHERS[name]()
    processor.tokenizer.chat_template = processor.chat_template
    return Policy(
        model=prepare_model(model).to(dtype).eval(), tokenizer=processor.tokenizer, image_processor=processor
    )
