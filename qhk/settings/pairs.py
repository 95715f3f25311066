"""Settings of degraded pairs (``qhk data degrade | filter | strengthen | build``); no part of a run's id."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qhk.errors import UserError
from qhk.settings.base import Count, FileText, Node, NonNegative, Positive, Text, Threads

Similarity = Annotated[float, Field(gt=0, lt=1)]


class CopySettings(Node):
    """How degraded copies are made: kinds, and their strengths from a level or found for a target SSIM."""

    kinds: Annotated[list[Text], Field(min_length=1)]
    level: Text
    target: Similarity | None
    tolerance: Annotated[float, Field(gt=0, le=0.2)]
    storage: Literal["lossless", "published"]

    @model_validator(mode="after")
    def _kinds_differ(self) -> Self:
        if len(set(self.kinds)) != len(self.kinds):
            raise UserError(f"kinds must differ from each other, got {self.kinds}")
        return self


class StrengthenSettings(CopySettings):
    """How pairs that stayed imperceptible are degraded again, and how often in all."""

    max_degradations: Annotated[int, Field(ge=2, le=5)]


class EndpointSettings(Node):
    """An OpenAI-compatible server: ``url`` is its base, ending in ``/v1``; prices are per million tokens."""

    url: Text | None
    model: Text | None
    api_key_file: FileText | None
    timeout_s: Positive
    attempts: Annotated[int, Field(ge=1, le=20)]
    backoff_s: Positive
    max_backoff_s: Positive
    concurrency: Annotated[int, Field(ge=1, le=1024)]
    requests_per_minute: Count | None
    max_pixels: Count
    image_format: Literal["png", "jpeg"]
    price_input: NonNegative
    price_output: NonNegative
    stop_after_failures: Count


class FilterSettings(Node):
    """Who says which pairs look the same, and how it is asked."""

    judge: Literal["ssim", "policy", "endpoint"]
    threshold: Annotated[float, Field(ge=0, le=1)]
    question: Text
    temperature: NonNegative
    max_new_tokens: Count
    batch_pairs: Count
    limit: Count | None
    endpoint: EndpointSettings

    @model_validator(mode="after")
    def _endpoint_is_complete(self) -> Self:
        if self.judge == "endpoint":
            for key in ("url", "model"):
                if self.endpoint.model_dump()[key] is None:
                    raise UserError(
                        f"endpoint.{key} must be given with judge endpoint, got null; "
                        f"set pairs.filter.endpoint.{key}=..."
                    )
        return self


class BuildSettings(Node):
    """What goes into the built set, and where it is written."""

    output: FileText
    unjudged: Literal["drop", "keep_strengthened", "keep"]
    unpack: FileText | None


class PairsSettings(Node):
    """The manifest that all steps share, and each step. ``levels`` are strengths by name and kind.

    ``roots`` are further folders in which a manifest may name pictures.
    """

    manifest: FileText
    roots: list[FileText] = []
    human_review: Literal["required", "skipped"]
    chain: bool
    rejudge: bool
    workers: Threads
    levels: dict[str, dict[str, float]]
    degrade: CopySettings
    filter: FilterSettings
    strengthen: StrengthenSettings
    build: BuildSettings

    @model_validator(mode="after")
    def _levels_are_known(self) -> Self:
        for step, level in (("degrade", self.degrade.level), ("strengthen", self.strengthen.level)):
            if level not in self.levels:
                raise UserError(f"{step}.level must be one of {', '.join(self.levels)}, got {level!r}")
        return self

    @model_validator(mode="after")
    def _chain_says_who_reviews(self) -> Self:
        if self.chain and self.human_review == "required":
            raise UserError(
                "human_review must be skipped for chain true, got required; a person cannot be run in "
                "between: set pairs.human_review=skipped, or run the steps one by one"
            )
        return self
