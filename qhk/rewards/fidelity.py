"""VisualQuality-R1: how well an answer ranks its image among the others (arXiv 2505.14460)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qhk.rewards.batch import ScoredGroup, comparable, order
from qhk.rewards.term import Positive

Variance = Literal["estimated", "unit"]
"""The variance of an image's scores: the unbiased estimate over its answers, or 1 (Thurstone's case V)."""

Form = Literal["continuous", "binary"]
"""What a predicted preference earns: its fidelity, or 1 for the true order and 0 for another."""

Opponent = Literal["mean", "responses"]
"""Whom an answer meets: the mean score of the other image, or each of its scores in turn (averaged)."""

Truth = Literal["opinions", "votes"]
"""Which of two images counts as the better one: by opinions, or by the majority of their answers."""


@dataclass(frozen=True, kw_only=True)
class _Image:
    mos: float
    scores: list[float]
    mean: float
    variance: float


def thurstone_fidelity(
    groups: Sequence[ScoredGroup],
    *,
    epsilon: Positive,
    variance: Variance,
    form: Form,
    opponent: Opponent,
    alone: float,
    truth: Truth = "opinions",
) -> list[list[float]]:
    """Return for every answer the mean over the other images z of its data set of

    ``f = sqrt(p t + epsilon) + sqrt((1 - p)(1 - t) + epsilon)``, with
    ``p = Phi((q - mean_z) / sqrt(v + v_z + epsilon))`` the predicted probability that the answer's image is
    the better one, from its score q, and t = 1, 0 or 0.5 where its opinion is greater than, less than or
    equal to that of z. One value per completion per group, in
    ``[2 sqrt(epsilon), sqrt(1 + epsilon) + sqrt(epsilon)]``; the same number added to all scores of all
    images changes nothing.

    Means and variances are over the parsed scores; the variance of a single one is 0. An answer that was not
    read earns 0, one whose image has no other image of its set to meet earns ``alone``; an image without a
    parsed score meets nobody. The release divides by zero for one image and guesses unread scores at random.

    Source: paper and release, epsilon 1e-6 (of the release; the paper leaves it open). The other choices are
    its paper's ablations: ``variance=unit``; ``opponent=responses``, p averaged over the scores of z;
    ``form=binary``, 1 where p lies on the true side of 0.5 (on it for a tie), else 0: the paper's own
    definition of that one was not at hand.

    ``truth=votes`` looks at no opinion: every answer about the one image meets every answer about z, and the
    side with more wins counts as the better image (t 0.5 for as many). Source: the pseudo-preferences of
    EvoQuality (arXiv 2509.25787), which lets a policy compare both images K times, before training; here the
    votes are the scores of the step itself.
    """
    rewards = [[0.0] * len(group.scores) for group in groups]
    for members in comparable(groups):
        images = {index: _image(groups[index], variance) for index in members}
        for index in members:
            others = [image for other, image in images.items() if other != index]
            for place, score in enumerate(groups[index].scores):
                if score is None:
                    continue
                values = [
                    _meet(score, images[index], other, epsilon, form, opponent, truth) for other in others
                ]
                rewards[index][place] = math.fsum(values) / len(values) if values else alone
    return rewards


def _image(group: ScoredGroup, variance: Variance) -> _Image:
    scores = group.parsed
    mean = math.fsum(scores) / len(scores)
    if variance == "unit":
        spread = 1.0
    else:
        spread = math.fsum((score - mean) ** 2 for score in scores) / max(len(scores) - 1, 1)
    return _Image(mos=group.mos, scores=scores, mean=mean, variance=spread)


def _meet(
    score: float,
    own: _Image,
    other: _Image,
    epsilon: float,
    form: Form,
    opponent: Opponent,
    truth: Truth,
) -> float:
    """Return what ``score`` of ``own`` earns against ``other``."""
    scale = math.sqrt(own.variance + other.variance + epsilon)
    met = [other.mean] if opponent == "mean" else other.scores
    p = math.fsum(_normal_cdf((score - value) / scale) for value in met) / len(met)
    better = order(own.mos, other.mos) if truth == "opinions" else _vote(own.scores, other.scores)
    if form == "binary":
        return float(order(p, 0.5) == better)
    t = (1 + better) / 2
    return math.sqrt(p * t + epsilon) + math.sqrt((1 - p) * (1 - t) + epsilon)


def _vote(own: Sequence[float], other: Sequence[float]) -> int:
    """Return 1, 0 or -1 where more, as many or fewer pairs of scores speak for the first image."""
    balance = sum(order(one, two) for one in own for two in other)
    return (balance > 0) - (balance < 0)


def _normal_cdf(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2))
