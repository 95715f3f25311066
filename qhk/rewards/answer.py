"""The one parser of answers: reward, uncertainty and evaluation all read an answer here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from qhk.types import Answer

MAX_NUMBER_CHARS = 64
"""Longer contents are refused unread: no score needs them, and float() is not linear in the digits."""

_OPEN, _CLOSE = "<answer>", "</answer>"
_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"
_BLANKS = " \t\r\n"
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
# Possessive quantifiers never give characters back, so a failed match costs no second pass.
_RELEASE_ANSWER = re.compile(r"<answer>\s*+([0-9.]++)\s*+</answer>", re.IGNORECASE)


def parse_answer(text: str, *, form: str, rule: str) -> Answer:
    """What a completion answers, as written: nothing is clipped, guessed or repaired.

    ``form`` is the task's, ``rule`` one of its named ways to read. Rules of ``score``:

    - ``strict`` (ours). The reasoning is left out: all up to the last ``</think>``. In the rest the last
      complete ``<answer>...</answer>`` counts, and its whole content, apart from blanks (space, tab, line
      break), must be one decimal number: an optional sign, ASCII digits, at most one point, at least one
      digit. ``3``, ``3.``, ``.5``, ``+3.50`` and ``-2`` are read; ``3,5``, ``4/5``, ``1.2.3``, ``1e3``,
      ``nan``, ``inf``, ``3 out of 5``, non-ASCII digits and nothing at all are not. Reasoning that is opened
      and never closed holds no answer. Tags are lower case.
    - ``q_hawkeye_release`` (accuracy reward of the Q-Hawkeye release). The first answer tag of the whole
      text, reasoning included, whose content apart from white space is digits and points only; upper or
      lower case; the content must convert to a float (``3.`` and ``.5`` do, ``1.2.3`` does not, and no later
      tag is tried). Signs are not read.

    Contents of more than ``MAX_NUMBER_CHARS`` characters are refused. Time is linear in the length of
    ``text``. Never raises on any text; ``ValueError`` on an unknown form or rule.
    """
    return find_rule(form, rule)(text)


def find_rule(form: str, rule: str) -> Callable[[str], Answer]:
    """The function that reads answers of a task's form by a rule; ``ValueError`` where there is none."""
    rules = ANSWER_RULES.get(form)
    if rules is None:
        raise ValueError(f"task.form: unknown form {form!r}; use one of {', '.join(ANSWER_RULES)}")
    if rule not in rules:
        raise ValueError(
            f"task.answer_rule: unknown rule {rule!r} of form {form}; use one of {', '.join(rules)}"
        )
    return rules[rule]


def _parse_strict(text: str) -> Answer:
    after = text.rfind(_THINK_CLOSE)
    start = after + len(_THINK_CLOSE) if after >= 0 else 0
    unclosed = text.find(_THINK_OPEN, start)
    end = text.rfind(_CLOSE, start, unclosed if unclosed >= 0 else len(text))
    opened = text.rfind(_OPEN, start, end) if end >= 0 else -1
    if opened < 0:
        return Answer(score=None, reason="reasoning not closed" if unclosed >= 0 else "no answer tag")
    content = text[opened + len(_OPEN) : end].strip(_BLANKS)
    if not content:
        return Answer(score=None, reason="empty answer")
    if len(content) > MAX_NUMBER_CHARS:
        return Answer(score=None, reason="answer too long")
    if not _DECIMAL.fullmatch(content):
        return Answer(score=None, reason="not one number")
    return Answer(score=float(content))


def _parse_q_hawkeye_release(text: str) -> Answer:
    match = _RELEASE_ANSWER.search(text)
    if match is None:
        return Answer(score=None, reason="no numeric answer tag")
    content = match.group(1)
    if len(content) > MAX_NUMBER_CHARS:
        return Answer(score=None, reason="answer too long")
    if content.count(".") > 1 or content == ".":
        return Answer(score=None, reason="not one number")
    score = float(content)
    assert math.isfinite(score)  # at most MAX_NUMBER_CHARS digits
    return Answer(score=score)


ANSWER_RULES: Mapping[str, Mapping[str, Callable[[str], Answer]]] = MappingProxyType(
    {"score": {"strict": _parse_strict, "q_hawkeye_release": _parse_q_hawkeye_release}}
)
"""Form of a task -> the named ways to read its answers. A new rule is a function of the text, added here."""
