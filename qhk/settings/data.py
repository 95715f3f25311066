"""Settings of the images: sets, how they are read and framed, and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from qhk.errors import UserError
from qhk.plain import show_value
from qhk.settings.base import MOST, Count, FileText, Node, NumOrZero, Positive, Scalar, Text, Threads
from qhk.settings.model import MOST_SIDE


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
