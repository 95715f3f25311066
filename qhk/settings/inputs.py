"""Settings of what goes in: paths, model, data, degraded twins, task and prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from qhk.errors import UserError
from qhk.plain import show_value
from qhk.settings.base import (
    MOST,
    Count,
    FileText,
    Fraction,
    Node,
    NumOrZero,
    Positive,
    Scalar,
    Schedule,
    Text,
    Threads,
)
from qhk.tasks import build_task

DegradationKind = Literal["noise", "blur", "jpeg", "darken", "grey", "mask", "crop"]

STRENGTHS = {
    "noise": (0.0, 255.0),
    "blur": (0.0, 100.0),
    "jpeg": (1.0, 95.0),
    "darken": (0.0, 1.0),
    "grey": (0.0, 1.0),
    "mask": (0.0, 1.0),
    "crop": (0.0, 0.99),
}
"""Least and largest strength of a kind; ``qhk.data.degrade`` says what they are."""


class PathsSettings(Node):
    """Where runs, caches and real downloads live; relative paths start at the current directory."""

    outputs: FileText
    cache: FileText
    datasets: FileText


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


class ExpectedSettings(Node):
    """Numbers that the files of a published set can be held against; null or empty where none are known.

    ``rows`` counts labelled images, ``low`` and ``high`` are the extremes of the native scores to within
    ``tolerance``, ``references`` counts contents (null: every image is its own). ``ratings`` is how many
    opinions the mean of an image is of, 1 where the spread in the label files is already that of the mean.
    ``parts`` holds, by protocol, the images of each split. ``unlabelled`` counts images that have no row by
    design, ``formats`` labelled images by file format. ``size`` is the (width, height) that all have,
    ``median_side`` the pixels that the median of their shorter sides exceeds. ``traps`` tells by a number of
    rows which other download it belongs to, ``hint`` what goes wrong most easily. ``by_option`` holds what
    differs by the value of an option: option -> value -> keys of this node.
    """

    rows: Count | None = None
    low: float | None = None
    high: float | None = None
    tolerance: Positive = 1e-9
    references: Count | None = None
    parts: dict[str, dict[str, Count]] = {}
    unlabelled: NumOrZero = 0
    formats: dict[str, Count] = {}
    ratings: Positive | None = None
    size: Annotated[tuple[Count, Count], Field(strict=False)] | None = None
    median_side: Count | None = None
    traps: dict[str, str] = {}
    hint: str = ""
    by_option: dict[str, dict[str, dict[str, Any]]] = {}

    def under(self, options: Mapping[str, Scalar]) -> ExpectedSettings:
        """Return these numbers as they are for a set that is read with ``options``."""
        chosen = (values.get(str(options.get(key)), {}) for key, values in self.by_option.items())
        changes = {key: value for change in chosen for key, value in change.items()}
        return ExpectedSettings.model_validate({**self.model_dump(), **changes})

    def of_protocol(self, protocol: str) -> Mapping[str, int] | None:
        """Return the images of each split under a protocol, None where they are not known."""
        if protocol == "all" and self.rows is not None:
            return {"test": self.rows}
        return self.parts.get(protocol)


class DatasetSettings(Node):
    """One set: who reads it, where it lies, and how native scores map to [1, 5].

    ``adapter`` names a module of ``qhk.data.adapters``. ``root`` and ``higher_is_better`` are null where only
    the user can know them; they are asked for when the entry is used. A set with labels and no scores has
    null for ``normalisation``, ``bounds`` and ``higher_is_better``. Of a miniature set, ``root`` is the name
    of the generated set, not a path. ``expected`` and ``sources`` say what is known of it and change no
    result. ``roots`` are folders outside ``root`` to which absolute paths in its label files may lead.
    """

    adapter: Text
    root: FileText | None
    roots: list[FileText] = []
    protocol: Text
    normalisation: Literal["whole_set", "train_part", "given", "published"] | None
    bounds: Annotated[tuple[float, float], Field(strict=False)] | None
    higher_is_better: bool | None
    miniature: bool
    options: dict[str, Scalar]
    expected: ExpectedSettings | None = None
    sources: list[Text] = []

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.bounds is not None and self.bounds[0] >= self.bounds[1]:
            raise UserError(f"bounds must be [lowest, highest], got {list(self.bounds)}")
        return self


class LoadingSettings(Node):
    """How training sets are read: their split, how many images, and the part held back for validation.

    With ``validation_fraction`` 0 nothing is, and the last checkpoint counts as the best. ``keep_encoded``
    and ``keep_features`` are the most MiB of memory, of each process, for what was made of pictures and can
    serve again in later passes; 0 keeps nothing.
    """

    split: Text
    validation_fraction: Annotated[float, Field(ge=0, le=0.5)]
    validation_limit: Count | None
    limit: Count | None
    augmentation: Literal["none", "flip", "dihedral"]
    workers: Threads
    keep_encoded: Annotated[int, Field(ge=0, le=MOST)] = 0
    keep_features: Annotated[int, Field(ge=0, le=MOST)] = 0


class FramingSettings(Node):
    """What of a picture is shown, in training and wherever the policy is asked: see ``qhk.data.framing``."""

    form: Literal["whole", "crop", "fragments"]
    side: Annotated[int, Field(ge=8, le=MOST_SIDE)] | None
    pieces: Annotated[int, Field(ge=2, le=MOST_SIDE)] | None

    @model_validator(mode="after")
    def _form_has_its_sizes(self) -> Self:
        for key, value, forms in (
            ("side", self.side, ("crop", "fragments")),
            ("pieces", self.pieces, ("fragments",)),
        ):
            if self.form in forms and value is None:
                raise UserError(
                    f"{key} must be a number with form {self.form}, got null; choose framing={self.form}"
                )
            if self.form not in forms and value is not None:
                raise UserError(
                    f"{key} {value} has no effect with form {self.form}; choose framing={forms[-1]}"
                )
        return self

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height of what is shown of a picture of that size."""
        if self.side is None:
            return width, height
        number = self.pieces or 1
        return number * min(self.side, width), number * min(self.side, height)

    @property
    def shown_side(self) -> int | None:
        """The pixels of each side that are shown of a picture which has them; None for all there are."""
        return None if self.side is None else self.side * (self.pieces or 1)


