"""The keys that single commands have beyond the shared settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qhk.settings import PairsSettings, PathsSettings
from qhk.settings.base import Count, Node, NumOrZero, Text


class EvaluateRequest(Node):
    """``stage``: the stage of the checkpoint's run whose tasks are evaluated; null means its own."""

    stage: Text | None


class ScoreRequest(Node):
    """How ``qhk score`` answers: as a table or JSON lines, from how many completions per image.

    ``stage``: the stage of the checkpoint's run whose task is asked; null means its own.
    """

    stage: Text | None
    format: Literal["table", "json"]
    num_samples: Count


class CheckRequest(Node):
    """What ``qhk data check`` looks at.

    ``root`` stands in for the root of the one set that is named. ``images``: decode every image, read its
    header and bytes only, or skip the images and hold the label files alone against what is expected.
    """

    root: Text | None
    images: Literal["decode", "header", "skip"]
    near_duplicates: bool
    workers: NumOrZero


class ReviewRequest(Node):
    """How ``qhk data review`` serves pairs: from which manifest, where, which of them, in which order."""

    paths: PathsSettings
    pairs: PairsSettings
    port: Annotated[int, Field(ge=0, le=65535)]
    blind: bool
    scope: Literal["to_confirm", "all"]
    types: list[Text]
    order: Literal["manifest", "shuffled", "judge_least_sure"]
    prefetch: Annotated[int, Field(ge=0, le=20)]
