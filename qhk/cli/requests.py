"""The keys that single commands have beyond the shared settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qhk.settings.base import Count, Node, NumOrZero, Positive, Text


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


class SweepRequest(Node):
    """Which runs of a sweep: of one cell, of one seed; null means all."""

    cell: Text | None
    only_seed: NumOrZero | None


class SweepStatusRequest(Node):
    """``watch`` shows the table live, every ``interval_s`` seconds, until nothing is active any more."""

    watch: bool
    interval_s: Positive


class SweepResumeRequest(SweepRequest):
    """``code``: what the sweep was frozen with, or a new copy of the present code."""

    code: Literal["frozen", "current"]


class SweepLogsRequest(SweepRequest):
    """``lines`` of each log's end."""

    lines: Count


class ReviewRequest(Node):
    """How ``qhk data review`` serves pairs: where, to whom hidden what, which pairs, in which order."""

    port: Annotated[int, Field(ge=0, le=65535)]
    blind: bool
    scope: Literal["to_confirm", "all"]
    types: list[Text]
    order: Literal["manifest", "shuffled", "judge_least_sure"]
    prefetch: Annotated[int, Field(ge=0, le=20)]
