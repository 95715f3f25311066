"""Settings of the degraded copies of training images."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qhk.errors import UserError
from qhk.settings.base import FileText, Node, Schedule

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
