"""Where in a completion the answer stands, and the number or flat JSON object that it may be."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from qhk.errors import UserError
from qhk.types import Answer

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
BLANKS = " \t\r\n"
"""What may stand around an answer: space, tab and line breaks, which are also JSON's."""

MAX_NUMBER_CHARS = 64
"""Longer numbers are refused unread: no score needs them, and float() is not linear in the digits."""

MAX_OBJECT_CHARS = 256
"""Longer JSON is refused unread: no answer needs it."""

TOO_LONG = Answer(score=None, reason="answer too long")
"""The answer of a number with more than ``MAX_NUMBER_CHARS``."""

_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def last_answer(text: str) -> tuple[str | None, str]:
    """Return the content of the last complete answer block after the reasoning, or None and the reason.

    The reasoning is all up to the last ``</think>``; one that is opened again and never closed holds no
    answer. Tags are lower case. Blanks around the content are gone; an empty one counts as none.
    """
    span, reason = _last_block(text)
    return (None if span is None else text[slice(*span)]), reason


def answer_span(text: str) -> tuple[int, int] | None:
    """Return the first character of what ``last_answer`` finds and the one behind its last, or None."""
    return _last_block(text)[0]


def first_answer_span(text: str) -> tuple[int, int] | None:
    """Return the span of what ``first_answer_anywhere`` finds, without the blanks around it."""
    return without_blanks(text, first_span_anywhere(text))


def _last_block(text: str) -> tuple[tuple[int, int] | None, str]:
    after = text.rfind(THINK_CLOSE)
    start = after + len(THINK_CLOSE) if after >= 0 else 0
    unclosed = text.find(THINK_OPEN, start)
    end = text.rfind(ANSWER_CLOSE, start, unclosed if unclosed >= 0 else len(text))
    opened = text.rfind(ANSWER_OPEN, start, end) if end >= 0 else -1
    if opened < 0:
        return None, "reasoning not closed" if unclosed >= 0 else "no answer tag"
    span = without_blanks(text, (opened + len(ANSWER_OPEN), end))
    return span, "" if span else "empty answer"


def without_blanks(text: str, span: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the span without the blanks at its ends; None where there is none, or nothing else in it."""
    if span is None:
        return None
    content = text[slice(*span)]
    first = span[0] + len(content) - len(content.lstrip(BLANKS))
    last = first + len(content.strip(BLANKS))
    return (first, last) if last > first else None


def first_answer_anywhere(text: str) -> str | None:
    """Return the content of the first complete answer block of the text, reasoning included (releases)."""
    span = first_span_anywhere(text)
    return None if span is None else text[slice(*span)]


def first_span_anywhere(text: str) -> tuple[int, int] | None:
    """Return where the content stands that ``first_answer_anywhere`` finds, from its first character on."""
    opened = text.find(ANSWER_OPEN)
    closed = text.find(ANSWER_CLOSE, opened + len(ANSWER_OPEN)) if opened >= 0 else -1
    return (opened + len(ANSWER_OPEN), closed) if closed >= 0 else None


def last_answer_anywhere(text: str) -> str | None:
    """Return the content of the last complete answer block of the text, reasoning included (releases).

    Blocks are taken from the front: one that is opened twice begins at its first opening.
    """
    span = last_span_anywhere(text)
    return None if span is None else text[slice(*span)]


def last_span_anywhere(text: str) -> tuple[int, int] | None:
    """Return where the content stands that ``last_answer_anywhere`` finds, from its first character on."""
    end = text.rfind(ANSWER_CLOSE)
    found = None
    if end >= 0:  # without a closing tag the search would read on to the end for every opening one
        for match in _ANSWER.finditer(text, 0, end + len(ANSWER_CLOSE)):
            found = match.span(1)
    return found


def read_decimal(content: str) -> Answer:
    """Return the number that ``content`` is, and nothing else: see ``qhk.tasks.forms.score.score_strict``."""
    if len(content) > MAX_NUMBER_CHARS:
        return TOO_LONG
    if not _DECIMAL.fullmatch(content):
        return Answer(score=None, reason="not one number")
    return Answer(score=float(content))


def read_release_decimal(content: str) -> Answer:
    """Return the number that Python reads in digits, points and a sign, as the releases have it.

    Decimal digits of every script count, full-width ones say: their patterns find them, and float() reads
    them. ``3.`` and ``.5`` are read, ``1.2.3`` is not. Not taken over: more than ``MAX_NUMBER_CHARS``
    characters.
    """
    if len(content) > MAX_NUMBER_CHARS:
        return TOO_LONG
    try:
        return Answer(score=float(content))
    except ValueError:
        return Answer(score=None, reason="not one number")


def flat_object(content: str) -> Mapping[str, object] | None:
    """Return the JSON object that ``content`` is: every key once, no inner braces or brackets; else None.

    Numbers are floats (they may be infinite: 1e999), ``NaN`` and ``Infinity`` are no JSON. Never raises.
    """
    if len(content) > MAX_OBJECT_CHARS or content.count("{") != 1 or "[" in content:
        return None
    try:
        value = json.loads(
            content, object_pairs_hook=_without_repeats, parse_int=float, parse_constant=_no_constant
        )
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UserError("a key occurs twice")
    return found


def _no_constant(name: str) -> float:
    raise UserError(f"{name} is no JSON")
