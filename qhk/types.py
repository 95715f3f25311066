"""The records that rooms hand to each other. Free of torch, so that data and rewards stay light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MOS_LOW, MOS_HIGH = 1.0, 5.0
"""Bounds of the common opinion scale. Every adapter maps native scores here, once."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One image with its human opinion.

    ``mos`` lies in [1, 5], higher is better; ``mos_native`` and ``higher_is_better`` keep what the
    label file said. ``reference`` names the content (several distorted copies share one), or is
    None where every image is its own content. ``twin`` is a prepared degraded copy, if there is one.
    ``labels`` holds what other tasks ask about (distortion class, severity, ...).
    """

    id: str
    dataset: str
    image: Path
    mos: float
    mos_native: float
    higher_is_better: bool
    mos_std: float | None = None
    reference: str | None = None
    twin: Path | None = None
    labels: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the parser read in one completion.

    ``score`` is the number as written (never clipped), or None when the completion holds no
    readable answer. ``reason`` says in a word or two why it could not be read, for the log.
    """

    score: float | None
    reason: str = ""

    @property
    def parsed(self) -> bool:
        return self.score is not None


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One sampled answer: its text (special tokens removed), what was read in it, and its length.

    ``truncated`` is true when the length limit cut it off, so that no end-of-turn token was sampled.
    """

    text: str
    answer: Answer
    num_tokens: int
    truncated: bool
