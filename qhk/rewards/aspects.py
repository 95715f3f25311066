"""PreResQ-R1's rewards for sub-scores, on plain numbers: for the multi-aspect task (five an answer)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import median


def response_penalty(aspects: Sequence[float], *, deviation: float, strength: float) -> float:
    """``max(0, strength (deviation - s))``, s the population standard deviation of an answer's sub-scores.

    To be subtracted: it punishes sub-scores that are all alike. At least one sub-score. For the multi-aspect
    task. Source: release, both constants 0.5, so in [0, 0.25].
    """
    mean = math.fsum(aspects) / len(aspects)
    spread = math.sqrt(math.fsum((aspect - mean) ** 2 for aspect in aspects) / len(aspects))
    return max(0.0, strength * (deviation - spread))


def triplet_balance(
    answers: Sequence[Sequence[float]], *, margin: float, strength: float, skip_last: bool
) -> list[float]:
    """Per answer of one group, ``strength`` times how often it lies within ``margin`` of a triplet's median.

    ``answers`` (G, D) sub-scores. Over all triplets of answers that hold this one, and over the sub-scores:
    the share of cases in which its sub-score is the median of the three or at most ``margin`` from it. In
    [0, strength]; 0 for all where G < 3. ``skip_last`` leaves the last sub-score out, as the release does;
    D >= 2 then. For the multi-aspect task. Source: release, margin 0.05, strength 0.5.
    """
    columns = [list(column) for column in zip(*answers, strict=True)]
    columns = columns[:-1] if skip_last else columns
    gains = [0] * len(answers)
    for column in columns:
        for triplet in combinations(range(len(answers)), 3):
            middle = median(column[answer] for answer in triplet)
            for answer in triplet:
                gains[answer] += abs(column[answer] - middle) <= margin
    cases = math.comb(len(answers) - 1, 2) * len(columns) if len(answers) > 2 else 1
    return [strength * gain / cases for gain in gains]
