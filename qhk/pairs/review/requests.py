"""Reads what a browser sent; anything that does not fit is a ``ValueError`` in one line."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qhk.errors import UserError
from qhk.pairs.records import ANSWERS, Answer

LONGEST_NAME = 40
LONGEST_KEY = 64
MOST_SECONDS = 86400.0


@dataclass(frozen=True, kw_only=True)
class Decide:
    """A reviewer's answer on one version of a pair; ``key`` tells a repeated request from a new one."""

    reviewer: str
    group_id: str
    version: int
    answer: Answer
    key: str
    seconds: float | None


def read_decide(body: Mapping[str, Any], known: Sequence[str]) -> Decide:
    """The answer in a request; ``known`` are the reviewers so far, see ``reviewer_name``."""
    answer = next((word for word in ANSWERS if word == body.get("answer")), None)
    if answer is None:
        raise UserError(f"answer: must be one of {', '.join(ANSWERS)}, got {body.get('answer')!r}")
    version = body.get("version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise UserError(f"version: must be a whole number, got {version!r}")
    return Decide(
        reviewer=reviewer_name(body.get("reviewer"), known),
        group_id=str(body.get("pair")),
        version=version,
        answer=answer,
        key=read_key(body.get("key")),
        seconds=_looked_at(body.get("seconds")),
    )


def reviewer_name(value: Any, known: Sequence[str]) -> str:
    """The name with single spaces; in the spelling of ``known`` where it differs in case alone.

    Raises ``ValueError`` for an empty, overlong or unprintable name.
    """
    name = " ".join(unicodedata.normalize("NFC", value).split()) if isinstance(value, str) else ""
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise UserError(f"reviewer: must be a name of 1 to {LONGEST_NAME} letters, got {str(value)[:60]!r}")
    return next((other for other in known if other.casefold() == name.casefold()), name)


def read_key(value: Any) -> str:
    """The key of a request."""
    if not isinstance(value, str) or not 8 <= len(value) <= LONGEST_KEY or not value.isascii():
        raise UserError(f"key: must be 8 to {LONGEST_KEY} ASCII characters, got {str(value)[:60]!r}")
    return value


def read_place(text: str, *, default: int, high: int) -> int:
    """A whole number in [0, high] from a query; ``default`` for an empty one."""
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or int(text) > high:
        raise UserError(f"{text[:40]!r}: must be a whole number from 0 to {high}")
    return int(text)


def _looked_at(value: Any) -> float | None:
    """How long the pair was in sight; None where a browser says something else."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MOST_SECONDS:
        return None
    return round(float(value), 3)
