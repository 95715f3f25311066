"""Settings of the policy's weights: the model, and the adapter that is trained beside it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from qhk.errors import UserError
from qhk.settings.base import Count, FileText, Fraction, Node, Positive

MOST_SIDE = 16384
"""Far more pixels than a policy is shown."""


MOST_TINY_WEIGHTS = 10**9
"""Far more than trains on a laptop, which is what the embedded model is for."""


TinyFamily = Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"]
"""Families of which a model can be built from scratch, by the model type of their configs."""


class TinySettings(Node):
    """Family and size of the embedded model that is built from scratch.

    ``image_mean`` is the brightness, of [0, 1], that its vision tower sees as zero.
    """

    patch_size: Count
    merge_size: Count
    vision_depth: Count
    vision_hidden: Count
    vision_mlp: Count
    vision_heads: Count
    depth: Count
    hidden: Count
    mlp: Count
    heads: Count
    kv_heads: Count
    initializer_range: Positive
    whiten: bool
    whitening_epsilon: Positive
    whitening_images: Count
    family: TinyFamily = "qwen2_5_vl"
    image_mean: Fraction = 0.5

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        # Positions turn pairs of a head's values: one position in words, a row and a column in pictures.
        for key, whole, part, why in (
            ("vision_hidden", self.vision_hidden, 4 * self.vision_heads, "four times vision_heads"),
            ("hidden", self.hidden, 2 * self.heads, "twice heads"),
            ("heads", self.heads, self.kv_heads, "kv_heads"),
            # Its config gives the width of the MLP as a multiple.
            ("vision_mlp", self.vision_mlp, self.vision_hidden, "vision_hidden"),
        ):
            if whole % part and (key != "vision_mlp" or self.family == "qwen2_vl"):
                raise UserError(f"{key} must be a multiple of {part} ({why}), got {whole}")
        return self

    @model_validator(mode="after")
    def _small_enough(self) -> Self:
        merged = self.vision_hidden * self.merge_size**2
        weights = self.depth * self.hidden * (4 * self.hidden + 3 * self.mlp)
        weights += self.vision_depth * self.vision_hidden * (4 * self.vision_hidden + 3 * self.vision_mlp)
        weights += merged * (merged + self.hidden) + 3 * self.patch_size**2 * self.vision_hidden
        if weights > MOST_TINY_WEIGHTS:
            raise UserError(
                f"hidden: with the other sizes this makes {weights:.1e} weights, the most is "
                f"{MOST_TINY_WEIGHTS:.0e}; lower them, or start from published weights with model.path"
            )
        return self


class ModelSettings(Node):
    """The policy's start: the embedded tiny model, or pretrained weights from a hub id or a folder.

    ``gradient_checkpointing`` keeps the inputs of layers alone and computes each layer anew in the backward
    pass; ``branch_checkpointing`` keeps the activations of the degraded image's branch and computes those of
    the original's anew, where the degraded one has a gradient.
    """

    form: Literal["tiny", "pretrained"]
    path: FileText | None
    dtype: Literal["float32", "bfloat16", "float64"]
    min_pixels: Count
    max_pixels: Count
    gradient_checkpointing: bool
    freeze_vision: bool
    tiny: TinySettings | None
    branch_checkpointing: bool = False

    @model_validator(mode="after")
    def _form_and_pixels(self) -> Self:
        if self.min_pixels > self.max_pixels:
            raise UserError(f"min_pixels must be at most max_pixels {self.max_pixels}, got {self.min_pixels}")
        if self.form == "tiny" and (self.tiny is None or self.path is not None):
            raise UserError("form tiny needs the tiny sizes and path null; choose the option model=tiny")
        if self.form == "pretrained" and self.path is None:
            raise UserError("path is null; give a folder with weights or a hub id: model.path=...")
        if self.form == "pretrained" and self.tiny is not None:
            raise UserError(
                "tiny must be null with form pretrained; choose an option such as model=checkpoint"
            )
        return self


LinearLayer = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""The linear layers of a block of the language model, by the names that families share."""


class AdapterSettings(Node):
    """Low-rank matrices beside frozen weights: LoRA (arXiv 2106.09685); ``adapter=none`` has no such node.

    A layer of weight W gives ``W x + alpha / rank * B A x``, with B zero at the start. ``targets`` are layers
    of the language model; ``vision`` and ``merger`` add all linear layers of the vision tower and of what
    leads from it to the language model. ``lr_factor`` times ``optimizer.lr`` is the learning rate. ``qlora``
    keeps the frozen weights in 4 bits (arXiv 2305.14314).
    """

    form: Literal["lora", "qlora"]
    rank: Count
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: list[LinearLayer]
    vision: bool
    merger: bool
    lr_factor: Positive

    @model_validator(mode="after")
    def _adapts_something(self) -> Self:
        if not (self.targets or self.vision or self.merger):
            raise UserError("targets must name a layer, or set vision or merger to true, got []")
        if len(set(self.targets)) != len(self.targets):
            raise UserError(f"targets must differ from each other, got {self.targets}")
        return self


def _absent(value: object) -> object:
    return None if value == {} else value


Adapter = Annotated[AdapterSettings | None, BeforeValidator(_absent)]
"""None, also written ``{}``: all weights are trained."""
