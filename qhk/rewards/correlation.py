"""The correlation that a step's images would have, were an answer the score of its image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from qhk.rewards.batch import ScoredGroup, comparable, rounded

Statistic = Literal["srcc", "plcc"]


def batch_correlation(
    groups: Sequence[ScoredGroup], *, statistic: Statistic, alone: float
) -> list[list[float]]:
    """Return for every answer the correlation of scores and opinions over the images of its data set.

    The score of the answer's own image is that answer, that of every other image the mean of its parsed
    scores: ``corr((q, mean_j ...), (y, y_j ...))`` in [-1, 1], the metric itself as a reward. Within a group
    only q differs. ``srcc`` ranks both (ties share the mean of their places), ``plcc`` takes the numbers.

    One value per completion per group. Scores that are all equal, and opinions that are, have no correlation:
    0. An answer that was not read earns 0, one whose set has fewer than three images in the step ``alone``:
    with two, a rank correlation is a comparison. Ours; VisualQuality-R1 and PreResQ-R1 compare pairs.
    """
    rewards = [[0.0] * len(group.scores) for group in groups]
    correlate = _spearman if statistic == "srcc" else _pearson
    for members in comparable(groups):
        means = [math.fsum(groups[index].parsed) / len(groups[index].parsed) for index in members]
        opinions = [groups[index].mos for index in members]
        for own, index in enumerate(members):
            for place, score in enumerate(groups[index].scores):
                if score is None:
                    continue
                scores = [*means[:own], score, *means[own + 1 :]]
                rewards[index][place] = alone if len(members) < 3 else correlate(scores, opinions)
    return rewards


def _spearman(one: Sequence[float], other: Sequence[float]) -> float:
    return _pearson(_ranks(one), _ranks(other))


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the places of ``rounded`` values in their order, from 0; equal ones share the mean of theirs."""
    compared = [rounded(value) for value in values]
    ordered = sorted(compared)
    places: dict[float, list[int]] = {}
    for place, value in enumerate(ordered):
        places.setdefault(value, []).append(place)
    return [(places[value][0] + places[value][-1]) / 2 for value in compared]


def _pearson(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the correlation of two rows of numbers, clipped to [-1, 1]; 0 where one of them is constant."""
    if any(len({rounded(value) for value in values}) == 1 for values in (one, other)):
        return 0.0
    first, second = _centred(one), _centred(other)
    covariance = math.fsum(a * b for a, b in zip(first, second, strict=True))
    scale = math.sqrt(math.fsum(a * a for a in first) * math.fsum(b * b for b in second))
    return min(max(covariance / scale, -1.0), 1.0)


def _centred(values: Sequence[float]) -> list[float]:
    mean = math.fsum(values) / len(values)
    return [value - mean for value in values]
