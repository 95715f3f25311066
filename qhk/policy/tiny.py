"""The embedded policy: the real Qwen2.5-VL class at about a million parameters, from random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from qhk.policy.tokenizer import TURN_END


def tiny_image_processor(
    *, patch_size: int, merge_size: int, min_pixels: int, max_pixels: int
) -> Qwen2VLImageProcessorPil:
    """Return the PIL image processor with small patches, one frame deep, pixel values in [-1, 1]."""
    return Qwen2VLImageProcessorPil(
        patch_size=patch_size,
        merge_size=merge_size,
        temporal_patch_size=1,
        size={"shortest_edge": min_pixels, "longest_edge": max_pixels},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def tiny_config(
    tokenizer: Any,
    *,
    patch_size: int,
    merge_size: int,
    vision_depth: int,
    vision_hidden: int,
    vision_mlp: int,
    vision_heads: int,
    depth: int,
    hidden: int,
    mlp: int,
    heads: int,
    kv_heads: int,
    initializer_range: float,
) -> Qwen2_5_VLConfig:
    """Return a Qwen2.5-VL configuration at the given sizes; every vision block attends to the whole image."""
    token = tokenizer.convert_tokens_to_ids
    half = hidden // heads // 2
    temporal = half // 4
    height = (half - temporal) // 2
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": mlp,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "max_position_embeddings": 4096,
            "initializer_range": initializer_range,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": token(TURN_END),
            "pad_token_id": tokenizer.pad_token_id,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [temporal, height, half - temporal - height],
            },
        },
        vision_config={
            "depth": vision_depth,
            "hidden_size": vision_hidden,
            "intermediate_size": vision_mlp,
            "num_heads": vision_heads,
            "patch_size": patch_size,
            "spatial_merge_size": merge_size,
            "temporal_patch_size": 1,
            "out_hidden_size": hidden,
            "window_size": 4 * patch_size * merge_size,
            "fullatt_block_indexes": list(range(vision_depth)),
            "initializer_range": initializer_range,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_tiny(config: Qwen2_5_VLConfig, *, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """Return the model with weights drawn from ``seed``; the global random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2_5_VLForConditionalGeneration(config)


def whitening(patches: Tensor, *, num_filters: int, epsilon: float) -> Tensor:
    """Return filters (num_filters, patch values) whose responses to ``patches`` are uncorrelated.

    ``patches`` is (n, patch values).

    ``diag((lambda + epsilon)^-1/2) U^T`` for the leading eigenpairs of the patch covariance. Quality lives
    in fine detail whose variance is tiny beside brightness; a random projection buries it, whitening puts
    all directions on one footing. More filters than patch values leaves the rest at zero.
    """
    centred = patches.double() - patches.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    order = values.argsort(descending=True)[:num_filters]
    filters = torch.zeros(num_filters, patches.shape[1], dtype=torch.float64)
    filters[: len(order)] = (vectors[:, order] / (values[order].clamp(min=0) + epsilon).sqrt()).T
    return filters


def whiten_patch_embedding(
    model: Qwen2_5_VLForConditionalGeneration,
    image_processor: Qwen2VLImageProcessorPil,
    images: Sequence[Image.Image],
    *,
    epsilon: float,
) -> None:
    """Replace the patch embedding by PCA-whitening filters of the given (training) images, in place."""
    patches = image_processor(images=list(images), return_tensors="pt")["pixel_values"]
    weight = model.model.visual.patch_embed.proj.weight
    filters = whitening(patches, num_filters=weight.shape[0], epsilon=epsilon)
    with torch.no_grad():
        weight.copy_(filters.view_as(weight).to(weight.dtype))
