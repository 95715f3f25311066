"""What Qwen's vision-language models share: one image processor, rotary positions of three axes, names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from qhk.policy.attention import GROUP_ATTENTION, register_group_attention
from qhk.policy.families.family import Family
from qhk.policy.patches import project_patches
from qhk.policy.prompt import EncodedPrompt, PromptEncoder
from qhk.policy.tokenizer import TURN_END, end_token_ids
from qhk.policy.windows import WINDOW_ATTENTION, attend_in_windows, register_window_attention


class Qwen(Family):
    """A Qwen with a vision tower; ``config_class`` is that of transformers.

    The PIL image processor is named explicitly, since the automatic one asks for torchvision.
    """

    config_class: ClassVar[Any]
    processor_class = Qwen2VLImageProcessorPil
    places = {
        "merger": r"model\.visual\.merger\.",
        "vision": r"model\.visual\.",
        "head": r"lm_head",
        "language": "",
    }
    vision_modules = ("model.visual",)
    linear_places = {
        "merger": places["merger"],
        "vision": r"model\.visual\.blocks\.",
        "language": r"model\.language_model\.",
    }

    def check(self, model: Any) -> None:
        assert isinstance(model, self.model_class), type(model)

    def prepare(self, model: Any) -> None:
        register_group_attention()
        register_window_attention()
        attend_in_windows(model.model.visual)
        project_patches(model.model.visual)
        model.set_attn_implementation({"text_config": GROUP_ATTENTION, "vision_config": WINDOW_ATTENTION})

    def encoder(self, model: Any, tokenizer: Any, image_processor: Any) -> PromptEncoder:
        return PromptEncoder(tokenizer=tokenizer, image_processor=image_processor)

    def end_tokens(self, model: Any, tokenizer: Any) -> tuple[int, ...]:
        return end_token_ids(tokenizer)

    def encode_images(self, model: Any, prompts: Sequence[EncodedPrompt]) -> Tensor:
        pixels = torch.cat([prompt.pixel_values for prompt in prompts]).to(model.device)
        grid = torch.cat([prompt.image_grid_thw for prompt in prompts]).to(model.device)
        return self.features(model.model.get_image_features(pixels, grid, return_dict=True))

    def features(self, output: Any) -> Tensor:
        """Return (image tokens, width) of what the vision tower gives."""
        pieces: Sequence[Tensor] = output.pooler_output
        return torch.cat(list(pieces))

    def layers(self, model: Any) -> list[nn.Module]:
        return [*model.model.visual.blocks, *model.model.language_model.layers]

    def tiny_config(self, tokenizer: Any, **sizes: Any) -> Any:
        """Return a configuration of ``TinySettings``: every vision block sees the whole image."""
        token = tokenizer.convert_tokens_to_ids
        return self.config_class(
            text_config=self.tiny_text(tokenizer, **sizes),
            vision_config=self.tiny_vision(**sizes),
            image_token_id=token("<|image_pad|>"),
            video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"),
            vision_end_token_id=token("<|vision_end|>"),
            tie_word_embeddings=True,
        )

    def tiny_text(self, tokenizer: Any, **sizes: Any) -> dict[str, Any]:
        """Return the keys of the text model of a tiny configuration."""
        half = sizes["hidden"] // sizes["heads"] // 2
        return {
            "vocab_size": len(tokenizer),
            "hidden_size": sizes["hidden"],
            "intermediate_size": sizes["mlp"],
            "num_hidden_layers": sizes["depth"],
            "num_attention_heads": sizes["heads"],
            "num_key_value_heads": sizes["kv_heads"],
            "max_position_embeddings": 4096,
            "initializer_range": sizes["initializer_range"],
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.convert_tokens_to_ids(TURN_END),
            "pad_token_id": tokenizer.pad_token_id,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": self.tiny_section(half),
            },
        }

    def tiny_section(self, half: int) -> list[int]:
        """Return how many of ``half`` a head's width turn by time, row and column."""
        temporal = half // 4
        height = (half - temporal) // 2
        return [temporal, height, half - temporal - height]

    def tiny_vision(self, **sizes: Any) -> dict[str, Any]:
        """Return the keys of the vision tower of a tiny configuration."""
        return {
            "depth": sizes["vision_depth"],
            "num_heads": sizes["vision_heads"],
            "patch_size": sizes["patch_size"],
            "spatial_merge_size": sizes["merge_size"],
            "temporal_patch_size": 1,
            "initializer_range": sizes["initializer_range"],
        }
