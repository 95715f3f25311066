"""The embedded policy: a real class of a family at about a million parameters, from random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from qhk.policy.families import TINY


def tiny_image_processor(
    *, patch_size: int, merge_size: int, min_pixels: int, max_pixels: int, image_mean: float = 0.5
) -> Qwen2VLImageProcessorPil:
    """Return the PIL image processor with small patches, one frame deep.

    Pixel values are (brightness - ``image_mean``) / 0.5. The tower divides each patch by its root mean
    square; with a mean of 0 that holds the brightness, so contrast stays to be seen beside it.
    """
    return Qwen2VLImageProcessorPil(
        patch_size=patch_size,
        merge_size=merge_size,
        temporal_patch_size=1,
        size={"shortest_edge": min_pixels, "longest_edge": max_pixels},
        image_mean=[image_mean] * 3,
        image_std=[0.5] * 3,
    )


def tiny_config(tokenizer: Any, *, family: str = "qwen2_5_vl", **sizes: Any) -> Any:
    """Return a configuration of that family at the sizes of ``TinySettings``."""
    return TINY[family].tiny_config(tokenizer, **sizes)


def build_tiny(config: Any, *, seed: int) -> Any:
    """Return the model with weights drawn from ``seed``; the global random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TINY[config.model_type].model_class(config)


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
    model: Any,
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
