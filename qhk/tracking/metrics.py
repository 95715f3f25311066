"""One step's metrics, gathered from micro-batches and ranks without bias.

Every name is reduced as it was declared. A mean is kept as sum and count until the end, so that a
short micro-batch does not weigh as much as a full one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from qhk.errors import UserError
from qhk.tracking.names import Reduction, find_metric


@dataclass(frozen=True)
class Partial:
    """The part of a metric seen so far: a sum over ``count`` items for a mean, else the kept value."""

    value: float
    count: float

    def merged(self, later: Partial, reduction: Reduction) -> Partial:
        """Return both parts as one; for a largest or smallest value a NaN on either side stays NaN."""
        count = self.count + later.count
        match reduction:
            case Reduction.MEAN:
                return Partial(self.value + later.value, count)
            case Reduction.LAST:
                return Partial(later.value, count)
        if math.isnan(self.value) or math.isnan(later.value):
            return Partial(math.nan, count)
        pick = max if reduction is Reduction.MAX else min
        return Partial(pick(self.value, later.value), count)

    def result(self, reduction: Reduction) -> float:
        """Return the metric's value; the mean of no items is NaN."""
        if reduction is not Reduction.MEAN:
            return self.value
        return self.value / self.count if self.count else math.nan


@dataclass
class MetricSet:
    """Metrics of one step by name. Undeclared names raise ``UserError`` as soon as they are added."""

    parts: dict[str, Partial] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Add one value, which for a mean counts as one item."""
        self._merge(name, Partial(float(value), 1.0))

    def add_sum(self, name: str, total: float, count: float) -> None:
        """Add ``count`` (maybe 0) items of a mean by their sum; other reductions raise ``UserError``."""
        reduction = find_metric(name).reduction
        if reduction is not Reduction.MEAN:
            raise UserError(f"metric {name!r} is reduced by {reduction}, so it takes values, not sums")
        self._merge(name, Partial(float(total), float(count)))

    def merge(self, later: MetricSet) -> None:
        """Take in the metrics of a later micro-batch, or of the next rank in rank order."""
        for name, part in later.parts.items():
            self._merge(name, part)

    def values(self) -> dict[str, float]:
        """Return the reduced values by name, in the order of first addition."""
        return {name: part.result(find_metric(name).reduction) for name, part in self.parts.items()}

    def state(self) -> list[tuple[str, float, float]]:
        """Return plain rows (name, value, count), which a rank can send to another."""
        return [(name, part.value, part.count) for name, part in self.parts.items()]

    @classmethod
    def from_state(cls, rows: Iterable[tuple[str, float, float]]) -> MetricSet:
        """Return the set whose ``state`` was ``rows``."""
        return cls({name: Partial(value, count) for name, value, count in rows})

    def _merge(self, name: str, part: Partial) -> None:
        reduction = find_metric(name).reduction
        old = self.parts.get(name)
        self.parts[name] = part if old is None else old.merged(part, reduction)
