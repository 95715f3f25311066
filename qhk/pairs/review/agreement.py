"""How far reviewers agree: per cent, Cohen's kappa for two, Krippendorff's alpha for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

Ratings = Mapping[str, str]
"""One pair's verdicts by reviewer; who gave none is absent."""


@dataclass(frozen=True, kw_only=True)
class PairAgreement:
    """Two reviewers over the ``n`` pairs that both gave a verdict on.

    ``fraction`` of equal verdicts in [0, 1], None without a common pair; ``kappa`` is None where chance
    alone explains everything, which it does when both gave one and the same verdict throughout.
    """

    first: str
    second: str
    n: int
    fraction: float | None
    kappa: float | None


def pairwise_agreement(items: Sequence[Ratings]) -> list[PairAgreement]:
    """Return every two reviewers, by name."""
    names = sorted({name for ratings in items for name in ratings})
    return [_between(items, first, second) for first, second in combinations(names, 2)]


def _between(items: Sequence[Ratings], first: str, second: str) -> PairAgreement:
    both = [(r[first], r[second]) for r in items if first in r and second in r]
    n = len(both)
    fraction = sum(a == b for a, b in both) / n if n else None
    return PairAgreement(first=first, second=second, n=n, fraction=fraction, kappa=cohen_kappa(both))


def cohen_kappa(both: Sequence[tuple[str, str]]) -> float | None:
    """Return (p_observed - p_chance) / (1 - p_chance) over the verdicts of two reviewers, in [-1, 1].

    None without a pair and where p_chance is 1. Source: Cohen 1960.
    """
    n = len(both)
    if n == 0:
        return None
    first, second = Counter(a for a, _ in both), Counter(b for _, b in both)
    chance = sum(first[verdict] * second[verdict] for verdict in first) / n**2
    observed = sum(a == b for a, b in both) / n
    return None if chance == 1 else (observed - chance) / (1 - chance)


def krippendorff_alpha(items: Sequence[Ratings]) -> float | None:
    """Return 1 - D_observed / D_expected for nominal verdicts of any number of reviewers, at most 1.

    Items with one verdict do not count. None where nothing can be compared, and where all verdicts are
    the same. Source: Krippendorff 2011, Computing Krippendorff's alpha-reliability, part C.
    """
    totals: Counter[str] = Counter()
    observed = 0.0
    for ratings in items:
        counts, m = Counter(ratings.values()), len(ratings)
        if m < 2:
            continue
        totals.update(counts)
        observed += (m * m - sum(count * count for count in counts.values())) / (m - 1)
    n = sum(totals.values())
    expected = n * n - sum(count * count for count in totals.values())
    return None if expected == 0 else 1 - (n - 1) * observed / expected
