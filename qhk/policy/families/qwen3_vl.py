"""Qwen3-VL, dense: features of several vision blocks, one kind of rotary axis after the other, added places.

Deep stack (arXiv 2406.04334): beside the tower's last features, those of ``deepstack_visual_indexes`` go
through mergers of their own and are added to the states of image tokens behind the first, second, ... layer
of the text model. Here they are further columns of the features. Rotary axes take turns over the width of a
head, where Qwen2.5-VL's lie one behind the other; places in a picture are interpolated from a learned grid.
A video is pictures with their time in words before each: ``<1.5 seconds>``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from qhk.policy.families.qwen import Qwen

MERGERS = r"model\.visual\.(?:merger|deepstack_merger_list\.\d+)\."

GRID = 8
"""Places to a side of the tiny model's learned grid."""


class Qwen3Tower(Qwen):
    """What Qwen3-VL and Qwen3.5 share: the vision tower, how rotary axes share the width of a head, times."""

    time_form = "<{:.1f} seconds>"

    def tiny_text(self, tokenizer: Any, **sizes: Any) -> dict[str, Any]:
        return super().tiny_text(tokenizer, **sizes) | {"head_dim": sizes["hidden"] // sizes["heads"]}

    def tiny_section(self, half: int) -> list[int]:
        side = half * 20 // 64  # the published [24, 20, 20] of 64
        return [half - 2 * side, side, side]

    def tiny_vision(self, **sizes: Any) -> dict[str, Any]:
        return super().tiny_vision(**sizes) | {
            "hidden_size": sizes["vision_hidden"],
            "intermediate_size": sizes["vision_mlp"],
            "out_hidden_size": sizes["hidden"],
            "num_position_embeddings": GRID**2,
        }


class Qwen3VL(Qwen3Tower):
    """Its text model takes the places of image tokens, and one tensor for each layer that is added to."""

    model_type = "qwen3_vl"
    model_class = Qwen3VLForConditionalGeneration
    config_class = Qwen3VLConfig
    places = {**Qwen.places, "merger": MERGERS}
    linear_places = {**Qwen.linear_places, "merger": MERGERS}

    def features(self, output: Any) -> Tensor:
        deep = [torch.cat(list(pieces)) for pieces in output.deepstack_features]
        return torch.cat([super().features(output), *deep], dim=1)

    def enter(self, features: Tensor, *, hidden_size: int, is_image: Tensor) -> tuple[Tensor, dict[str, Any]]:
        first, *deep = torch.split(features, hidden_size, dim=1)
        return first, {"visual_pos_masks": is_image, "deepstack_visual_embeds": deep}

    def tiny_vision(self, **sizes: Any) -> dict[str, Any]:
        # What is added behind the last layer reaches no other place.
        levels = min(sizes["vision_depth"], sizes["depth"] - 1, 3)
        return super().tiny_vision(**sizes) | {"deepstack_visual_indexes": list(range(levels))}
