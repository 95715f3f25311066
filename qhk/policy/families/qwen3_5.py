"""Qwen3.5's vision models: most layers of the text model keep a running state in place of keys and values."""

from __future__ import annotations

from typing import Any

from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

from qhk.policy.families.qwen3_vl import Qwen3Tower
from qhk.policy.patches import project_patches


class Qwen35(Qwen3Tower):
    """Pictures and positions are Qwen3-VL's, without the deep stack."""

    model_type = "qwen3_5"
    model_class = Qwen3_5ForConditionalGeneration
    config_class = Qwen3_5Config
    slow_because = "its layers keep a running state, which packed completions would share"
    has_positions = True

    def prepare(self, model: Any) -> None:
        """Embed patches by one product; the attention functions stay those that the model was loaded with."""
        project_patches(model.model.visual)

    def tiny_text(self, tokenizer: Any, **sizes: Any) -> dict[str, Any]:
        width = sizes["hidden"] // sizes["heads"]
        shared = super().tiny_text(tokenizer, **sizes)
        kinds = ["full_attention", "linear_attention"]  # from the last layer on, which has keys and values
        return shared | {
            "layer_types": [kinds[left % 2] for left in reversed(range(sizes["depth"]))],
            "linear_key_head_dim": width,
            "linear_value_head_dim": width,
            "linear_num_key_heads": sizes["kv_heads"],
            "linear_num_value_heads": sizes["heads"],
            "rope_parameters": shared["rope_parameters"] | {"partial_rotary_factor": 1.0},
        }
