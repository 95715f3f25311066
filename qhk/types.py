"""The records that rooms hand to each other. Free of torch, so that data and rewards stay light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MOS_LOW, MOS_HIGH = 1.0, 5.0
"""Bounds of the common opinion scale. Every adapter maps native scores here, once."""

SCORE_DECIMALS = 9
"""Where scores are compared, they are rounded to so many decimals: the last bits of a mean depend on its
terms, so that two means of 2.988 need not be one number."""


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """What is done to an example's pictures as they are read (``data.perturb``).

    ``amount`` is the kind's own number: a degradation's strength, a corruption's severity (1 to 5), 0 for a
    replacement. ``seed`` decides what is random about it.
    """

    family: str
    kind: str
    amount: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question's pictures with what people said of them.

    ``image`` is the first picture that the prompt shows and ``more_images`` the others in their order (a
    comparison's candidates, a video's local frames). ``mos`` lies in [1, 5], higher is better;
    ``mos_native`` and ``higher_is_better`` keep what the label file said; both scores are None where a set
    has labels only. ``reference`` names the content (several distorted copies share one), or is
    None where every image is its own content. ``twin`` is a prepared degraded copy, if there is one.
    ``labels`` holds what other tasks ask about (distortion class, severity, the better image, ...).
    ``perturbation`` is what happens to the pictures as they are read for an answer, None for nothing.
    ``seconds`` says when each picture is shown, where they are a video's; None for one that packs several.
    """

    id: str
    dataset: str
    image: Path
    mos: float | None
    mos_native: float | None
    higher_is_better: bool
    mos_std: float | None = None
    reference: str | None = None
    twin: Path | None = None
    labels: Mapping[str, str | float] = field(default_factory=dict)
    more_images: tuple[Path, ...] = ()
    perturbation: Perturbation | None = None
    seconds: tuple[float | None, ...] = ()

    @property
    def images(self) -> tuple[Path, ...]:
        """All pictures, in the order in which the prompt shows them."""
        return (self.image, *self.more_images)

    @property
    def opinion(self) -> float:
        """The score in [1, 5] of an example that has one."""
        assert self.mos is not None, f"{self.id} has no score"
        return self.mos


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the parser read in one completion.

    ``score`` is the number as written (never clipped), of several sub-scores their mean; ``aspects`` are
    those sub-scores; ``labels`` are the words of an answer in words, by the names of ``Example.labels``.
    A completion without a readable answer has None and nothing else; ``reason`` then says in a word or two
    why, for the log.
    """

    score: float | None
    reason: str = ""
    aspects: tuple[float, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def parsed(self) -> bool:
        return self.score is not None or bool(self.labels)

    @property
    def numbers(self) -> tuple[float, ...]:
        """The numbers as written: the sub-scores, else the one score, if any."""
        return self.aspects or (() if self.score is None else (self.score,))


@dataclass(frozen=True, kw_only=True)
class ScoreDistribution:
    """What a policy might have written in the place of an answer's number, all before it held fixed.

    ``mean`` and ``std`` are on the scale of the scores, ``entropy`` is in nats, of values and not of ways to
    write them; ``mass`` in [0, 1] is the probability of all possible scores together, before they are
    normalised.
    """

    mean: float
    std: float
    entropy: float
    mass: float


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One sampled answer: its text (special tokens removed), what was read in it, and its length.

    ``truncated`` is true when the length limit cut it off, so that no end-of-turn token was sampled.
    ``distribution`` is there where the answer's score is the expected one instead of the one in the text.
    """

    text: str
    answer: Answer
    num_tokens: int
    truncated: bool
    distribution: ScoreDistribution | None = None
