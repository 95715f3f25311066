"""What a reward term is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from qhk.types import Completion, Example

RewardFunction = Callable[[Completion, Example], float]
"""A pure function of one completion and its example, with its settings bound."""


@dataclass(frozen=True)
class Above:
    """Marks a number that must be greater than ``bound``; read where settings are checked."""

    bound: float


Positive = Annotated[float, Above(0.0)]
"""A setting that must be greater than 0."""


@dataclass(frozen=True, kw_only=True)
class RewardTerm:
    """A named, weighted reward: ``name`` becomes a metric's name, ``weight`` multiplies ``function``."""

    name: str
    weight: float
    function: RewardFunction
