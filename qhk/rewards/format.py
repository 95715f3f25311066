"""Rewards for the form of a completion: reasoning first, then the answer."""

from __future__ import annotations

import re

from qhk.rewards.answer_text import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN
from qhk.types import Completion, Example

_TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)
_TURN = re.compile(r"</think>\s*<answer>")


def think_answer_format(completion: Completion, example: Example) -> float:
    """1 for one think block that says something, then one answer block with a readable score, else 0.

    White space may stand around and between the blocks, and nothing else; every tag occurs exactly once; a
    completion cut at the length limit lacks its end and earns 0. Readable is what the parser read, in range
    or not. Ours: unlike the release's form it cannot be satisfied with a second answer inside the reasoning.
    """
    text = completion.text.strip()
    if not completion.answer.parsed or any(text.count(tag) != 1 for tag in _TAGS):
        return 0.0
    if not (text.startswith(THINK_OPEN) and text.endswith(ANSWER_CLOSE)):
        return 0.0
    reasoning, _, rest = text[len(THINK_OPEN) :].partition(THINK_CLOSE)
    return float(bool(reasoning.strip()) and rest.lstrip().startswith(ANSWER_OPEN))


def q_hawkeye_release_format(completion: Completion, example: Example) -> float:
    """1 for a think block of at least one character, then an answer block of digits and points, else 0.

    White space may stand around and between the blocks and around the digits. Anything goes inside the think
    block, further tags included, and the digits need not form a number. The release gives 0.8: that is the
    term's weight. Source: release of Q-Hawkeye.
    """
    text = completion.text.strip()
    opened = text.rfind(ANSWER_OPEN)
    if opened < 0 or not (text.startswith(THINK_OPEN) and text.endswith(ANSWER_CLOSE)):
        return 0.0
    content = text[opened + len(ANSWER_OPEN) : -len(ANSWER_CLOSE)].strip()
    before = text[:opened].rstrip()
    has_reasoning = before.endswith(THINK_CLOSE) and len(before) > len(THINK_OPEN) + len(THINK_CLOSE)
    return float(has_reasoning and bool(content) and not content.strip("0123456789."))


def visualquality_r1_release_format(completion: Completion, example: Example) -> float:
    """1 for a think block, optional white space and an answer block of any content, and nothing else, else 0.

    Both blocks may be empty, and hold further tags. Source: release of VisualQuality-R1.
    """
    text = completion.text
    turn = _TURN.search(text, len(THINK_OPEN))
    if turn is None or not (text.startswith(THINK_OPEN) and text.endswith(ANSWER_CLOSE)):
        return 0.0
    return float(turn.end() <= len(text) - len(ANSWER_CLOSE))
