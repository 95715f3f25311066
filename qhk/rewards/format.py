"""Rewards for the form of a completion: reasoning first, then the answer.

Each pays some way of writing an answer, so that a run is refused where none that its rule reads is paid.
"""

from __future__ import annotations

import re
from typing import Literal

from qhk.tasks import find_form
from qhk.tasks.answer_parser import ANSWER_CLOSE, ANSWER_OPEN, BLANKS, THINK_CLOSE, THINK_OPEN, flat_object
from qhk.types import Completion, Example

_TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)
_TURN = re.compile(r"</think>\s*<answer>")
# Possessive quantifiers: a number that fails is read once.
_UNSIGNED = re.compile(r"\d++\.?\d*+")
_DIGITS_AND_POINTS = re.compile(r"[\d.]++")
# Q-Insight's lines. What follows white space that ends in a line break, (?<=\n), begins its line.
_THINK_LINE = re.compile(r"<think>[^\S\n]*+\n")
_ANSWER_LINE = re.compile(r"</think>\s*+(?<=\n)<answer>[^\S\n]*+\n")
_ANSWER_IN_BRACES = re.compile(
    r"</think>\s*+(?<=\n)<answer>\s*+(?<=\n)\{[^{}]*+\}[^\S\n]*+\n\s*+</answer>\s*+\Z"
)


def think_answer_format(completion: Completion, example: Example) -> float:
    """Return 1 for one think block that says something, then one answer block that can be read, else 0.

    White space may stand around and between the blocks, and nothing else; every tag occurs exactly once; a
    completion cut at the length limit lacks its end and earns 0. For every form of answer: readable is what
    the task's rule read, in range or not. Ours: unlike the releases' forms it cannot be satisfied with a
    second answer inside the reasoning, or with what the parser does not read.
    """
    return float(completion.answer.parsed and _well_formed_answer(completion.text) is not None)


def answer_only_format(completion: Completion, example: Example) -> float:
    """Return 1 for one answer block that can be read and nothing else but white space, else 0.

    For prompts that ask for no reasoning, such as MR-IQA's (arXiv 2606.29760), which has no format reward: an
    answer that its rule reads stands in such a block, whatever is around it. Ours.
    """
    text = completion.text.strip()
    whole = text.startswith(ANSWER_OPEN) and text.endswith(ANSWER_CLOSE)
    return float(completion.answer.parsed and whole and all(text.count(t) == (t in _TAGS[2:]) for t in _TAGS))


def tag_count_format(completion: Completion, example: Example) -> float:
    """Return the share of the four tags of reasoning and answer that occur exactly once: 0, 0.25, ... 1.

    In any order and with any content. A policy that has no format yet is told which step is in its direction,
    which a rule of all or nothing cannot. Source: the tag count of Open-R1, without its line breaks.
    """
    return sum(completion.text.count(tag) == 1 for tag in _TAGS) / len(_TAGS)


def tags_json_format(completion: Completion, example: Example) -> float:
    """Return 1 for one think block that says something, then an answer block of one flat JSON object, else 0.

    Tags and white space as in ``think_answer_format``, so an inline answer is as good as one on its own
    lines; the object must be JSON without inner braces or brackets, with whatever keys. Source: Q-Insight's
    paper (tags and one pair of braces); that it must be JSON is ours.
    """
    content = _well_formed_answer(completion.text)
    return float(content is not None and flat_object(content) is not None)


def strict_lines_json_format(completion: Completion, example: Example) -> float:
    """Return 1 for the lines of ``strict_lines_format`` with one pair of braces as the answer, else 0.

    The first brace begins its line too; anything but braces may stand between them, line breaks included.
    Source: release of Q-Insight, score and degradation.
    """
    return float(_after_reasoning(_ANSWER_IN_BRACES, completion.text) is not None)


def strict_lines_format(completion: Completion, example: Example) -> float:
    """Return 1 for reasoning, answer and their four tags on lines of their own, of any content, else 0.

    White space at the ends of lines, after the last tag and before the closing tags is not looked at; before
    ``<answer>`` it earns 0, like an inline answer and anything before the first tag, which the release's
    prompt does not tell. Both parts may hold further tags. Source: release of Q-Insight, comparison.
    """
    text = completion.text.rstrip()
    turn = _after_reasoning(_ANSWER_LINE, text)
    if turn is None or not text.endswith(ANSWER_CLOSE):
        return 0.0
    return float(_ends_in_white_line(text, turn.end(), len(text) - len(ANSWER_CLOSE)))


