"""Is the original scored above its perturbed copy, by how much, and does the score fall as damage grows?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qhk.statistics.bootstrap import Clusters, Interval, bootstrap_interval, resampled_mean
from qhk.statistics.correlation import Array, srcc

SAME = 1e-9
"""Scores that differ by no more are one answer."""


@dataclass(frozen=True, kw_only=True)
class PairedScores:
    """Shares and means over pairs of an original and its copy, each with its interval.

    ``above``: the original is scored above the copy, equal scores half; 0.5 is chance. ``drop``: mean of the
    original's score less the copy's. ``unchanged``: both have one score. NaN without pairs.
    """

    above: tuple[float, Interval]
    drop: tuple[float, Interval]
    unchanged: tuple[float, Interval]


def compare_pairs(
    original: Array, copy: Array, clusters: Clusters, *, num_resamples: int, confidence: float, seed: int
) -> PairedScores:
    """Return how the scores of originals ``(n,)`` compare with those of their copies ``(n,)``.

    Intervals draw whole ``clusters (n,)``, as ``bootstrap.cluster_index`` numbers references.
    """
    difference = original - copy
    same = np.abs(difference) <= SAME

    def mean(values: Array) -> tuple[float, Interval]:
        if not values.size:
            return math.nan, Interval(math.nan, math.nan)
        interval = bootstrap_interval(
            resampled_mean,
            values,
            values,
            clusters=clusters,
            num_resamples=num_resamples,
            confidence=confidence,
            seed=seed,
        )
        return float(values.mean()), interval

    return PairedScores(
        above=mean(np.where(same, 0.5, (difference > 0).astype(np.float64))),
        drop=mean(difference),
        unchanged=mean(same.astype(np.float64)),
    )


def strength_and_drop(strengths: Array, drops: Array) -> float:
    """Return the SRCC of strength ``(m,)`` and drop ``(m,)`` over the copies of all images and strengths.

    1: the score falls with every step, alike for all images. NaN where nothing varies.
    """
    return srcc(strengths, drops)
