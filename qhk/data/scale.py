"""The one place where native opinion scores become MOS in [1, 5], higher is better."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from qhk.types import MOS_HIGH, MOS_LOW


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear map of a native scale to [1, 5]: ``low`` and ``high`` are native, ``low < high``."""

    low: float
    high: float
    higher_is_better: bool

    def mos(self, native: float) -> float:
        """MOS in [1, 5] for ``low <= native <= high``: 1 + 4 (s - low) / (high - low), mirrored for DMOS."""
        share = (native - self.low) / (self.high - self.low)
        share = share if self.higher_is_better else 1.0 - share
        return MOS_LOW + (MOS_HIGH - MOS_LOW) * share

    def deviation(self, native: float | None) -> float | None:
        """A native standard deviation in units of the [1, 5] scale; None stays None."""
        return None if native is None else (MOS_HIGH - MOS_LOW) * native / (self.high - self.low)


def fit_scale(
    scores: Iterable[float],
    *,
    name: str,
    normalisation: str,
    bounds: tuple[float, float] | None,
    higher_is_better: bool,
) -> Scale:
    """The scale of a set from the native ``scores`` of the whole set, before it is split.

    ``whole_set``: the extremes seen in ``scores`` map to 1 and 5 (the convention of the DeQA-Score
    metas; the map cannot be recovered from a subset). ``given``: ``bounds`` map to 1 and 5. In both
    cases ``bounds``, where given, are also the range that every score must lie in. Raises
    ``ValueError`` when ``given`` has no bounds, or when all scores are equal.
    """
    if normalisation == "given":
        if bounds is None:
            raise ValueError(
                f"dataset.{name}.bounds is null: normalisation=given needs the native [low, high]"
            )
        low, high = bounds
    elif normalisation == "whole_set":
        seen = list(scores)
        low, high = min(seen), max(seen)
    else:
        raise ValueError(f"dataset.{name}.normalisation must be whole_set or given, got {normalisation!r}")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            f"dataset.{name}: native scores run from {low} to {high}: give bounds with low < high"
        )
    return Scale(low=low, high=high, higher_is_better=higher_is_better)
