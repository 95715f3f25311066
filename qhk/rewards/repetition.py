"""Penalty for repeating oneself."""

from __future__ import annotations

import re
from collections import Counter

from qhk.tasks.text import first_answer_anywhere
from qhk.types import Completion, Example

_NEITHER_WORD_NOR_SPACE = re.compile(r"[^\w\s]")
_ALLOWED, _PENALTY, _LOWEST = 5, 0.25, -2.0


def q_hawkeye_release_repetition(completion: Completion, example: Example) -> float:
    """Return ``max(-2, -0.25 n)`` in [-2, 0], n the sum of the counts above 5 of words and of characters.

    Counted in the content of the first answer block, or in the whole text where there is none (so a missing
    tag costs up to 2 on top of the score), without the white space around it, after removal of all that is
    neither word character nor white space. Words are what single spaces separate; spaces count as characters.
    A score of one or two decimals costs nothing, but 3.333333 costs 1.75. The constants are the rule's own,
    not settings. Source: release of Q-Hawkeye.
    """
    answer = first_answer_anywhere(completion.text)
    text = _NEITHER_WORD_NOR_SPACE.sub("", (completion.text if answer is None else answer).strip())
    counts = [*Counter(text.split(" ")).values(), *Counter(text).values()]
    return max(_LOWEST, -_PENALTY * sum(count for count in counts if count > _ALLOWED))
