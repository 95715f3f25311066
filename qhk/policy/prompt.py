"""A prompt ready for the model: ids, pixels, grid and positions, computed once per prompt."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from qhk.errors import UserError
from qhk.files import parse_json
from qhk.policy.template import render_chat
from qhk.policy.tokenizer import CHAT_TEMPLATE

IMAGE_TOKEN = "<|image_pad|>"

CACHED = 64
"""Chats, and layouts of prompts, that are remembered: a run asks few questions, of pictures of few sizes."""


@dataclass(frozen=True, kw_only=True)
class EncodedPrompt:
    """One prompt of P tokens with its images.

    ``input_ids`` (P,), ``is_image`` (P,) true where image features go, ``position_ids`` (3, P) for
    temporal, height and width rotary positions, ``next_position`` the position of the first completion
    token, ``pixel_values`` (patches, patch size) and ``image_grid_thw`` (images, 3). ``messages`` are the
    chat that it was made of. ``further`` is what else a family's vision tower takes, by name. ``key`` names
    the pictures as the vision tower sees them, empty where they have no name: equal keys, equal pixels.
    """

    input_ids: Tensor
    is_image: Tensor
    position_ids: Tensor
    next_position: int
    pixel_values: Tensor
    image_grid_thw: Tensor
    messages: Sequence[Mapping[str, Any]] = ()
    further: Mapping[str, Tensor] = field(default_factory=dict)
    key: tuple[Hashable, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Return the memory of all its tensors."""
        own = (self.input_ids, self.is_image, self.position_ids, self.pixel_values, self.image_grid_thw)
        return sum(tensor.nbytes for tensor in (*own, *self.further.values()))

    @property
    def num_tokens(self) -> int:
        return int(self.input_ids.shape[0])

    def with_pixels(
        self, pixel_values: Tensor, image_grid_thw: Tensor, *, key: tuple[Hashable, ...] = ()
    ) -> EncodedPrompt:
        """Return this prompt showing other pictures. Raises ``UserError`` where their patch grids differ."""
        if not torch.equal(self.image_grid_thw, image_grid_thw):
            raise UserError(
                f"degraded twin: patch grid {image_grid_thw.tolist()} differs from the original's "
                f"{self.image_grid_thw.tolist()}; a twin must have the size of its original"
            )
        return replace(self, pixel_values=pixel_values, key=key)

    def pixels_on(self, device: torch.device) -> EncodedPrompt:
        """Return this prompt with its pixels on ``device``, where each forward pass finds them."""
        return replace(
            self, pixel_values=self.pixel_values.to(device), image_grid_thw=self.image_grid_thw.to(device)
        )


def rotary_positions(is_image: Tensor, image_grid_thw: Tensor, *, merge_size: int) -> tuple[Tensor, int]:
    """Return (3, P) positions and the position that follows.

    Text advances all three axes together. An image of t x h x w patches becomes
    t x (h / merge) x (w / merge) tokens whose axes count from the position after the preceding text;
    the text behind it resumes after the largest of them (Qwen2-VL, M-RoPE).
    """
    columns: list[Tensor] = []
    start, cursor = 0, 0
    flags = is_image.tolist()
    for t, h, w in image_grid_thw.tolist():
        image_start = flags.index(True, cursor)
        text = torch.arange(image_start - cursor) + start
        columns.append(text.expand(3, -1))
        start += image_start - cursor
        rows, cols = h // merge_size, w // merge_size
        grid = torch.stack(
            torch.meshgrid(torch.arange(t), torch.arange(rows), torch.arange(cols), indexing="ij")
        )
        columns.append(grid.flatten(1) + start)
        cursor = image_start + t * rows * cols
        assert all(flags[image_start:cursor]), "image tokens do not match the patch grid"
        start += max(t, rows, cols)
    columns.append((torch.arange(len(flags) - cursor) + start).expand(3, -1))
    return torch.cat(columns, dim=1), start + len(flags) - cursor


class PromptEncoder:
    """Turns chat messages and pictures into an ``EncodedPrompt`` by one tokenizer and image processor."""

    def __init__(self, *, tokenizer: Any, image_processor: Any) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.image_token_id: int = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self._text = lru_cache(maxsize=CACHED)(self._render)
        self._layout = lru_cache(maxsize=CACHED)(self._lay_out)

    def encode(self, messages: Sequence[Mapping[str, Any]], images: Sequence[Image.Image]) -> EncodedPrompt:
        """Return the prompt up to and including the opening of the assistant's turn.

        Raises UserError when the messages hold another number of image places than pictures are given.
        """
        text = self._text(json.dumps(list(messages)))
        places = text.count(IMAGE_TOKEN)
        if places != len(images):
            raise UserError(
                f"prompt: {places} image places but {len(images)} pictures; give one picture per place"
            )
        pixel_values, grid = self.encode_pixels(images)
        sizes = tuple(map(tuple, grid.tolist()))
        return replace(
            self._layout(text, sizes), pixel_values=pixel_values, image_grid_thw=grid, messages=messages
        )

    def _render(self, messages: str) -> str:
        return render_chat(self.tokenizer, parse_json(messages), own=CHAT_TEMPLATE)

    def _lay_out(self, text: str, sizes: Sequence[tuple[int, int, int]]) -> EncodedPrompt:
        """The prompt of pictures of these grids but for their pixels; prompts share its tensors."""
        merge, grid = int(self.image_processor.merge_size), torch.tensor(sizes).view(-1, 3)
        parts = text.split(IMAGE_TOKEN)
        for place, (t, h, w) in enumerate(sizes):
            parts[place] += IMAGE_TOKEN * (t * h * w // merge**2)
        input_ids = torch.tensor(self.tokenizer("".join(parts), add_special_tokens=False)["input_ids"])
        is_image = input_ids == self.image_token_id
        position_ids, next_position = rotary_positions(is_image, grid, merge_size=merge)
        return EncodedPrompt(
            input_ids=input_ids,
            is_image=is_image,
            position_ids=position_ids,
            next_position=next_position,
            pixel_values=torch.empty(0),
            image_grid_thw=grid,
        )

    def count_tokens(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        """Return how many tokens a prompt has besides those of its pictures, and how many pictures."""
        text = self._text(json.dumps(list(messages)))
        words = text.replace(IMAGE_TOKEN, "")
        return len(self.tokenizer(words, add_special_tokens=False)["input_ids"]), text.count(IMAGE_TOKEN)

    def encode_pixels(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Return the pictures' ``pixel_values`` (patches, patch size) and ``image_grid_thw`` (images, 3)."""
        encoded = self.image_processor(images=list(images), return_tensors="pt")
        return encoded["pixel_values"], encoded["image_grid_thw"]
