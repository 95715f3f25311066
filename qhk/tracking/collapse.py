"""Signs that a policy collapses: what a run's record says, held against the run's own start and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median, stdev

from qhk.tracking.recorder import MetricRow, MetricSection

WINDOW = 10
"""Training steps that are looked at together, at the start and now."""

NARROW = 0.3
"""Share of the start's score entropy; healthy runs of the miniature sets stay above 0.35."""

EQUAL = 0.8
"""Share of groups whose rewards are all equal, so that they teach nothing."""

UNREADABLE = 0.3
"""Share of completions without a readable answer, above the start's."""

FALLEN, FALLEN_ERRORS = 0.1, 3.0
"""How far validation lies below its start, at least: in correlation, and in standard errors."""

NOISE = 4.0
"""Standard deviations of a step, at the start, that a figure must have moved, besides the bounds above."""


def collapse_signs(rows: Sequence[MetricRow], *, first: int, num_images: int) -> dict[str, str]:
    """Return the signs of collapse after the last of ``rows``, name -> what was measured; empty: none.

    ``rows`` is the record of a run; only steps after ``first``, where its stage began, count. ``num_images``
    are those of the smallest validation part, 0 without one. A start and a present are compared, so nothing
    is said of the training steps before there are two windows of them. What healthy runs move as well is no
    sign: fewer distinct scores, a heavier uncertainty weight, another perception KL (``collapse_context``).

    - ``scores``: the entropy of the step's scores fell below ``NARROW`` of what it was
    - ``rewards``: ``EQUAL`` of the groups have equal rewards, and had not at the start
    - ``answers``: ``UNREADABLE`` more of the completions have no answer than at the start
    - ``validation``: a rank correlation lies ``FALLEN`` and ``FALLEN_ERRORS`` standard errors below its first
      value (standard error of Spearman's by Bonett and Wright, 2000)
    - ``reward hacking``: the reward has risen beyond its noise, while the last two validations lie two
      standard errors below the first
    """
    train = [row for row in rows if row.section is MetricSection.TRAIN and row.step > first]
    signs = dict[str, str]()
    fallen = _falls(rows, first=first, num_images=num_images)
    for name, (before, later, errors) in fallen.items():
        if before - later[-1] >= FALLEN and errors[-1] >= FALLEN_ERRORS:
            signs["validation"] = f"{name} {later[-1]:.3f}, {before:.3f} at the start"

    def moved(name: str) -> tuple[float, float, float] | None:
        """The figure at the start and now, and by how many standard deviations of a step it moved."""
        values = [row.metrics[name] for row in train if not math.isnan(row.metrics.get(name, math.nan))]
        if len(values) < 2 * WINDOW:
            return None
        start, now = median(values[:WINDOW]), median(values[-WINDOW:])
        noise = stdev(values[:WINDOW])
        return start, now, (now - start) / noise if noise else math.copysign(math.inf, now - start)

    if found := moved("train/scores/entropy"):
        start, now, sigmas = found
        if now < NARROW * start and sigmas < -NOISE:
            signs["scores"] = f"entropy of the scores {now:.2f} nats, {start:.2f} at the start"
    if found := moved("train/group/equal_reward_frac"):
        start, now, sigmas = found
        if now >= EQUAL and sigmas > NOISE:
            signs["rewards"] = f"{now:.0%} of the groups have equal rewards, {start:.0%} at the start"
    if found := moved("train/parse/failed_frac"):
        start, now, sigmas = found
        if now - start >= UNREADABLE and sigmas > NOISE:
            signs["answers"] = f"{now:.0%} of the completions have no answer, {start:.0%} at the start"
    if found := moved("train/reward/total/mean"):
        start, now, sigmas = found
        both = [name for name, (_, _, errors) in fallen.items() if len(errors) > 1 and min(errors[-2:]) >= 2]
        if sigmas > NOISE / math.sqrt(WINDOW) and both:
            signs["reward hacking"] = f"reward {now:.3f}, {start:.3f} at the start, while {both[0]} fell"
    return signs


def _falls(
    rows: Sequence[MetricRow], *, first: int, num_images: int
) -> dict[str, tuple[float, list[float], list[float]]]:
    """Validation rank correlations: the first, the later ones, their falls in standard errors."""
    series = dict[str, list[float]]()
    for row in rows:
        if row.section is MetricSection.VALIDATION and row.step > first:
            for name, value in row.metrics.items():
                if name.endswith("/srcc"):
                    series.setdefault(name, []).append(0.0 if math.isnan(value) else value)
    return {
        name: (start, later, [(start - value) / _standard_error(start, num_images) for value in later])
        for name, (start, *later) in series.items()
        if later
    }


def _standard_error(correlation: float, num_images: int) -> float:
    """Standard error of Spearman's correlation, on the scale of the correlation itself."""
    on_fisher = math.sqrt((1 + correlation**2 / 2) / max(1, num_images - 3))
    return (1 - correlation**2) * on_fisher


def collapse_context(rows: Sequence[MetricRow], *, first: int) -> str:
    """Return what else helps to judge a collapse, at the start and now, in one line."""
    train = [row.metrics for row in rows if row.section is MetricSection.TRAIN and row.step > first]
    parts = []
    for name, said in (
        ("train/scores/distinct", "distinct scores"),
        ("train/uncertainty/weight/mean", "uncertainty weight"),
        ("train/perception/kl", "perception KL"),
        ("train/reference/kl", "reference KL"),
    ):
        values = [metrics[name] for metrics in train if name in metrics]
        if values:
            parts.append(f"{said} {fmean(values[:WINDOW]):.3g} -> {fmean(values[-WINDOW:]):.3g}")
    return ", ".join(parts)
