"""Rewards for the score: how near the answer is to the human opinion."""

from __future__ import annotations

import math
from typing import Literal

from qhk.errors import UserError
from qhk.rewards.term import Positive
from qhk.types import Completion, Example

NEEDS = {"exponential_error": ("score",), "threshold_error": ("score",)}
"""What an answer must have, by reward."""

OutOfRange = Literal["clip", "refuse", "keep"]
"""What a score outside [low, high] counts as: the nearest bound, no answer, or itself."""


def exponential_error(
    completion: Completion,
    example: Example,
    *,
    tau: Positive,
    low: float,
    high: float,
    out_of_range: OutOfRange,
) -> float:
    """Return ``exp(-|s - y| / tau)`` in [0, 1] for the score s and the opinion y; 0 where nothing was read.

    ``low`` and ``high`` bound the scale. With ``clip`` both s and y are brought into it (release of
    Q-Hawkeye, tau 0.30), so that 7.9 earns what 5 earns; with ``refuse`` such a score earns 0 (ours); with
    ``keep`` it is compared as it is. Falls as the error grows. ``UserError`` for an example without opinion.
    """
    opinion, score = _opinion(example), _score(completion, low, high, out_of_range)
    if score is None:
        return 0.0
    opinion = min(max(opinion, low), high) if out_of_range == "clip" else opinion
    return math.exp(-abs(score - opinion) / tau)


def threshold_error(
    completion: Completion,
    example: Example,
    *,
    threshold: Positive,
    low: float,
    high: float,
    out_of_range: OutOfRange,
) -> float:
    """Return 1 where ``|s - y| < threshold`` of score s and opinion y, else 0; 0 where nothing was read.

    Scores outside ``[low, high]`` as in ``exponential_error``. Source: Q-Insight (arXiv 2503.22679),
    threshold 0.35, whose release keeps scores as they are. ``UserError`` where the example has no opinion.
    """
    opinion, score = _opinion(example), _score(completion, low, high, out_of_range)
    if score is None:
        return 0.0
    opinion = min(max(opinion, low), high) if out_of_range == "clip" else opinion
    return float(abs(score - opinion) < threshold)


def _opinion(example: Example) -> float:
    """Return the example's opinion; ``UserError`` where it has none, whatever was answered."""
    if example.mos is None:
        raise UserError(
            f"data: example {example.id} of {example.dataset} has no score; "
            "choose a data set that has scores, or a reward made for its labels"
        )
    return example.mos


def _score(completion: Completion, low: float, high: float, out_of_range: OutOfRange) -> float | None:
    score = completion.answer.score
    if score is None or out_of_range == "keep" or low <= score <= high:
        return score
    return None if out_of_range == "refuse" else min(max(score, low), high)
