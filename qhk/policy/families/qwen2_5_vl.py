"""Qwen2.5-VL (arXiv 2502.13923): most blocks of the vision tower attend within windows."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from qhk.policy.families.qwen import Qwen


class Qwen25VL(Qwen):
    """Its text model builds a mask per kind of layer, unless it is told of each that none is needed."""

    model_type = "qwen2_5_vl"
    model_class: ClassVar[Any] = Qwen2_5_VLForConditionalGeneration
    config_class: ClassVar[Any] = Qwen2_5_VLConfig

    @property
    def text_mask(self) -> dict[str, None]:
        return {"full_attention": None, "sliding_attention": None}

    def tiny_vision(self, **sizes: Any) -> dict[str, Any]:
        return super().tiny_vision(**sizes) | {
            "hidden_size": sizes["vision_hidden"],
            "intermediate_size": sizes["vision_mlp"],
            "out_hidden_size": sizes["hidden"],
            "window_size": 4 * sizes["patch_size"] * sizes["merge_size"],
            "fullatt_block_indexes": list(range(sizes["vision_depth"])),
        }
