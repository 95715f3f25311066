"""The numbers of a model that its cost depends on, without loading it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from qhk.settings import ModelSettings

BYTES = 2
"""Per weight and per key, in decoding on an accelerator."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model in the numbers that its cost depends on; ``text``, ``vision`` and ``head`` count weights.

    ``windowed`` of the vision blocks look at 64 patches, ``full`` at all of them.
    """

    hidden: int
    layers: int
    kv_width: int
    text: float
    head: float
    vision: float
    merger: float
    vision_hidden: int
    windowed: int
    full: int
    patch: int

    @property
    def kv_bytes(self) -> float:
        """Bytes of keys and values per token."""
        return 2.0 * self.layers * self.kv_width * BYTES


def qwen_shape(
    *, hidden: int, layers: int, mlp: int, kv_width: int, vocabulary: int, vision_mlp: int = 3420
) -> Shape:
    """A Qwen2.5-VL of published form: its vision tower is the same at every size but for the last layer."""
    per_layer = 2 * hidden * hidden + 2 * hidden * kv_width + 3 * hidden * mlp
    vision_layer = 4 * 1280**2 + 3 * 1280 * vision_mlp
    return Shape(
        hidden=hidden,
        layers=layers,
        kv_width=kv_width,
        text=float(layers * per_layer),
        head=float(hidden * vocabulary),
        vision=float(32 * vision_layer),
        merger=float(5120 * 5120 + 5120 * hidden),
        vision_hidden=1280,
        windowed=28,
        full=4,
        patch=14,
    )


KNOWN = {
    "3b": qwen_shape(hidden=2048, layers=36, mlp=11008, kv_width=256, vocabulary=151936),
    "7b": qwen_shape(hidden=3584, layers=28, mlp=18944, kv_width=512, vocabulary=152064),
}


def model_shape(model: ModelSettings) -> Shape | None:
    """The model's numbers; None for weights that tell their size neither by name nor by a config."""
    if model.tiny is not None:
        tiny, vocabulary = model.tiny, 600
        head_width = tiny.hidden // tiny.heads
        kv_width = tiny.kv_heads * head_width
        layer = 2 * tiny.hidden**2 + 2 * tiny.hidden * kv_width + 3 * tiny.hidden * tiny.mlp
        merged = tiny.vision_hidden * tiny.merge_size**2
        return Shape(
            hidden=tiny.hidden,
            layers=tiny.depth,
            kv_width=kv_width,
            text=float(tiny.depth * layer),
            head=float(tiny.hidden * vocabulary),
            vision=float(
                tiny.vision_depth * (4 * tiny.vision_hidden**2 + 3 * tiny.vision_hidden * tiny.vision_mlp)
            ),
            merger=float(merged**2 + merged * tiny.hidden),
            vision_hidden=tiny.vision_hidden,
            windowed=0,
            full=tiny.vision_depth,
            patch=tiny.patch_size,
        )
    path = str(model.path)
    config = Path(path).expanduser() / "config.json"
    if config.is_file():
        return _read_shape(config)
    return next((shape for name, shape in KNOWN.items() if f"-{name}" in path.lower()), None)


def _read_shape(config: Path) -> Shape | None:
    content = json.loads(config.read_text(encoding="utf-8"))
    text = content.get("text_config", content)
    try:
        width = text["hidden_size"] // text["num_attention_heads"]
        return qwen_shape(
            hidden=text["hidden_size"],
            layers=text["num_hidden_layers"],
            mlp=text["intermediate_size"],
            kv_width=text["num_key_value_heads"] * width,
            vocabulary=text["vocab_size"],
        )
    except KeyError:
        return None
