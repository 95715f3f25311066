"""How large a model is, in the numbers that its cost and its memory depend on; no weights are opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qhk.files import read_json
from qhk.settings.inputs import ModelSettings, TinySettings

TINY_VOCABULARY = 600
"""About the tokens of the embedded tiny model."""

ANSWER_TOKENS = 200
"""Assumed length of an answer where its limit is longer."""

TEXT_TOKENS = 150
"""Assumed length of the prompt's words."""

TINY_TEXT_TOKENS = 40
"""The same of the embedded tiny model's prompts."""

PIXELS = 1024 * 768
"""Assumed size of a picture where the limits allow it."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A Qwen2.5-VL in numbers.

    ``full`` of the ``vision_layers`` attend to all patches, the others to windows of 64. ``tied``: head and
    embedding are one matrix.
    """

    hidden: int
    layers: int
    mlp: int
    kv_width: int
    vocabulary: int
    tied: bool
    vision_hidden: int
    vision_layers: int
    vision_mlp: int
    full: int
    patch: int
    merge: int

    @property
    def text(self) -> float:
        """Return the weights of the decoder layers' matrices."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_width
        return float(self.layers * (attention + 3 * self.hidden * self.mlp))

    @property
    def head(self) -> float:
        """Return the weights of the head's matrix."""
        return float(self.hidden * self.vocabulary)

    @property
    def vision(self) -> float:
        """Return the weights of the vision blocks' matrices."""
        return float(
            self.vision_layers * (4 * self.vision_hidden**2 + 3 * self.vision_hidden * self.vision_mlp)
        )

    @property
    def merger(self) -> float:
        """Return the weights of the layers between the vision tower and the language model."""
        merged = self.vision_hidden * self.merge**2
        return float(merged * merged + merged * self.hidden)

    @property
    def embedding(self) -> float:
        """Return the weights of the embedding beside the head, and of the layer that reads patches."""
        return (0.0 if self.tied else self.head) + 3.0 * 2 * self.patch**2 * self.vision_hidden

    @property
    def weights(self) -> float:
        """Return the weights of the whole model, biases and norms left out."""
        return self.text + self.head + self.embedding + self.vision + self.merger


def qwen_shape(*, hidden: int, layers: int, mlp: int, kv_width: int, vocabulary: int, tied: bool) -> Shape:
    """Return a Qwen2.5-VL as published: its vision tower is much the same at every size."""
    return Shape(
        hidden=hidden,
        layers=layers,
        mlp=mlp,
        kv_width=kv_width,
        vocabulary=vocabulary,
        tied=tied,
        vision_hidden=1280,
        vision_layers=32,
        vision_mlp=3420,
        full=4,
        patch=14,
        merge=2,
    )


KNOWN = {
    "3b": qwen_shape(hidden=2048, layers=36, mlp=11008, kv_width=256, vocabulary=151936, tied=True),
    "7b": qwen_shape(hidden=3584, layers=28, mlp=18944, kv_width=512, vocabulary=152064, tied=False),
    "32b": qwen_shape(hidden=5120, layers=64, mlp=27648, kv_width=1024, vocabulary=152064, tied=False),
}
"""The published sizes, by the word in their names."""


def model_shape(model: ModelSettings) -> Shape | None:
    """Return the model's numbers from its settings, its ``config.json`` or its name; None where none says."""
    if model.tiny is not None:
        return _tiny_shape(model.tiny)
    path = str(model.path)
    config = Path(path).expanduser() / "config.json"
    if config.is_file():
        return _read_shape(config)
    return next((shape for name, shape in KNOWN.items() if f"-{name}" in path.lower()), None)


def _tiny_shape(tiny: TinySettings) -> Shape:
    return Shape(
        hidden=tiny.hidden,
        layers=tiny.depth,
        mlp=tiny.mlp,
        kv_width=tiny.kv_heads * (tiny.hidden // tiny.heads),
        vocabulary=TINY_VOCABULARY,
        tied=True,
        vision_hidden=tiny.vision_hidden,
        vision_layers=tiny.vision_depth,
        vision_mlp=tiny.vision_mlp,
        full=tiny.vision_depth,
        patch=tiny.patch_size,
        merge=tiny.merge_size,
    )


def _read_shape(config: Path) -> Shape | None:
    content = read_json(config)
    text = content.get("text_config", content) if isinstance(content, dict) else {}
    try:
        width = text["hidden_size"] // text["num_attention_heads"]
        return qwen_shape(
            hidden=text["hidden_size"],
            layers=text["num_hidden_layers"],
            mlp=text["intermediate_size"],
            kv_width=text["num_key_value_heads"] * width,
            vocabulary=text["vocab_size"],
            tied=bool(text.get("tie_word_embeddings", content.get("tie_word_embeddings", False))),
        )
    except KeyError:
        return None


def picture_patches(shape: Shape, model: ModelSettings) -> float:
    """Return the patches of a picture, within the model's limits of pixels."""
    return min(model.max_pixels, max(model.min_pixels, PIXELS)) / shape.patch**2


def prompt_tokens(shape: Shape, model: ModelSettings) -> float:
    """Return the tokens of a prompt with one picture."""
    words = TEXT_TOKENS if model.tiny is None else TINY_TEXT_TOKENS
    return picture_patches(shape, model) / shape.merge**2 + words
