"""How large a model is, in the numbers that its cost and its memory depend on; no weights are opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qhk.files import read_json
from qhk.settings.model import ModelSettings, TinySettings
from qhk.settings.root import Settings

TINY_VOCABULARY = 600
"""About the tokens of the embedded tiny model."""

TINY_PLACES = 64
"""Learned in the tower of a tiny model, where its family learns any."""

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
    """A vision-language model of the packed families in numbers.

    ``full`` of the ``vision_layers`` attend to all patches, the others to windows of 64. ``tied``: head and
    embedding are one matrix. ``query_width`` is that of all heads together, 0 where it is ``hidden``.
    ``vision_matrices`` are those of an MLP of the tower, 3 with a gate and 2 without; ``mergers`` lead from
    the tower to the language model, more than one with a deep stack. ``places`` are learned in the tower.
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
    query_width: int = 0
    vision_matrices: int = 3
    mergers: int = 1
    places: int = 0

    @property
    def queries(self) -> int:
        """Return the width of all heads together."""
        return self.query_width or self.hidden

    @property
    def text(self) -> float:
        """Return the weights of the decoder layers' matrices."""
        attention = 2 * self.hidden * self.queries + 2 * self.hidden * self.kv_width
        return float(self.layers * (attention + 3 * self.hidden * self.mlp))

    @property
    def head(self) -> float:
        """Return the weights of the head's matrix."""
        return float(self.hidden * self.vocabulary)

    @property
    def vision(self) -> float:
        """Return the weights of the vision blocks' matrices."""
        mlp = self.vision_matrices * self.vision_hidden * self.vision_mlp
        return float(self.vision_layers * (4 * self.vision_hidden**2 + mlp))

    @property
    def merger(self) -> float:
        """Return the weights of the layers between the vision tower and the language model."""
        merged = self.vision_hidden * self.merge**2
        return float(self.mergers * (merged * merged + merged * self.hidden))

    @property
    def embedding(self) -> float:
        """Return the weights of the embedding beside the head, and of what reads patches and their places."""
        patches = 3.0 * 2 * self.patch**2 + self.places
        return (0.0 if self.tied else self.head) + patches * self.vision_hidden

    @property
    def weights(self) -> float:
        """Return the weights of the whole model, biases and norms left out."""
        return self.text + self.head + self.embedding + self.vision + self.merger


@dataclass(frozen=True, kw_only=True)
class _Tower:
    """A vision tower in numbers; see ``Shape``. ``full`` None: every layer attends to all patches."""

    hidden: int
    layers: int
    mlp: int
    patch: int
    merge: int = 2
    matrices: int = 2
    full: int | None = None
    mergers: int = 1
    places: int = 0


TOWERS = {
    "qwen2_vl": _Tower(hidden=1280, layers=32, mlp=5120, patch=14),
    "qwen2_5_vl": _Tower(hidden=1280, layers=32, mlp=3420, patch=14, matrices=3, full=4),
    "qwen3_vl": _Tower(hidden=1152, layers=27, mlp=4304, patch=16, mergers=4, places=48**2),
}
"""By model type as published: a family's tower is much the same at every size."""

SMALL_TOWER = _Tower(hidden=1024, layers=24, mlp=4096, patch=16, mergers=4, places=48**2)
"""Of Qwen3-VL at 2B and 4B."""


def text_shape(
    family: str,
    *,
    hidden: int,
    layers: int,
    mlp: int,
    kv_width: int,
    vocabulary: int,
    tied: bool,
    query_width: int = 0,
    tower: _Tower | None = None,
) -> Shape:
    """Return a model of a family with that language model, and the tower that is published with it."""
    tower = tower or TOWERS[family]
    return Shape(
        hidden=hidden,
        layers=layers,
        mlp=mlp,
        kv_width=kv_width,
        vocabulary=vocabulary,
        tied=tied,
        query_width=query_width,
        vision_hidden=tower.hidden,
        vision_layers=tower.layers,
        vision_mlp=tower.mlp,
        vision_matrices=tower.matrices,
        full=tower.layers if tower.full is None else tower.full,
        patch=tower.patch,
        merge=tower.merge,
        mergers=tower.mergers,
        places=tower.places,
    )


def _qwen2(
    family: str, hidden: int, layers: int, mlp: int, kv_width: int, vocabulary: int, *, tied: bool
) -> Shape:
    return text_shape(
        family,
        hidden=hidden,
        layers=layers,
        mlp=mlp,
        kv_width=kv_width,
        vocabulary=vocabulary,
        tied=tied,
    )


def _qwen3(hidden: int, layers: int, mlp: int, heads: int, *, tied: bool, small: bool) -> Shape:
    return text_shape(
        "qwen3_vl",
        hidden=hidden,
        layers=layers,
        mlp=mlp,
        kv_width=8 * 128,
        query_width=heads * 128,
        vocabulary=151936,
        tied=tied,
        tower=SMALL_TOWER if small else None,
    )


