"""The keys that single commands have beyond the shared settings."""

from __future__ import annotations

from typing import Literal

from qhk.settings.base import Count, Node, NumOrZero, Text


class ScoreRequest(Node):
    """How ``qhk score`` answers: as a table or JSON lines, from how many completions per image."""

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
