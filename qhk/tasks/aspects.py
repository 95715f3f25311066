"""Tasks answered in several sub-scores, whose mean is the score (PreResQ-R1)."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial

from qhk.tasks.task import AnswerRule, ScoreTask
from qhk.tasks.text import BLANKS, MAX_NUMBER_CHARS, TOO_LONG, last_answer, read_decimal
from qhk.types import Answer

# Possessive quantifiers never give characters back, so a failed match costs no second pass.
_NUMBER = re.compile(r"[-+]?\d*+\.\d++|\d++")


def aspects_lines(text: str, *, count: int) -> Answer:
    """Return the sub-scores in the last answer block after the reasoning, one decimal number per line (ours).

    Exactly ``count`` lines, each a number as in ``score_strict``, blanks around it allowed, no empty line in
    between. The score is their mean.
    """
    content, reason = last_answer(text)
    if content is None:
        return Answer(score=None, reason=reason)
    if content.count("\n") != count - 1:
        return Answer(score=None, reason=f"not {count} lines")
    answers = [read_decimal(line.strip(BLANKS)) for line in content.split("\n")]
    unread = [answer for answer in answers if answer.score is None]
    return unread[0] if unread else average([a.score for a in answers if a.score is not None])


def aspects_preresq_r1_release(text: str, *, count: int) -> Answer:
    """Return the last ``count`` numbers of the text, reasoning included (PreResQ-R1).

    The score is their mean. Numbers are signed decimals with a point (``-.5``) or unsigned integers (``-3``
    and ``3.`` give 3), in digits of any script. Where there are fewer, the first fills up the rest, so that a
    single number counts for all. Not taken over: 3.0 for a text without a number, and numbers of more than
    ``MAX_NUMBER_CHARS`` characters, which are not read here.
    """
    first, last = None, deque[str](maxlen=count)
    for match in _NUMBER.finditer(text):
        last.append(match.group())
        first = last[0] if first is None else first
    if first is None:
        return Answer(score=None, reason="no number")
    numbers = [*last, *[first] * (count - len(last))]
    if max(map(len, numbers)) > MAX_NUMBER_CHARS:
        return TOO_LONG
    return average([float(number) for number in numbers])


def preresq_r1_release_span(text: str, *, count: int) -> tuple[int, int] | None:
    """Return the span from the first to the last of the numbers that ``aspects_preresq_r1_release`` reads."""
    last = deque((match.span() for match in _NUMBER.finditer(text)), maxlen=count)
    return (last[0][0], last[-1][1]) if last else None


def average(aspects: Sequence[float]) -> Answer:
    """Return the answer that says these sub-scores."""
    return Answer(score=math.fsum(aspects) / len(aspects), aspects=tuple(aspects))


def aspect_rules(count: int) -> Mapping[str, AnswerRule]:
    """Return the ways to read ``count`` sub-scores."""
    return {
        "lines": AnswerRule(partial(aspects_lines, count=count)),
        "preresq_r1_release": AnswerRule(
            partial(aspects_preresq_r1_release, count=count), partial(preresq_r1_release_span, count=count)
        ),
    }


class AspectTask(ScoreTask):
    """A task answered in ``num_aspects`` sub-scores, taught one per line."""

    def answer_of(self, numbers: Sequence[float]) -> Answer:
        """Return the answer that says these sub-scores."""
        return average(numbers)