KNOWN = {
    "qwen2-vl-2b": _qwen2("qwen2_vl", 1536, 28, 8960, 256, 151936, tied=True),
    "qwen2-vl-7b": _qwen2("qwen2_vl", 3584, 28, 18944, 512, 152064, tied=False),
    "qwen2.5-vl-3b": _qwen2("qwen2_5_vl", 2048, 36, 11008, 256, 151936, tied=True),
    "qwen2.5-vl-7b": _qwen2("qwen2_5_vl", 3584, 28, 18944, 512, 152064, tied=False),
    "qwen2.5-vl-32b": _qwen2("qwen2_5_vl", 5120, 64, 27648, 1024, 152064, tied=False),
    "qwen3-vl-2b": _qwen3(2048, 28, 6144, 16, tied=True, small=True),
    "qwen3-vl-4b": _qwen3(2560, 36, 9728, 32, tied=True, small=True),
    "qwen3-vl-8b": _qwen3(4096, 36, 12288, 32, tied=False, small=False),
    "qwen3-vl-32b": _qwen3(5120, 64, 25600, 64, tied=False, small=False),
}
"""The published sizes, by the words in their names."""


def model_shape(model: ModelSettings) -> Shape | None:
    """Return the model's numbers from its settings, its ``config.json`` or its name; None where none says."""
    if model.tiny is not None:
        return _tiny_shape(model.tiny)
    path = str(model.path)
    config = Path(path).expanduser() / "config.json"
    if config.is_file():
        return _read_shape(config)
    return next((shape for name, shape in KNOWN.items() if name in path.lower()), None)


def _tiny_shape(tiny: TinySettings) -> Shape | None:
    if tiny.family not in TOWERS:
        return None
    published = TOWERS[tiny.family]
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
        vision_matrices=published.matrices,
        mergers=1 + min(published.mergers - 1, tiny.vision_depth, tiny.depth - 1),
        places=min(published.places, TINY_PLACES),
    )


def _read_shape(config: Path) -> Shape | None:
    content = read_json(config)
    if not isinstance(content, dict) or content.get("model_type") not in TOWERS:
        return None
    text = content.get("text_config", content)
    try:
        width = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
        return text_shape(
            content["model_type"],
            hidden=text["hidden_size"],
            layers=text["num_hidden_layers"],
            mlp=text["intermediate_size"],
            kv_width=text["num_key_value_heads"] * width,
            query_width=text["num_attention_heads"] * width,
            vocabulary=text["vocab_size"],
            tied=bool(text.get("tie_word_embeddings", content.get("tie_word_embeddings", False))),
            tower=_read_tower(content),
        )
    except KeyError:
        return None


def _read_tower(content: Mapping[str, Any]) -> _Tower:
    """The tower of a config: its family's, at the sizes that are named there."""
    vision, family = content.get("vision_config", {}), content["model_type"]
    named = {"layers": "depth", "patch": "patch_size", "merge": "spatial_merge_size"}
    named |= (
        {"hidden": "embed_dim"}
        if family == "qwen2_vl"
        else {"hidden": "hidden_size", "mlp": "intermediate_size"}
    )
    sizes = {field: vision[key] for field, key in named.items() if key in vision}
    if family == "qwen2_vl" and {"embed_dim", "mlp_ratio"} <= vision.keys():
        sizes["mlp"] = int(vision["embed_dim"] * vision["mlp_ratio"])
    if "fullatt_block_indexes" in vision:
        sizes["full"] = len(vision["fullatt_block_indexes"])
    return replace(TOWERS[family], **sizes)


def framing_problems(settings: Settings) -> list[str]:
    """Return a line where native pixels would not stay so: a processor resizes to whole image tokens."""
    shape, side = model_shape(settings.model), settings.framing.shown_side
    if shape is None or side is None or not side % (shape.patch * shape.merge):
        return []
    token = shape.patch * shape.merge
    more = (side // token + 1) * token
    return [
        f"framing.side: {side} pixels a side would be resized, as the model's image tokens are {token} "
        f"pixels wide; show {side // token * token or more} or {more}"
    ]


def picture_patches(shape: Shape, settings: Settings) -> float:
    """Return the patches of what is shown of a picture, within the model's limits of pixels."""
    model, side = settings.model, settings.framing.shown_side
    pixels = PIXELS if side is None else min(PIXELS, side**2)
    return min(model.max_pixels, max(model.min_pixels, pixels)) / shape.patch**2


def prompt_tokens(shape: Shape, settings: Settings) -> float:
    """Return the tokens of a prompt with one picture."""
    words = TEXT_TOKENS if settings.model.tiny is None else TINY_TEXT_TOKENS
    return picture_patches(shape, settings) / shape.merge**2 + words
