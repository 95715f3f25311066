"""One readable line from a pydantic error: key, what is wrong, the value, the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from qhk.errors import UserError
from qhk.plain import show_value

Model = TypeVar("Model", bound=BaseModel)

KINDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a group of keys",
    "model_attributes_type": "must be a group of keys",
    "none_required": "must be null",
}


MANY, FEW = 16, 4
"""Up to how many known names a line lists whole, and how many of more."""


def validated(model: type[Model], plain: Mapping[str, Any], *, where: str = "") -> Model:
    """Return plain data as a typed node.

    Raises UserError for any mistake in it: one line, which begins with ``where`` and names key and fix.
    """
    try:
        return model.model_validate(dict(plain))
    except ValidationError as error:
        raise UserError(f"{where}{first_problem(error, plain, model)}") from None


def first_few(texts: Sequence[str], *, most: int = 3, separator: str = ", ") -> str:
    """Return ``a, b, c and 4 more``: the first ``most`` texts, and how many others there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


def first_problem(error: ValidationError, plain: Mapping[str, Any], model: type[BaseModel]) -> str:
    """Return one line naming the first offending key, its value and the fix, and the keys of further ones."""
    problems: dict[str, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        problems.setdefault(_key(details, plain), []).append(details)
    lines = [_line(key, group, model) for key, group in problems.items()]
    more = [key for key in problems if key][1:]
    rest = f" (and {len(lines) - 1} more: {', '.join(more)})" if len(lines) > 1 and more else ""
    return lines[0] + rest


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like ``word``, or None. Initials count: ``learning_rate`` is near ``lr``."""
    names = list(known)
    initials = [name for name in names if _initials(name) == word or name == _initials(word)]
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return next(iter([*initials, *close]), None)


def _initials(word: str) -> str:
    return "".join(part[:1] for part in word.split("_"))


def suggestion(word: str, known: Iterable[str], *, prefix: str = "", listed_by: str = "--help") -> str:
    """Return a fix for an unknown word: the nearest known one, and all of them.

    Of many only those most alike are named, and ``listed_by``, what lists them all.
    """
    names = sorted(known)
    if not names:
        return "nothing is known here"
    close = nearest(word, names)
    hint = f"did you mean {prefix}{close}? " if close else ""
    if len(names) <= MANY:
        return f"{hint}known: {', '.join(names)}"
    others = [name for name in difflib.get_close_matches(word, names, n=FEW, cutoff=0.4) if name != close]
    near = f"near: {', '.join(others)}; " if others else ""
    return f"{hint}{near}{listed_by} lists all {len(names)}"


def _key(details: ErrorDetails, plain: Mapping[str, Any]) -> str:
    """Return the dotted path of an error, without the branch names that pydantic adds for unions."""
    parts: list[str] = []
    value: Any = plain
    for place, part in enumerate(details["loc"]):
        if isinstance(value, list) and isinstance(part, str):
            # Sets in a list, as in [koniq, {spaq: ...}], are typed as one mapping.
            value = {name: own for item in value if isinstance(item, Mapping) for name, own in item.items()}
        inside = isinstance(value, Mapping) and part in value
        inside = inside or (isinstance(value, list | tuple) and isinstance(part, int) and part < len(value))
        if inside:
            value = value[part]
        elif details["type"] != "missing" or place != len(details["loc"]) - 1:
            continue
        parts.append(str(part))
    return ".".join(parts)


def _line(key: str, group: list[ErrorDetails], model: type[BaseModel]) -> str:
    details = group[0]
    kind, value = details["type"], details["input"]
    if kind == "extra_forbidden":
        parent, _, last = key.rpartition(".")
        fix = suggestion(last, node_fields(model, parent), listed_by="--cfg job")
        return f"{key}: unknown key, got {show_value(value)}; {fix}"
    if kind == "missing":
        return f"{key}: missing; give it a value in the YAML of its group or on the command line"
    if kind == "value_error":
        return _rule_line(key, str(details["msg"]).removeprefix("Value error, "), model)
    messages = list(dict.fromkeys(_message(item) for item in group))
    return f"{key}: {' or '.join(messages)}, got {show_value(value)}"


def _rule_line(key: str, text: str, model: type[BaseModel]) -> str:
    """Return the line of a rule between keys; a rule's text may begin with the key it is about."""
    first, _, rest = text.partition(" ")
    if first.rstrip(":").partition(".")[0] in node_fields(model, key):
        return f"{key}.{first.rstrip(':')}: {rest}" if key else text
    return f"{key}: {text}" if key else text


def _message(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in KINDS:
        return KINDS[kind]
    if kind == "literal_error":
        return f"must be one of {context['expected']}".replace(" or ", ", ")
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    return str(details["msg"]).replace("Input should", "must").replace("should", "must")


def node_fields(model: type[BaseModel], key: str) -> list[str]:
    """Return the valid keys of the node at a dotted key; empty where that node takes any name."""
    current: Any = model
    for part in key.split(".") if key else []:
        if isinstance(current, _ByName):
            current = current.value
        elif current is not None:
            field = current.model_fields.get(part)
            current = None if field is None else _node_in(field.annotation)
    return [] if current is None or isinstance(current, _ByName) else list(current.model_fields)


class _ByName:
    """Marks a mapping of free names to nodes; the next part of a path is a name."""

    def __init__(self, value: type[BaseModel]) -> None:
        self.value = value


def _node_in(annotation: Any) -> Any:
    """Return the node class (or mapping of nodes) that an annotation holds, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [node for node in map(_node_in, get_args(annotation)) if node is not None]
    if not found:
        return None
    return _ByName(found[0]) if getattr(annotation, "__origin__", None) is dict else found[0]
