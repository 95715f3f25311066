"""Rules that read scores and sub-scores; ``qhk.rewards.answer`` is the door to them."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Sequence

from qhk.rewards.answer_text import (
    BLANKS,
    first_answer_anywhere,
    flat_object,
    last_answer,
    last_answer_anywhere,
    last_span_anywhere,
    without_blanks,
)
from qhk.types import Answer

MAX_NUMBER_CHARS = 64
"""Longer numbers are refused unread: no score needs them, and float() is not linear in the digits."""

_TOO_LONG = Answer(score=None, reason="answer too long")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
# Possessive quantifiers never give characters back, so a failed match costs no second pass.
_Q_HAWKEYE_ANSWER = re.compile(r"<answer>\s*+([0-9.]++)\s*+</answer>", re.IGNORECASE)
_Q_INSIGHT_RATING = re.compile(r'"rating"\s*+:\s*+([0-9.]++)')
_VISUALQUALITY_NUMBER = re.compile(r"-?[0-9]++(?:\.[0-9]++)?")
_PRERESQ_NUMBER = re.compile(r"[-+]?[0-9]*+\.[0-9]++|[0-9]++")


def score_strict(text: str) -> Answer:
    """The whole content of the last answer block after the reasoning, one decimal number (ours).

    An optional sign, ASCII digits, at most one point, at least one digit: ``3``, ``3.``, ``.5``, ``+3.50``
    and ``-2`` are read; ``3,5``, ``4/5``, ``1.2.3``, ``1e3``, ``nan``, ``inf``, ``3 out of 5``, non-ASCII
    digits and nothing at all are not.
    """
    content, reason = last_answer(text)
    return Answer(score=None, reason=reason) if content is None else _read_decimal(content)


def score_json(text: str) -> Answer:
    """The rating in the last answer block after the reasoning, which must be ``{"rating": 3.25}`` (ours).

    A JSON object with that one key and a finite number in JSON's notation (``3``, ``3.25``, ``-2``, ``1e0``;
    not ``3.``, ``.5``, ``+3``, ``"3"`` or ``true``), read by a JSON parser. Blanks may stand around
    everything, a code fence may not.
    """
    content, reason = last_answer(text)
    if content is None:
        return Answer(score=None, reason=reason)
    found = flat_object(content)
    if found is None or [*found] != ["rating"]:
        return Answer(score=None, reason="not a rating in JSON")
    rating = found["rating"]
    if not isinstance(rating, float) or not math.isfinite(rating):
        return Answer(score=None, reason="not one number")
    return Answer(score=rating)


def score_q_hawkeye_release(text: str) -> Answer:
    """The first answer tag anywhere, apart from white space, of digits and points only (Q-Hawkeye's reward).

    Reasoning included, upper or lower case; the content must convert to a float (``3.`` and ``.5`` do,
    ``1.2.3`` does not, and no later tag is tried). Signs are not read.
    """
    match = _Q_HAWKEYE_ANSWER.search(text)
    return (
        Answer(score=None, reason="no numeric answer tag") if match is None else _read_decimal(match.group(1))
    )


def q_hawkeye_release_span(text: str) -> tuple[int, int] | None:
    """Where the digits stand that ``score_q_hawkeye_release`` reads: first character, one behind the last."""
    match = _Q_HAWKEYE_ANSWER.search(text)
    return None if match is None else match.span(1)


def score_q_insight_release(text: str) -> Answer:
    """The digits and points after the first ``"rating":`` of the first answer tag (Q-Insight's reward).

    Reasoning included; whatever else stands in the tag. They must convert to a float, as in
    ``score_q_hawkeye_release``; a rating in quotes and a signed one are not read.
    """
    content = first_answer_anywhere(text)
    if content is None:
        return Answer(score=None, reason="no answer tag")
    match = _Q_INSIGHT_RATING.search(content)
    return Answer(score=None, reason="no rating") if match is None else _read_decimal(match.group(1))


def score_visualquality_r1_release(text: str) -> Answer:
    """The first number of the last answer tag anywhere, else of the whole text (VisualQuality-R1's reward).

    An optional minus sign, digits, optional decimals: ``4 out of 5`` gives 4, ``.5`` gives 5. Not taken over:
    the random score of a text without a number, which is not read here.
    """
    content = last_answer_anywhere(text)
    match = _VISUALQUALITY_NUMBER.search(text if content is None else content)
    return Answer(score=None, reason="no number") if match is None else _read_decimal(match.group())


def visualquality_r1_release_span(text: str) -> tuple[int, int] | None:
    """Where ``score_visualquality_r1_release`` looks: the last answer tag, else the first number."""
    content = last_span_anywhere(text)
    if content is not None:
        return without_blanks(text, content)
    match = _VISUALQUALITY_NUMBER.search(text)
    return None if match is None else match.span()


def aspects_lines(text: str, *, count: int) -> Answer:
    """The sub-scores in the last answer block after the reasoning, one decimal number per line (ours).

    Exactly ``count`` lines, each a number as in ``score_strict``, blanks around it allowed, no empty line in
    between. The score is their mean.
    """
    content, reason = last_answer(text)
    if content is None:
        return Answer(score=None, reason=reason)
    if content.count("\n") != count - 1:
        return Answer(score=None, reason=f"not {count} lines")
    answers = [_read_decimal(line.strip(BLANKS)) for line in content.split("\n")]
    unread = [answer for answer in answers if answer.score is None]
    return unread[0] if unread else _average([a.score for a in answers if a.score is not None])


def aspects_preresq_r1_release(text: str, *, count: int) -> Answer:
    """The last ``count`` numbers of the whole text, reasoning included; their mean is the score (PreResQ-R1).

    Numbers are signed decimals with a point (``-.5``) or unsigned integers (``-3`` and ``3.`` give 3). Where
    there are fewer, the first fills up the rest, so that a single number counts for all. Not taken over: 3.0
    for a text without a number, which is not read here.
    """
    first, last = None, deque[str](maxlen=count)
    for match in _PRERESQ_NUMBER.finditer(text):
        last.append(match.group())
        first = last[0] if first is None else first
    if first is None:
        return Answer(score=None, reason="no number")
    numbers = [*last, *[first] * (count - len(last))]
    if max(map(len, numbers)) > MAX_NUMBER_CHARS:
        return _TOO_LONG
    return _average([float(number) for number in numbers])


def preresq_r1_release_span(text: str, *, count: int) -> tuple[int, int] | None:
    """From the first to the last of the numbers that ``aspects_preresq_r1_release`` takes from the end."""
    last = deque((match.span() for match in _PRERESQ_NUMBER.finditer(text)), maxlen=count)
    return (last[0][0], last[-1][1]) if last else None


def _average(aspects: Sequence[float]) -> Answer:
    return Answer(score=math.fsum(aspects) / len(aspects), aspects=tuple(aspects))


def _read_decimal(content: str) -> Answer:
    """The number that ``content`` is, and nothing else."""
    if len(content) > MAX_NUMBER_CHARS:
        return _TOO_LONG
    if not _DECIMAL.fullmatch(content):
        return Answer(score=None, reason="not one number")
    return Answer(score=float(content))
