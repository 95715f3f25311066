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
_UNSIGNED = re.compile(r"[0-9]++\.?[0-9]*+")
_INNER_BRACES = re.compile(r"\{[^{}]*\}")


def think_answer_format(completion: Completion, example: Example) -> float:
    """Return 1 for one think block that says something, then one answer block that can be read, else 0.

    White space may stand around and between the blocks, and nothing else; every tag occurs exactly once; a
    completion cut at the length limit lacks its end and earns 0. For every form of answer: readable is what
    the task's rule read, in range or not. Ours: unlike the releases' forms it cannot be satisfied with a
    second answer inside the reasoning, or with what the parser does not read.
    """
    return float(completion.answer.parsed and _well_formed_answer(completion.text) is not None)


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

    Anything but braces may stand between them. Source: release of Q-Insight, score and degradation.
    """
    content = _answer_on_lines(completion.text)
    return float(content is not None and _INNER_BRACES.fullmatch(content.strip()) is not None)


def strict_lines_format(completion: Completion, example: Example) -> float:
    """Return 1 for reasoning, answer and their four tags on lines of their own, of any content, else 0.

    White space at the ends of lines and after the last tag is not looked at; an inline answer or anything
    before the first tag earns 0, which the release's prompt does not tell. Source: release of Q-Insight,
    comparison; here the last answer tag begins the answer, so that none may stand inside it.
    """
    return float(_answer_on_lines(completion.text) is not None)


def q_hawkeye_release_format(completion: Completion, example: Example) -> float:
    """Return 1 for a think block of one character or more, then an answer block of digits and points, else 0.

    White space may stand around and between the blocks and around the digits. Anything goes inside the think
    block, further tags included, and the digits need not form a number. The release gives 0.8: that is the
    term's weight. Source: release of Q-Hawkeye.
    """
    text = completion.text.strip()
    found = _last_block(text)
    if found is None:
        return 0.0
    before, content = found[0].rstrip(), found[1].strip()
    has_reasoning = _is_reasoning(before) and len(before) > len(THINK_OPEN) + len(THINK_CLOSE)
    return float(has_reasoning and bool(content) and not content.strip("0123456789."))


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

    Only white space may stand between the blocks and around the numbers, with a line break after every
    number; after the last of ``multi_aspect`` it may be missing, after that of ``video`` not. Anything goes
    inside the think block; nothing may stand around the whole. Source: release of PreResQ-R1.
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


def _answer_on_lines(text: str) -> str | None:
    """Return the answer's content where reasoning, answer and tags stand on lines of their own, else None."""
    found = _last_block(text.rstrip())
    if found is None:
        return None
    before, content = found
    reasoning = before.rstrip()
    if not _is_reasoning(reasoning) or "\n" not in before[len(reasoning) :]:
        return None
    thought = reasoning[len(THINK_OPEN) : -len(THINK_CLOSE)]
    return content if _has_own_lines(thought) and _has_own_lines(content) else None


def _last_block(text: str) -> tuple[str, str] | None:
    """Return what stands before and in the last answer block of a text from think tag to answer's end."""
    opened = text.rfind(ANSWER_OPEN)
    if opened < 0 or not (text.startswith(THINK_OPEN) and text.endswith(ANSWER_CLOSE)):
        return None
    return text[:opened], text[opened + len(ANSWER_OPEN) : -len(ANSWER_CLOSE)]


def _is_reasoning(text: str) -> bool:
    """Return whether a text that begins with a think tag ends with the closing one."""
    return text.endswith(THINK_CLOSE) and len(text) >= len(THINK_OPEN) + len(THINK_CLOSE)


def _has_own_lines(content: str) -> bool:
    """Return whether a line break stands before and after what is not white space."""
    inside = content.strip()
    if not inside:
        return content.count("\n") > 1
    return "\n" in content[: content.index(inside)] and "\n" in content[len(content.rstrip()) :]
