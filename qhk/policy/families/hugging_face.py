"""Any other vision-language model of transformers: the slow way, by the model's own forward pass.

Each completion takes a row of its own, behind a copy of its prompt. What is asked of a model: features of its
pictures (``get_image_features``) stand in for the embeddings of its image tokens (``image_token_id``), and a
linear layer ``lm_head`` reads the last states of ``model``. The processor's own template, image tokens and
sizes of pictures hold.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from qhk.errors import UserError
from qhk.policy.families.family import Family
from qhk.policy.prompt import EncodedPrompt, PromptEncoder
from qhk.policy.template import render_chat

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""What a processor gives beside pixels: one entry a token."""


class HuggingFace(Family):
    """Models by the names that transformers gives their parts; ``model_type`` is none of its own."""

    model_type = ""
    model_class = AutoModelForImageTextToText
    processor_class = AutoProcessor
    has_pixel_limits = False
    slow_because = "its family has no packed forward pass here"
    places = {
        "head": r"lm_head",
        "merger": r"model\.(?:multi_modal_projector|connector|visual\.merger)\.",
        "vision": r"model\.(?!language_model\.|text_model\.)",
        "language": "",
    }
    linear_places = {
        "merger": places["merger"],
        "vision": r"model\.(?:vision_tower|vision_model|visual\.blocks)\.",
        "language": r"model\.(?:language_model|text_model)\.",
    }
    vision_modules = ("model.vision_tower", "model.vision_model", "model.visual")

    def check(self, model: Any) -> None:
        """Raise ``UserError`` where the model is not built as this module asks."""
        lacking = [
            name
            for name, found in (
                ("lm_head", isinstance(model._modules.get("lm_head"), nn.Linear)),
                ("model.get_image_features", hasattr(model.base_model, "get_image_features")),
                ("config.image_token_id", hasattr(model.config, "image_token_id")),
            )
            if not found
        ]
        if lacking:
            raise UserError(
                f"model.path: a {type(model).__name__} has no {lacking[0]}, which every model needs here; "
                "give a model whose image features stand in for image tokens"
            )

    def tokenizer(self, tokenizer: Any, image_processor: Any) -> Any:
        """Return the processor's own, with the processor's chat template."""
        own = image_processor.tokenizer
        if image_processor.chat_template is not None:
            own.chat_template = image_processor.chat_template
        return own

    def prepare(self, model: Any) -> None:
        """Keep the attention functions that the model was loaded with."""

    def encoder(self, model: Any, tokenizer: Any, image_processor: Any) -> PromptEncoder:
        return ProcessorEncoder(
            tokenizer=tokenizer,
            image_processor=image_processor,
            image_token_id=int(model.config.image_token_id),
        )

    def end_tokens(self, model: Any, tokenizer: Any) -> tuple[int, ...]:
        """Return what follows an answer in the chat template, then the ends that the tokenizer knows."""
        said = "An answer."
        chat = [
            {"role": "user", "content": [{"type": "text", "text": "?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": said}]},
        ]
        behind = render_chat(tokenizer, chat, own="").rpartition(said)[2]
        added = tokenizer.added_tokens_decoder
        special = [
            token
            for token in tokenizer(behind, add_special_tokens=False)["input_ids"]
            if token in added and added[token].special
        ]
        ends = [token for token in (*special[:1], tokenizer.eos_token_id) if token is not None]
        if not ends:
            raise UserError(
                f"model.path: the tokenizer of {type(model).__name__} has no token that ends an answer; "
                "set eos_token in its tokenizer_config.json"
            )
        return tuple(dict.fromkeys(ends))

    def encode_images(self, model: Any, prompts: Sequence[EncodedPrompt]) -> Tensor:
        """Encode prompt by prompt, whose pictures may be cut into different numbers of tiles."""
        takes = inspect.signature(model.model.get_image_features).parameters
        found = []
        for prompt in prompts:
            further = {name: value for name, value in prompt.further.items() if name in takes}
            inputs = {"pixel_values": prompt.pixel_values, **further}
            output = model.model.get_image_features(
                **{name: value.to(model.device) for name, value in inputs.items()}, return_dict=True
            )
            features = torch.cat([piece.flatten(0, -2) for piece in output.pooler_output])
            wanted = int(prompt.is_image.sum())
            if len(features) != wanted:
                raise UserError(
                    f"model.path: {type(model).__name__} gives {len(features)} features for {wanted} image "
                    "tokens; give a model whose image features stand in for image tokens"
                )
            found.append(features)
        return torch.cat(found)

    def layers(self, model: Any) -> list[nn.Module]:
        named = model.named_modules()
        return [part for name, part in named if re.fullmatch(r".*\.(?:layers|blocks)\.\d+", name)]


class ProcessorEncoder(PromptEncoder):
    """Makes prompts by a processor, which widens image tokens itself: ``image_processor`` is all of it."""

    def __init__(self, *, tokenizer: Any, image_processor: Any, image_token_id: int) -> None:
        super().__init__(tokenizer=tokenizer, image_processor=image_processor)
        self.image_token_id = image_token_id

    def encode(self, messages: Sequence[Mapping[str, Any]], images: Sequence[Image.Image]) -> EncodedPrompt:
        text = self._text(json.dumps(list(messages)))
        given = self._process(text, images)
        input_ids = given["input_ids"][0]
        count = len(input_ids)
        return EncodedPrompt(
            input_ids=input_ids,
            is_image=input_ids == self.image_token_id,
            position_ids=torch.arange(count).expand(3, -1),
            next_position=count,
            pixel_values=given["pixel_values"],
            image_grid_thw=_sizes(images),
            messages=messages,
            further={
                name: value for name, value in given.items() if name not in (*TEXT_INPUTS, "pixel_values")
            },
        )

    def _process(self, text: str, images: Sequence[Image.Image]) -> Mapping[str, Tensor]:
        begins = self.tokenizer.bos_token
        own = {} if begins is None or not text.startswith(begins) else {"add_special_tokens": False}
        try:
            given = self.image_processor(text=text, images=list(images), return_tensors="pt", **own)
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"prompt: its processor refuses text and pictures ({reason})") from error
        return {name: value for name, value in given.items() if isinstance(value, Tensor)}

    def encode_pixels(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        marker = self.image_processor.image_token
        return self._process(marker * len(images), images)["pixel_values"], _sizes(images)


def _sizes(images: Sequence[Image.Image]) -> Tensor:
    """(images, 3) one frame, height and width of each: twins must agree in them."""
    return torch.tensor([[1, image.height, image.width] for image in images]).view(-1, 3)
