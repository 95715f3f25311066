"""Settings of what is measured beside a policy's answers: other scorers, and copies that are perturbed."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qhk.errors import UserError
from qhk.settings.base import Count, FileText, Node, Text
from qhk.settings.twin import DegradationKind


class ScorerSettings(Node):
    """Who scores the images: the policy, a measure that needs no model, or a table of anyone's scores.

    Of a table, ``name_column`` names the image as label files do. ``bounds`` are the lowest and highest score
    of its scale, where that is the opinions'; null: the scale means nothing, only the order and the spacing
    of scores do. ``missing`` says what becomes of images without a row. ``label`` is what reports call the
    scorer (null: its form, or the file's name), ``trained_on`` the sets that its authors trained on.
    """

    form: Literal["policy", "brisque", "niqe", "piqe", "table"]
    path: FileText | None = None
    label: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+ -]*$")] | None = None
    name_column: Text = "name"
    score_column: Text = "score"
    higher_is_better: bool = True
    bounds: Annotated[tuple[float, float], Field(strict=False)] | None = None
    missing: Literal["refuse", "leave_out"] = "refuse"
    trained_on: list[Text] = []

    @model_validator(mode="after")
    def _path_is_a_tables(self) -> Self:
        if self.form == "table" and self.path is None:
            raise UserError("path: missing, got null; give a CSV of names and scores: scorer.path=their.csv")
        if self.form != "table" and self.path is not None:
            raise UserError(f"path: has no effect on form {self.form}; choose scorer=table, or leave it out")
        if self.bounds is not None and self.bounds[0] >= self.bounds[1]:
            raise UserError(f"bounds must be [lowest, highest], got {list(self.bounds)}")
        return self


STRENGTHS = 5
"""Strengths of a degradation, and the severities of the library of corruptions."""

CorruptionKind = Literal[
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
    "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
    "speckle_noise", "gaussian_blur", "spatter", "saturate",
]  # fmt: skip


class PerturbationSettings(Node):
    """Which copies of a benchmark's images are scored too, in the headline read-out, against their originals.

    ``images`` of each benchmark; ``degradations`` at five steps up to ``twin.strengths``, ``corruptions`` at
    five severities, and ``replacements`` that leave nothing of the image to see.
    """

    images: Count
    degradations: list[DegradationKind]
    corruptions: list[CorruptionKind]
    replacements: list[Literal["another", "grey"]]

    @property
    def num_copies(self) -> int:
        """The copies of one image; 0 where nothing is perturbed."""
        return STRENGTHS * (len(self.degradations) + len(self.corruptions)) + len(self.replacements)

    @model_validator(mode="after")
    def _kinds_differ(self) -> Self:
        for key in ("degradations", "corruptions", "replacements"):
            kinds = self.__dict__[key]
            if len(set(kinds)) != len(kinds):
                raise UserError(f"{key} must differ from each other, got {kinds}")
        return self


UNPERTURBED = PerturbationSettings(images=40, degradations=[], corruptions=[], replacements=[])
POLICY = ScorerSettings(form="policy")
