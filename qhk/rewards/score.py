"""Rewards for the score: how near the answer is to the human opinion."""

from __future__ import annotations

import math
from typing import Literal

from qhk.errors import UserError
from qhk.rewards.term import Positive
from qhk.types import Completion, Example

NEEDS = dict.fromkeys(("exponential_error", "gaussian_error", "bell_error", "threshold_error"), ("score",))
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
    error = _error(completion, example, low, high, out_of_range)
    return 0.0 if error is None else math.exp(-error / tau)


def gaussian_error(
    completion: Completion,
    example: Example,
    *,
    sigma: Positive,
    low: float,
    high: float,
    out_of_range: OutOfRange,
) -> float:
    """Return ``exp(-(s - y)^2 / (2 sigma^2))`` in [0, 1] for the score s and the opinion y; 0 for no score.

    ``sigma`` is in points of the scale. Flat at the truth, so that near answers earn alike, and steepest at
    an error of sigma. Scores outside ``[low, high]`` as in ``exponential_error``. Source: OmniQuality-R
    (arXiv 2510.10609), which names a Gaussian reward; its sigma was not at hand.
    """
    error = _error(completion, example, low, high, out_of_range)
    return 0.0 if error is None else math.exp(-0.5 * (error / sigma) ** 2)


def bell_error(
    completion: Completion,
    example: Example,
    *,
    width: Positive,
    slope: Positive,
    low: float,
    high: float,
    out_of_range: OutOfRange,
) -> float:
    """Return ``1 / (1 + (|s - y| / width)^(2 slope))`` in [0, 1] of score s and opinion y; 0 for no score.

    ``width``, in points of the scale, is the error that earns 0.5; ``slope`` says how sharply it falls there:
    large ones come near ``threshold_error``. Unlike a Gaussian's, its tail still tells a far answer from a
    farther one. Scores outside ``[low, high]`` as in ``exponential_error``. Source: the generalised bell
    function; VQAThinker (arXiv 2508.06051) has a bell-shaped reward, whose own formula was not at hand.
    """
    error = _error(completion, example, low, high, out_of_range)
    return 0.0 if error is None else 1.0 / (1.0 + _power(error / width, 2.0 * slope))


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
    error = _error(completion, example, low, high, out_of_range)
    return float(error is not None and error < threshold)


def _error(
    completion: Completion, example: Example, low: float, high: float, out_of_range: OutOfRange
) -> float | None:
    """Return how far the score is from the opinion, None where there is none that counts."""
    opinion, score = _opinion(example), _score(completion, low, high, out_of_range)
    if score is None:
        return None
    return abs(score - (min(max(opinion, low), high) if out_of_range == "clip" else opinion))


def _power(base: float, exponent: float) -> float:
    """Return a power of a number >= 0, infinity where it is too large for a float."""
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


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