def q_hawkeye_release_format(completion: Completion, example: Example) -> float:
    """Return 1 for a think block of one character or more, then an answer block of digits and points, else 0.

    White space may stand around and between the blocks and around the digits, which are of any script.
    Anything goes inside the think block, further tags included, and the digits need not form a number. The
    release gives 0.8: that is the term's weight. Source: release of Q-Hawkeye.
    """
    text = completion.text.strip()
    found = _last_block(text)
    if found is None:
        return 0.0
    before, content = found[0].rstrip(), found[1].strip()
    has_reasoning = _is_reasoning(before) and len(before) > len(THINK_OPEN) + len(THINK_CLOSE)
    return float(has_reasoning and _DIGITS_AND_POINTS.fullmatch(content) is not None)


def visualquality_r1_release_format(completion: Completion, example: Example) -> float:
    """Return 1 for a think block, optional white space and an answer block of any content alone, else 0.

    Both blocks may be empty, and hold further tags. Source: release of VisualQuality-R1.
    """
    text = completion.text
    turn = _TURN.search(text, len(THINK_OPEN))
    if turn is None or not (text.startswith(THINK_OPEN) and text.endswith(ANSWER_CLOSE)):
        return 0.0
    return float(turn.end() <= len(text) - len(ANSWER_CLOSE))


def preresq_r1_release_format(
    completion: Completion, example: Example, *, form: Literal["multi_aspect", "video"]
) -> float:
    """Return 1 for a think block, then an answer block of five or two unsigned numbers on lines, else 0.

    Only white space may stand between the blocks and around the numbers (digits of any script), with a line
    break after every number; after the last of ``multi_aspect`` it may be missing, after that of ``video``
    not. Anything goes inside the think block; nothing may stand around the whole. Source: release of
    PreResQ-R1.
    """
    found = _last_block(completion.text)
    if found is None or not _is_reasoning(found[0].rstrip()):
        return 0.0
    content = found[1] + ("\n" if form == "multi_aspect" else "")
    *lines, tail = content.split("\n")
    numbers = [line.strip() for line in lines if line.strip()]
    is_whole = len(numbers) == find_form(form).num_aspects and not tail.strip()
    return float(is_whole and all(_UNSIGNED.fullmatch(number) for number in numbers))


def _well_formed_answer(text: str) -> str | None:
    """Return the answer's content in a text of one telling think block and one answer block, else None."""
    text = text.strip()
    if any(text.count(tag) != 1 for tag in _TAGS):
        return None
    if not (text.startswith(THINK_OPEN) and text.endswith(ANSWER_CLOSE)):
        return None
    reasoning, _, rest = text[len(THINK_OPEN) :].partition(THINK_CLOSE)
    rest = rest.lstrip()
    if not reasoning.strip() or not rest.startswith(ANSWER_OPEN):
        return None
    return rest[len(ANSWER_OPEN) : -len(ANSWER_CLOSE)].strip(BLANKS)


def _after_reasoning(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Return the first match that follows on reasoning whose tags stand on lines of their own, else None."""
    opening = _THINK_LINE.match(text)
    if opening is None:
        return None
    turns = pattern.finditer(text, opening.end())
    return next((turn for turn in turns if _ends_in_white_line(text, opening.end(), turn.start())), None)


def _last_block(text: str) -> tuple[str, str] | None:
    """Return what stands before and in the last answer block of a text from think tag to answer's end."""
    opened = text.rfind(ANSWER_OPEN)
    if opened < 0 or not (text.startswith(THINK_OPEN) and text.endswith(ANSWER_CLOSE)):
        return None
    return text[:opened], text[opened + len(ANSWER_OPEN) : -len(ANSWER_CLOSE)]


def _is_reasoning(text: str) -> bool:
    """Return whether a text that begins with a think tag ends with the closing one."""
    return text.endswith(THINK_CLOSE) and len(text) >= len(THINK_OPEN) + len(THINK_CLOSE)


def _ends_in_white_line(text: str, start: int, end: int) -> bool:
    """Return whether a line break between two places is followed by nothing but white space."""
    line = text.rfind("\n", start, end)
    return line >= 0 and not text[line:end].strip()
