"""Prompts dealt out so that processes, and micro-batches, have about as many tokens each."""

from __future__ import annotations

from collections.abc import Sequence

WORTH = 0.9
"""The largest part must come to at most this share of what it was, else no place is moved."""

LEAST_TOKENS = 256
"""Nor is one moved to save fewer tokens than these: where steps are that small, no bit of a run changes."""

LEAST_PIXELS = LEAST_TOKENS * 28**2
"""The same in pixels of pictures, of which 28 x 28 make a token of most models."""


def deal(sizes: Sequence[float], capacities: Sequence[int], *, least: float) -> list[list[int]]:
    """Return the places of all ``sizes`` (>= 0) in parts of given numbers, the largest part's sum kept low.

    ``capacities`` add up to the number of sizes. Largest first, each goes to the part that has least so far
    and room left (longest processing time first, Graham, SIAM J. Appl. Math. 17(2), 1969); within a part
    places ascend. Where that lowers the largest sum by little (``WORTH``, and by less than ``least``), the
    parts are the places in their order.
    """
    assert sum(capacities) == len(sizes)
    places = iter(range(len(sizes)))
    plain = [[next(places) for _ in range(capacity)] for capacity in capacities]
    parts: list[list[int]] = [[] for _ in capacities]
    sums = [0.0] * len(capacities)
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        part = min(
            (part for part, capacity in enumerate(capacities) if len(parts[part]) < capacity),
            key=lambda part: sums[part],
        )
        parts[part].append(place)
        sums[part] += sizes[place]
    before, after = largest_sum(sizes, plain), largest_sum(sizes, parts)
    is_worth_it = after <= WORTH * before and before - after >= least
    return [sorted(part) for part in parts] if is_worth_it else plain


def largest_sum(sizes: Sequence[float], parts: Sequence[Sequence[int]]) -> float:
    """Return the sum of the sizes of the part where it is largest; 0 for no part."""
    return max((sum(sizes[place] for place in part) for part in parts), default=0.0)
