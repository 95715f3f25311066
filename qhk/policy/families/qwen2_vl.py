"""Qwen2-VL (arXiv 2409.12191): every block of the vision tower attends to its whole picture."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from qhk.policy.families.qwen2_5_vl import Qwen25VL


class Qwen2VL(Qwen25VL):
    """Its vision tower names sizes otherwise: ``hidden_size`` is the width of what it gives."""

    model_type = "qwen2_vl"
    model_class = Qwen2VLForConditionalGeneration
    config_class = Qwen2VLConfig

    def tiny_vision(self, **sizes: Any) -> dict[str, Any]:
        shared = super(Qwen25VL, self).tiny_vision(**sizes)
        width = sizes["vision_hidden"]
        assert sizes["vision_mlp"] % width == 0, "checked with the settings"
        return shared | {
            "embed_dim": width,
            "mlp_ratio": sizes["vision_mlp"] // width,
            "hidden_size": sizes["hidden"],
        }
