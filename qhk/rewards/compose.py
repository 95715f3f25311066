"""Reward terms from config: every key and value is checked against the function's own signature."""

from __future__ import annotations

import importlib
import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from qhk.errors import UserError
from qhk.rewards.batch import ScoredGroup
from qhk.rewards.term import Above, BatchTerm, CompletionsTerm, CompletionTerm, Judge, RewardTerm
from qhk.types import Completion, Example

_OWN_KEYS = ("_target_", "weight")


def build_terms(spec: Mapping[str, Mapping[str, Any]]) -> list[RewardTerm]:
    """Return the reward terms of ``spec``: name -> ``_target_``, ``weight``, the function's settings.

    ``_target_`` is the dotted path of any importable function of one of three kinds, told apart by what it
    takes: ``(completion, example, *, settings) -> float`` judges one completion; ``(completions:
    Sequence[Completion], examples: Sequence[Example], *, settings) -> list[float | None]`` judges many in
    one call; ``(groups: Sequence[ScoredGroup], *, settings) -> list[list[float]]`` compares those of a step.
    A subclass of ``Judge`` takes its settings once, and its objects are functions of the second kind.
    Keyword-only parameters must be exactly the given keys (those with a default may be left out), and every
    value of the annotated type (float, int, bool, str, None, Literal, unions and sequences of them; an int
    passes for a float; ``Above`` in ``Annotated`` bounds a number; other annotations are left to the
    function). Every breach is a ``UserError`` of one line: ``reward.terms.<name>.<key>: value; fix``.
    """
    if not spec:
        raise UserError("reward.terms: is empty; name at least one term")
    return [_build_term(name, settings) for name, settings in spec.items()]


def _build_term(name: str, settings: Mapping[str, Any]) -> RewardTerm:
    where = f"reward.terms.{name}"
    for key in _OWN_KEYS:
        if key not in settings:
            raise UserError(f"{where}.{key}: is missing; every term needs _target_ and weight")
    weight = settings["weight"]
    if not _is_number(weight) or not weight > 0:
        raise UserError(f"{where}.weight: got {weight!r}; must be a number > 0, or remove the term: ~{where}")
    function, declared = _import(settings["_target_"], where)
    kind, expected, optional = _signature(function, where)
    given = {key: value for key, value in settings.items() if key not in _OWN_KEYS}
    for key, value in given.items():
        if key not in expected:
            known = ", ".join(expected) or "no settings"
            raise UserError(f"{where}.{key}: got {value!r}, but {function.__name__} takes {known}; remove it")
        _check(f"{where}.{key}", value, expected[key])
    for key, annotation in expected.items():
        if key not in given and key not in optional:
            raise UserError(f"{where}.{key}: is missing; give {_describe(annotation)}")
    needs = declared or (("score",) if kind is BatchTerm else ())
    if not _is_judge(function):
        return kind(name=name, weight=float(weight), needs=needs, function=partial(function, **given))
    try:
        judge = function(**given)
    except UserError as error:
        raise UserError(f"{where}.{error}") from error
    return CompletionsTerm(name=name, weight=float(weight), needs=needs, function=judge)


def _is_judge(function: Callable[..., Any]) -> bool:
    return inspect.isclass(function) and issubclass(function, Judge)


def _import(target: object, where: str) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """Return the function and what its module's table ``NEEDS`` says that it needs of an answer."""
    module_name, _, attribute = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    if not module_name or not attribute:
        raise UserError(f"{where}._target_: got {target!r}; give the dotted path of a function")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"{where}._target_: cannot import {module_name} ({error}); correct the path"
        ) from error
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{where}._target_: {module_name} cannot be imported: it raised {type(error).__name__} "
            f"({' '.join(str(error).split())}); correct it"
        ) from error
    function = vars(module).get(attribute)
    if callable(function):
        return function, tuple(vars(module).get("NEEDS", {}).get(attribute, ()))
    raise UserError(f"{where}._target_: {module_name} has no function {attribute}; correct the path")


def _signature(function: Callable[..., Any], where: str) -> tuple[type[RewardTerm], dict[str, Any], set[str]]:
    """Return the kind of term that it makes, the annotations of its settings, and those with a default.

    ``UserError`` on what is no reward function.
    """
    parameters = inspect.signature(function).parameters.values()
    leading = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    try:
        takes = function.__init__ if inspect.isclass(function) else function
        hints = get_type_hints(takes, include_extras=True)
    except NameError as error:
        raise UserError(
            f"{where}._target_: {function.__name__} has an unknown annotation ({error}); import its type"
        ) from error
    taken = [get_args(hints.get(p.name)) for p in leading]
    kind: type[RewardTerm] | None = CompletionTerm if len(taken) == 2 else None
    if _is_judge(function):
        kind = None if leading else CompletionsTerm
    elif taken == [(Completion,), (Example,)]:
        kind = CompletionsTerm
    elif (ScoredGroup,) in taken:
        kind = BatchTerm if len(taken) == 1 else None
    if kind is None or len(leading) + len(keywords) != len(parameters):
        raise UserError(
            f"{where}._target_: got {function.__name__}{inspect.signature(function)}; a reward takes "
            "(completion, example, *, settings), (completions: Sequence[Completion], examples: "
            "Sequence[Example], *, settings), or (groups: Sequence[ScoredGroup], *, settings)"
        )
    optional = {p.name for p in keywords if p.default is not p.empty}
    return kind, {p.name: hints.get(p.name, Any) for p in keywords}, optional


def _check(where: str, value: object, annotation: Any) -> None:
    if not _matches(value, annotation):
        raise UserError(f"{where}: got {value!r}; give {_describe(annotation)}")


def _matches(value: object, annotation: Any) -> bool:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        base, *marks = arguments
        return _matches(value, base) and all(_obeys(value, mark) for mark in marks)
    if origin is Literal:
        return any(value == allowed and type(value) is type(allowed) for allowed in arguments)
    if origin in (Union, types.UnionType):
        return any(_matches(value, option) for option in arguments)
    if origin in (list, Sequence):
        return isinstance(value, list | tuple) and all(_matches(item, arguments[0]) for item in value)
    if annotation is float:
        return _is_number(value)
    if annotation in (int, str, bool, types.NoneType):
        return type(value) is annotation
    return True


def _obeys(value: object, mark: object) -> bool:
    if not isinstance(mark, Above) or not isinstance(value, int | float):
        return True
    return value > mark.bound


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _describe(annotation: Any) -> str:
    """Return what a value of this type looks like, for a user."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [f" > {mark.bound:g}" for mark in arguments[1:] if isinstance(mark, Above)]
        return _describe(arguments[0]) + "".join(bounds)
    if origin is Literal:
        return "one of " + ", ".join(str(allowed) for allowed in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in arguments)
    if origin in (list, Sequence):
        return f"a list of {_describe(arguments[0])}"
    names = {
        float: "a number",
        int: "an integer",
        str: "a text",
        bool: "true or false",
        types.NoneType: "null",
    }
    return names.get(annotation, "a value")
