"""One line of a check: what was found, what was expected, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """``subject`` is the question. ``details`` lists every file or row that it is about."""

    subject: str
    found: str
    expected: str
    verdict: Verdict
    fix: str
    details: tuple[str, ...] = ()


def judge(subject: str, found: int, expected: int | None, fix: str) -> Finding:
    """Return a finding that compares a count with the expected one, or just states it (None)."""
    fits = expected is None or found == expected
    wanted = "" if expected is None else str(expected)
    return Finding(subject, str(found), wanted, "ok" if fits else "error", "" if fits else fix)
