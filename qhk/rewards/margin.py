"""MR-IQA: how well an answer's distance to the other images' scores is the true one (arXiv 2606.29760)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from qhk.errors import UserError
from qhk.rewards.batch import ScoredGroup, comparable

Scale = Literal["unit", "opinions"]
"""What a margin's error is measured by: one point of the scale, or the spread of both images' opinions."""

SMALLEST_SCALE = 1e-4


def margin(
    groups: Sequence[ScoredGroup], *, scale: Scale, low: float, high: float, alone: float
) -> list[list[float]]:
    """Return for every answer q the mean over the other images j of its data set of

    ``exp(-((q - mean_j) - (y - y_j))^2 / (2 s^2))``, in [0, 1],

    with ``mean_j`` the mean of the parsed scores of j and y, y_j the opinions in points of [1, 5]. ``scale``:

    unit      ``s = 1``
    opinions  ``s = max(sqrt(sd^2 + sd_j^2), 1e-4)`` of the standard deviations of the opinions

    One value per completion per group; the same number added to all scores changes nothing, so that the
    reward asks for differences and not for the scale, but a score outside ``[low, high]`` counts as not read.
    Such an answer earns 0, one whose image has no other image of its set to meet ``alone`` (0 in the
    release). Raises ``UserError`` where ``opinions`` meets an image without a spread; the release takes 1
    there.

    Source: paper and release; there a process compares its own images, here the whole step. Not taken over:
    images of several sets are compared there.
    """
    rewards = [[0.0] * len(group.scores) for group in groups]
    groups = [
        replace(
            group,
            scores=tuple(None if s is None or not low <= s <= high else s for s in group.scores),
        )
        for group in groups
    ]
    for members in comparable(groups):
        means = {index: math.fsum(groups[index].parsed) / len(groups[index].parsed) for index in members}
        for index in members:
            own, others = groups[index], [other for other in members if other != index]
            scales = [_scale(own, groups[other], scale) for other in others]
            for place, score in enumerate(own.scores):
                if score is None:
                    continue
                errors = [(score - means[other]) - (own.mos - groups[other].mos) for other in others]
                values = [math.exp(-0.5 * (error / s) ** 2) for error, s in zip(errors, scales, strict=True)]
                rewards[index][place] = math.fsum(values) / len(values) if values else alone
    return rewards


def _scale(one: ScoredGroup, other: ScoredGroup, scale: Scale) -> float:
    if scale == "unit":
        return 1.0
    spreads = []
    for group in (one, other):
        if group.mos_std is None:
            raise UserError(
                f"scale opinions needs the spread of opinions, which {group.dataset} does not tell for "
                f"{group.id}; choose scale unit, or sets that have it"
            )
        spreads.append(group.mos_std)
    return max(math.hypot(*spreads), SMALLEST_SCALE)
