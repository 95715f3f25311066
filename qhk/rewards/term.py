"""What a reward term is, and what it gives."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

from qhk.errors import UserError
from qhk.plain import show_value
from qhk.rewards.batch import ScoredGroup
from qhk.types import Completion, Example

CompletionFunction = Callable[[Completion, Example], float]
"""A pure function of one completion and its example, with its settings bound."""

CompletionsFunction = Callable[[Sequence[Completion], Sequence[Example]], Sequence[float | None]]
"""A function of many completions and their examples, with its settings bound: a value for each, or None."""

BatchFunction = Callable[[Sequence[ScoredGroup]], list[list[float]]]
"""A pure function of all groups of a step, with its settings bound: one value per completion per group."""


class Judge(ABC):
    """A function of many completions that keeps something from one call to the next, such as a connection.

    A term's ``_target_`` may be a subclass: its settings are the keyword-only parameters of ``__init__``,
    which touches nothing, and every term of a run has an object of its own. ``most_missing`` is how many
    completions of the whole run may stay without a value before the run ends, None for any number.
    """

    most_missing: int | None = None

    @abstractmethod
    def __call__(self, completions: Sequence[Completion], examples: Sequence[Example]) -> list[float | None]:
        """Return a value for each completion, None where there is none."""

    @abstractmethod
    def check(self) -> None:
        """Raise ``UserError`` where it cannot work, before the run starts; what costs money is not asked."""


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
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CompletionsTerm:
    """A named, weighted reward that judges completions by themselves, but many in one call.

    None is no value: a service did not answer. Such a completion is given the mean of its group's others.
    """

    name: str
    weight: float
    function: CompletionsFunction
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BatchTerm:
    """A named, weighted reward that compares the completions of a whole step."""

    name: str
    weight: float
    function: BatchFunction
    needs: tuple[str, ...] = ()


RewardTerm = CompletionTerm | CompletionsTerm | BatchTerm
"""``name`` becomes a metric's name, ``weight`` multiplies what ``function`` gives.

``needs`` are the parts of an answer (``Task.answer_parts``) without which it cannot work, as the table
``NEEDS`` of its function's module declares. Where nothing is declared, a term that compares groups needs
their scores, and one that judges completions nothing."""


def scheduled(terms: Sequence[RewardTerm], factors: Mapping[str, float]) -> list[RewardTerm]:
    """Return the terms with numbers multiplied as schedules say at one step, the others as they are.

    ``factors`` go by ``term.key``, the key being ``weight`` or a setting of the term's function, which must
    have been given: ``{"accuracy.threshold": 0.5}``.
    """
    changed: dict[str, RewardTerm] = {term.name: term for term in terms}
    for place, factor in factors.items():
        name, _, key = place.rpartition(".")
        term = changed[name]
        if key == "weight":
            changed[name] = replace(term, weight=term.weight * factor)
            continue
        assert isinstance(term.function, partial), "terms are built with their settings bound"
        bound = {**term.function.keywords, key: term.function.keywords[key] * factor}
        function: Any = partial(term.function.func, **bound)
        changed[name] = replace(term, function=function)
    return list(changed.values())


def completion_value(term: CompletionTerm, completion: Completion, example: Example) -> float:
    """Return what a term gives one completion, before its weight; ``UserError`` where that is not finite.

    One such value would spoil its whole group. What the function raises comes as a ``UserError`` of one line
    that names term and example, with the original as its cause.
    """
    try:
        value = term.function(completion, example)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"reward.terms.{term.name}: raised {_said(error)} for example {example.id} of {example.dataset}"
            f" and the completion {completion.text!r}"
        ) from error
    return _finite(value, term.name, example.id)


def completions_values(
    term: CompletionsTerm, completions: Sequence[Completion], examples: Sequence[Example]
) -> list[float | None]:
    """Return what a term gives each completion, before its weight, None where it could not.

    ``UserError`` where that is not one finite number or None per completion, or where the function raised.
    """
    try:
        values = list(term.function(completions, examples))
    except UserError as error:
        raise UserError(f"reward.terms.{term.name}: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(
            f"reward.terms.{term.name}: raised {_said(error)} for {len(completions)} completions"
        ) from error
    if len(values) != len(completions):
        raise UserError(
            f"reward.terms.{term.name}: gave {len(values)} values for {len(completions)} completions; "
            "give one for each, or None"
        )
    return [
        None if value is None else _finite(value, term.name, example.id)
        for value, example in zip(values, examples, strict=True)
    ]


def batch_values(term: BatchTerm, groups: Sequence[ScoredGroup]) -> list[list[float]]:
    """Return what a term gives every completion of every group of a step, before its weight.

    ``UserError`` where that is not one finite number per completion per group, or where the function raised.
    """
    try:
        values = term.function(groups)
    except (Exception, SystemExit) as error:
        examples = ", ".join(group.id for group in groups[:3])
        raise UserError(
            f"reward.terms.{term.name}: raised {_said(error)} for the {len(groups)} groups of a step, "
            f"examples {examples}{', ...' if len(groups) > 3 else ''}"
        ) from error
    expected = [len(group.scores) for group in groups]
    try:
        sizes = [len(row) for row in values]
    except TypeError:
        raise UserError(
            f"reward.terms.{term.name}: gave {show_value(values, none='None')} for {len(groups)} groups; "
            "give a list of values per group"
        ) from None
    if sizes != expected:
        raise UserError(
            f"reward.terms.{term.name}: gave {sizes} values for groups of {expected} completions; "
            "give one per completion per group"
        )
    return [
        [_finite(value, term.name, group.id) for value in row]
        for group, row in zip(groups, values, strict=True)
    ]


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _finite(value: Any, name: str, example: str) -> float:
    try:
        number = float(value) if not isinstance(value, str | bytes) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        shown = show_value(value, none="None")
        raise UserError(f"reward.terms.{name}: gave {shown} for {example}; a reward must be a finite number")
    return number
