"""What a reward term is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from qhk.rewards.batch import ScoredGroup
from qhk.types import Completion, Example

CompletionFunction = Callable[[Completion, Example], float]
"""A pure function of one completion and its example, with its settings bound."""

BatchFunction = Callable[[Sequence[ScoredGroup]], list[list[float]]]
"""A pure function of all groups of a step, with its settings bound: one value per completion per group."""


@dataclass(frozen=True)
class Above:
    """Marks a number that must be greater than ``bound``; read where settings are checked."""

    bound: float


Positive = Annotated[float, Above(0.0)]
"""A setting that must be greater than 0."""


@dataclass(frozen=True, kw_only=True)
class CompletionTerm:
    """A named, weighted reward that judges every completion by itself."""

    name: str
    weight: float
    function: CompletionFunction


@dataclass(frozen=True, kw_only=True)
class BatchTerm:
    """A named, weighted reward that compares the completions of a whole step."""

    name: str
    weight: float
    function: BatchFunction


RewardTerm = CompletionTerm | BatchTerm
"""``name`` becomes a metric's name, ``weight`` multiplies what ``function`` gives."""
