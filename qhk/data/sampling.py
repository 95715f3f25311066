"""Which example stands where in a run, as a pure function of (seed, step): no cursor to save or restore.

Draws are numbered from 0 over the whole run; step ``s`` holds draws ``s * B`` to ``(s + 1) * B - 1``. An
epoch is N draws, N being the sum of the sets' sizes. Within an epoch every set gets its share of the N
draws by weight (to the nearest whole number), in a seeded order. Each set is walked in seeded passes
without replacement, and a pass carries on into the next epoch where the share is not a whole pass. So
one set alone is seen exactly once per epoch, and so is every set of a mixture whose weights are the
sets' sizes (plain concatenation).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qhk.data.seeds import stream_generator
from qhk.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One draw: which set, which of its examples, and in which pass over the set (from 0)."""

    dataset: str
    index: int
    epoch: int


def step_indices(
    seed: int, step: int, *, sizes: Mapping[str, int], weights: Mapping[str, float], prompts_per_step: int
) -> list[Draw]:
    """Return the ``prompts_per_step`` draws of a step.

    ``sizes`` (>= 1) and ``weights`` (> 0) have the same keys; only the weights' ratios matter, and the
    order of the keys does not. Raises ``UserError`` on other input.
    """
    _check(sizes, weights)
    names = sorted(sizes)
    epoch_length = sum(sizes.values())
    quotas = epoch_quotas(sizes, weights)
    draws: list[Draw] = []
    position, end = step * prompts_per_step, (step + 1) * prompts_per_step
    while position < end:
        epoch, first = divmod(position, epoch_length)
        last = min(epoch_length, first + end - position)
        order = _epoch_order(seed, epoch, names, quotas)
        for place in range(first, last):
            name = names[order[place]]
            earlier = int((order[:place] == order[place]).sum())
            draws.append(_within_set(seed, name, epoch * quotas[name] + earlier, sizes[name]))
        position += last - first
    return draws


def set_order(seed: int, name: str, epoch: int, size: int) -> NDArray[np.int64]:
    """Return the order in which pass ``epoch`` visits the ``size`` examples of a set: a permutation."""
    return stream_generator(seed, "order", name, epoch).permutation(size)


def epoch_quotas(sizes: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """Return how many of an epoch's draws each set gets: shares by weight, largest remainders rounded up.

    The quotas add up to the sum of ``sizes``; ties go to the name that sorts first.
    """
    _check(sizes, weights)
    total, weight_sum = sum(sizes.values()), math.fsum(weights.values())
    exact = {name: total * weights[name] / weight_sum for name in sorted(sizes)}
    quotas = {name: math.floor(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (quotas[name] - exact[name], name))
    for name in by_remainder[: total - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


def _epoch_order(seed: int, epoch: int, names: Sequence[str], quotas: Mapping[str, int]) -> NDArray[np.int64]:
    """For each draw of the epoch, the number of its set."""
    numbers = np.repeat(np.arange(len(names)), [quotas[name] for name in names])
    return stream_generator(seed, "mixture", epoch).permutation(numbers)


def _within_set(seed: int, name: str, count: int, size: int) -> Draw:
    epoch, place = divmod(count, size)
    return Draw(dataset=name, index=int(set_order(seed, name, epoch, size)[place]), epoch=epoch)


def _check(sizes: Mapping[str, int], weights: Mapping[str, float]) -> None:
    if not sizes or set(sizes) != set(weights):
        raise UserError(f"data names {sorted(weights)}, the loaded sets are {sorted(sizes)}: they must agree")
    for name in sizes:
        if sizes[name] < 1:
            raise UserError(f"data: {name} has no training image: remove it or check its split")
        if not (math.isfinite(weights[name]) and weights[name] > 0):
            raise UserError(f"data: {name} must be a weight > 0, got {weights[name]}")
