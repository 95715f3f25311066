"""The one place where native opinion scores become MOS in [1, 5], higher is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qhk.errors import UserError
from qhk.types import MOS_HIGH, MOS_LOW

PUBLISHED_TOLERANCE = 1e-6
"""How far normalised scores in published files may be from the exact map (they are written in full)."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear map of a native scale to [1, 5]: ``low`` and ``high`` are native, ``low < high``."""

    low: float
    high: float
    higher_is_better: bool

    def mos(self, native: float) -> float:
        """Return the MOS in [1, 5] of ``low <= native <= high``.

        ``1 + 4 (native - low) / (high - low)``, mirrored for DMOS.
        """
        share = (native - self.low) / (self.high - self.low)
        share = share if self.higher_is_better else 1.0 - share
        return MOS_LOW + (MOS_HIGH - MOS_LOW) * share

    def deviation(self, native: float | None) -> float | None:
        """Return a native standard deviation in units of the [1, 5] scale; None stays None."""
        return None if native is None else (MOS_HIGH - MOS_LOW) * native / (self.high - self.low)


def fit_scale(
    scores: Sequence[tuple[float, float | None]],
    splits: Sequence[str | None],
    *,
    name: str,
    normalisation: str,
    bounds: tuple[float, float] | None,
    higher_is_better: bool,
) -> Scale:
    """Return the scale of a set from its ``scores``: native, and normalised where the file has that too.

    - ``whole_set``: the extremes of all native scores, before any split, map to 1 and 5 (the convention of
      the DeQA-Score metas; this map cannot be recovered from a subset).
    - ``train_part``: the extremes of the training part do; other parts may reach beyond [1, 5].
    - ``given``: ``bounds`` do.
    - ``published``: the map is read off the pairs of native and normalised score, all of which must agree
      with it to 1e-6.

    Raises ``UserError`` when what the choice needs is not there, or when all scores are equal.
    """
    native = [score for score, _ in scores]
    if normalisation == "given":
        if bounds is None:
            raise UserError(
                f"dataset.{name}.bounds is null: normalisation=given needs the native [low, high]"
            )
        low, high = bounds
    elif normalisation == "whole_set":
        low, high = min(native), max(native)
    elif normalisation == "train_part":
        part = [score for score, split in zip(native, splits, strict=True) if split == "train"]
        if not part:
            raise UserError(
                f"dataset.{name}.normalisation=train_part, but its protocol has no training part: "
                "choose whole_set or given"
            )
        low, high = min(part), max(part)
    else:
        assert normalisation == "published", normalisation
        return _published(scores, name=name, higher_is_better=higher_is_better)
    return _scale(low, high, name=name, higher_is_better=higher_is_better)


def _published(scores: Sequence[tuple[float, float | None]], *, name: str, higher_is_better: bool) -> Scale:
    """The map through the pairs of lowest and highest native score, which must fit all others."""
    pairs = [(score, normalised) for score, normalised in scores if normalised is not None]
    if len(pairs) < max(2, len(scores)):
        raise UserError(
            f"dataset.{name}.normalisation=published, but {len(scores) - len(pairs)} of {len(scores)} rows "
            "have no normalised score: choose whole_set or given"
        )
    (first, first_mos), (last, last_mos) = min(pairs), max(pairs)
    if not (first < last and (last_mos - first_mos > 0) == higher_is_better and first_mos != last_mos):
        raise UserError(
            f"dataset.{name}: normalised scores run from {first_mos} to {last_mos} where native ones run "
            f"from {first} to {last}: check higher_is_better"
        )
    slope = (last - first) / (last_mos - first_mos)
    ends = first + slope * (MOS_LOW - first_mos), first + slope * (MOS_HIGH - first_mos)
    scale = _scale(min(ends), max(ends), name=name, higher_is_better=higher_is_better)
    worst = max(pairs, key=lambda pair: abs(scale.mos(pair[0]) - pair[1]))
    if abs(scale.mos(worst[0]) - worst[1]) > PUBLISHED_TOLERANCE:
        raise UserError(
            f"dataset.{name}: native score {worst[0]} has the normalised score {worst[1]}, the map of the "
            f"others gives {scale.mos(worst[0])}: correct that row, or choose another "
            "normalisation"
        )
    return scale


def _scale(low: float, high: float, *, name: str, higher_is_better: bool) -> Scale:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(
            f"dataset.{name}: native scores run from {low} to {high}: give bounds with low < high"
        )
    return Scale(low=low, high=high, higher_is_better=higher_is_better)