WHOLE = FramingSettings(form="whole", side=None, pieces=None)
"""Pictures as they are."""


class BenchmarkSettings(Node):
    """How one set is reported on; ``limit`` keeps that many images, drawn by the seed, null keeps all."""

    split: Text = "test"
    limit: Count | None = None


def _by_name(value: object, usual: object) -> dict[str, object]:
    """Return a list of set names, each a name or ``{name: value}``, as one mapping of names to values.

    A single name stands for a list of one; ``usual`` is the value of a bare name. Raises UserError at a set
    that is named twice, and at what is no name.
    """
    named: dict[str, object] = {}
    for item in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(item, str | Mapping):
            raise UserError(f"must name sets, such as koniq or {{koniq: ...}}, got {show_value(item)}")
        if isinstance(item, str) and ":" in item:
            head, _, rest = item.partition(":")
            written = f"[{{{head}: {rest.strip()}}}]"
            raise UserError(f"{item!r} names no set; one with a value of its own is written {written}")
        for name, own in ({item: usual} if isinstance(item, str) else item).items():
            if name in named:
                raise UserError(f"names {name} twice; keep one of them")
            named[name] = own
    return named


Data = Annotated[
    dict[str, Positive], Field(min_length=1), BeforeValidator(lambda value: _by_name(value, 1.0))
]
"""Training sets with their weights, written ``[koniq, spaq]`` or ``[{koniq: 7046}, {spaq: 8897}]``.

Only the ratios of the weights matter; a bare name weighs 1.
"""

Benchmarks = Annotated[dict[str, BenchmarkSettings], BeforeValidator(lambda value: _by_name(value, {}))]
"""Sets to report on, written ``[koniq, spaq]`` or ``[{koniq: {limit: 100}}]``."""


class TwinSettings(Node):
    """Where an image's degraded copy comes from: made on the fly, another image, or prepared pairs.

    Of ``another`` image and of a manifest, kinds and strengths are not read.
    """

    form: Literal["generated", "manifest", "another"]
    kinds: Annotated[list[DegradationKind], Field(min_length=1)]
    strengths: dict[str, float]
    strength_schedule: Schedule
    resample: Literal["fixed", "each_epoch"]
    manifest: FileText | None
    missing: Literal["refuse", "leave_out"]

    @model_validator(mode="after")
    def _source_is_complete(self) -> Self:
        if self.form == "manifest" and self.manifest is None:
            raise UserError(
                "form manifest needs manifest: a file of prepared pairs; or choose twin=generated"
            )
        constant = self.strength_schedule.form == "constant" and self.strength_schedule.until is None
        warmup = self.strength_schedule.warmup
        if self.form != "generated" and not (constant and not (warmup.steps or warmup.epochs)):
            raise UserError(
                f"strength_schedule has no effect with form {self.form}; leave it constant "
                "without warm-up, or choose twin=generated"
            )
        if len(set(self.kinds)) != len(self.kinds):
            raise UserError(f"kinds must differ from each other, got {self.kinds}")
        missing = [kind for kind in self.kinds if kind not in self.strengths]
        if missing:
            raise UserError(f"strengths lacks {', '.join(missing)}; give a strength for every one of kinds")
        return self

    @model_validator(mode="after")
    def _strengths_in_range(self) -> Self:
        for kind, value in self.strengths.items():
            if kind not in STRENGTHS:
                raise UserError(f"strengths.{kind} must be one of {', '.join(STRENGTHS)}; remove it")
            low, high = STRENGTHS[kind]
            if not low <= value <= high:
                raise UserError(f"strengths.{kind} must lie in [{low:g}, {high:g}], got {value}")
        jpeg = self.strengths.get("jpeg", 1.0)
        if jpeg != int(jpeg):
            raise UserError(f"strengths.jpeg must be a whole number, a JPEG quality, got {jpeg}")
        return self


class TaskSettings(Node):
    """What is asked of the policy, the rule by which the parser reads its answers, and their range."""

    form: Text
    answer_rule: Text
    low: float
    high: float

    @model_validator(mode="after")
    def _is_a_task(self) -> Self:
        build_task(self)
        if self.low >= self.high:
            raise UserError(f"low must be below high, got {self.low} and {self.high}")
        return self


class PromptSettings(Node):
    """The wording; ``task`` names the task it was written for.

    ``wordings`` are further ways to ask for the same answer: training asks about an image in another way in
    every pass, evaluation in that of ``user`` alone.
    """

    task: Text
    system: str | None
    user: Text
    answer_decimals: Annotated[int, Field(ge=0, le=4)]
    wordings: list[Text] = []

    @property
    def texts(self) -> list[str]:
        """All ways in which training asks, the named one first."""
        return [self.user, *self.wordings]

    @model_validator(mode="after")
    def _wordings_differ(self) -> Self:
        for place, text in enumerate(self.wordings, start=1):
            if text in self.texts[:place]:
                raise UserError(f"wordings: number {place} is there already, or is user; leave it out")
        return self
