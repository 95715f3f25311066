"""One overall quality score per image: a number, or a JSON object that holds it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import partial

from qhk.tasks.task import LEVELS, AnswerRule, ScoreTask
from qhk.tasks.text import (
    first_answer_anywhere,
    first_answer_span,
    flat_object,
    last_answer,
    last_answer_anywhere,
    last_span_anywhere,
    read_decimal,
    read_release_decimal,
    without_blanks,
)
from qhk.types import Answer

RATING = "rating"
"""Key of a score in JSON (Q-Insight)."""

# Possessive quantifiers never give characters back, so a failed match costs no second pass.
_Q_HAWKEYE_ANSWER = re.compile(r"<answer>\s*+([\d.]++)\s*+</answer>", re.IGNORECASE)
_Q_HAWKEYE_SIGNED_ANSWER = re.compile(r"<answer>\s*+([-+]?\d++(?:\.\d++)?)\s*+</answer>", re.IGNORECASE)
_Q_INSIGHT_RATING = re.compile(r'"rating"\s*+:\s*+([\d.]++)')
_VISUALQUALITY_NUMBER = re.compile(r"-?\d++(?:\.\d++)?")


def score_strict(text: str) -> Answer:
    """Return the whole content of the last answer block after the reasoning, one decimal number (ours).

    An optional sign, ASCII digits, at most one point, at least one digit: ``3``, ``3.``, ``.5``, ``+3.50``
    and ``-2`` are read; ``3,5``, ``4/5``, ``1.2.3``, ``1e3``, ``nan``, ``inf``, ``3 out of 5``, non-ASCII
    digits and nothing at all are not.
    """
    content, reason = last_answer(text)
    return Answer(score=None, reason=reason) if content is None else read_decimal(content)


def score_json(text: str) -> Answer:
    """Return the rating in the last answer block after the reasoning, which is ``{"rating": 3.25}`` (ours).

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
    """Return the number in the first answer tag anywhere that holds digits and points only (Q-Hawkeye).

    Reasoning included, upper or lower case, white space around the number apart. It must convert to a float
    as in ``read_release_decimal``, and no later tag is tried. Signs are not read.
    """
    return _read_tag(_Q_HAWKEYE_ANSWER, text)


def score_q_hawkeye_release_uncertainty(text: str) -> Answer:
    """Return the number in the first answer tag anywhere that is one signed number (Q-Hawkeye).

    That is how the release reads scores for its uncertainty weight alone. A sign, digits, and decimals behind
    a point: ``-2`` and ``+3.5`` are read, ``3.`` and ``.5`` are not, against ``score_q_hawkeye_release``;
    else as there.
    """
    return _read_tag(_Q_HAWKEYE_SIGNED_ANSWER, text)


def _read_tag(pattern: re.Pattern[str], text: str) -> Answer:
    match = pattern.search(text)
    if match is None:
        return Answer(score=None, reason="no numeric answer tag")
    return read_release_decimal(match.group(1))


def tag_span(text: str, *, pattern: re.Pattern[str]) -> tuple[int, int] | None:
    """Return the span of the number that the first answer tag of a pattern holds."""
    match = pattern.search(text)
    return None if match is None else match.span(1)


def score_q_insight_release(text: str) -> Answer:
    """Return the digits and points after the first ``"rating":`` of the first answer tag (Q-Insight).

    Reasoning included; whatever else stands in the tag. They must convert to a float, as in
    ``read_release_decimal``; a rating in quotes and a signed one are not read.
    """
    content = first_answer_anywhere(text)
    if content is None:
        return Answer(score=None, reason="no answer tag")
    match = _Q_INSIGHT_RATING.search(content)
    return Answer(score=None, reason="no rating") if match is None else read_release_decimal(match.group(1))


def score_visualquality_r1_release(text: str) -> Answer:
    """Return the first number of the last answer tag anywhere, else of the whole text (VisualQuality-R1).

    An optional minus sign, digits of any script, optional decimals: ``4 out of 5`` gives 4, ``.5`` gives 5.
    Not taken over: the random score of a text without a number, which is not read here.
    """
    content = last_answer_anywhere(text)
    match = _VISUALQUALITY_NUMBER.search(text if content is None else content)
    return Answer(score=None, reason="no number") if match is None else read_release_decimal(match.group())


def visualquality_r1_release_span(text: str) -> tuple[int, int] | None:
    """Return where ``score_visualquality_r1_release`` looks: the last answer tag, else the first number."""
    content = last_span_anywhere(text)
    if content is not None:
        return without_blanks(text, content)
    match = _VISUALQUALITY_NUMBER.search(text)
    return None if match is None else match.span()


class Score(ScoreTask):
    """The score; its think part names the distortion where a set tells it."""

    form = "score"
    rules = {
        "strict": AnswerRule(score_strict),
        "json": AnswerRule(score_json),
        "q_hawkeye_release": AnswerRule(
            score_q_hawkeye_release, partial(tag_span, pattern=_Q_HAWKEYE_ANSWER)
        ),
        "q_hawkeye_release_uncertainty": AnswerRule(
            score_q_hawkeye_release_uncertainty, partial(tag_span, pattern=_Q_HAWKEYE_SIGNED_ANSWER)
        ),
        "q_insight_release": AnswerRule(score_q_insight_release, first_answer_span),
        "visualquality_r1_release": AnswerRule(score_visualquality_r1_release, visualquality_r1_release_span),
    }

    def thought(self, answer: Answer, labels: Mapping[str, str | float]) -> str:
        """Return ``appearance, severity`` where ``labels`` tell both, else the level word of the score."""
        appearance, severity = labels.get("appearance"), labels.get("severity")
        if isinstance(appearance, str) and isinstance(severity, str):
            return f"{appearance}, {severity}"
        return super().thought(answer, labels)

    def write(self, answer: Answer, *, decimals: int) -> str:
        """Return the number, in a JSON object for the rules that read one."""
        number = super().write(answer, decimals=decimals)
        return f'{{"{RATING}": {number}}}' if self._is_json else number

    def vocabulary(self, descriptions: Iterable[str]) -> list[str]:
        ratings = {self.write(self.answer_of((score,)), decimals=0) for score in range(1, 6)}
        return sorted({*descriptions, *LEVELS, *(ratings if self._is_json else ())})

    @property
    def _is_json(self) -> bool:
        return self.answer_rule in ("json", "q_insight_release")


TASK = Score
