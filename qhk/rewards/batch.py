"""What rewards that compare images see of a step: every image's opinion and its answers' scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qhk.types import SCORE_DECIMALS, Answer, Example


@dataclass(frozen=True, kw_only=True)
class ScoredGroup:
    """One image's opinion and the scores of its G completions.

    ``scores`` are finite numbers as parsed, None where nothing was read, in the order of the completions.
    ``aspects`` are the sub-scores behind each score, empty where an answer is one number or was not read.
    ``dataset`` says whose opinion scale ``mos`` (in [1, 5]) comes from: only images of one set are compared.
    ``mos_std`` is the spread of the opinions on that scale, None where the set does not tell it.
    """

    id: str
    dataset: str
    mos: float
    scores: tuple[float | None, ...]
    aspects: tuple[tuple[float, ...], ...] = ()
    mos_std: float | None = None

    def __post_init__(self) -> None:
        assert len(self.aspects) in (0, len(self.scores))
        assert all(score is None or math.isfinite(score) for score in self.scores)

    @property
    def parsed(self) -> list[float]:
        """Return the scores that were read, in the order of the completions."""
        return [score for score in self.scores if score is not None]


def scored_group(example: Example, answers: Sequence[Answer]) -> ScoredGroup:
    """Return what is seen of the answers to an example that has an opinion."""
    return ScoredGroup(
        id=example.id,
        dataset=example.dataset,
        mos=example.opinion,
        scores=tuple(answer.score for answer in answers),
        aspects=tuple(answer.aspects for answer in answers),
        mos_std=example.mos_std,
    )


def comparable(groups: Sequence[ScoredGroup]) -> list[list[int]]:
    """Return the indices of the groups with a score, one list per data set: the images that are compared."""
    sets: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        if group.parsed:
            sets.setdefault(group.dataset, []).append(index)
    return list(sets.values())


def rounded(score: float) -> float:
    """Return a score as it is compared, with ``SCORE_DECIMALS``: one number for means that are equal."""
    return round(score, SCORE_DECIMALS)


def order(one: float, other: float) -> int:
    """Return 1, 0 or -1 where one score is greater than, equal to or less than another, both ``rounded``."""
    one, other = rounded(one), rounded(other)
    return (one > other) - (one < other)
