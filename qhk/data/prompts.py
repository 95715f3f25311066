"""Chat messages from the prompt's wording, and the answer text that a cold start imitates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

from qhk.data.adapters.vocabulary import CSIQ_TYPES, KADID_TYPES, SEVERITIES, TID_TYPES
from qhk.types import MOS_HIGH, MOS_LOW, Example

LEVELS = ("bad", "poor", "fair", "good", "excellent")
"""Words for five equal parts of [1, 5], worst first."""


class Message(TypedDict):
    """One turn in the layout of Hugging Face chat templates."""

    role: str
    content: list[dict[str, str]]


def build_messages(*, user: str, system: str | None) -> list[Message]:
    """The turns of one question: an optional system turn, then the user's text with its pictures.

    Each ``{image}`` in ``user`` is the place of one picture, in the example's order; without any, the one
    picture stands before the text. A picture is a placeholder; the processor puts the pixels in. Raises
    ``ValueError`` when a text holds one of the model's own image tokens, which would stand for a picture
    that is not there, or when the system turn holds a marker.
    """
    for key, text in (("user", user), ("system", system or "")):
        stray = [token for token in _IMAGE_TOKENS if token in text]
        if stray:
            raise ValueError(
                f"prompt.{key} holds {stray[0]!r}: leave it out, {IMAGE_MARKER} marks the place of a picture"
            )
    messages: list[Message] = []
    if system is not None:
        if IMAGE_MARKER in system:
            raise ValueError(f"prompt.system holds {IMAGE_MARKER}: pictures belong to prompt.user")
        messages.append({"role": "system", "content": [{"type": "text", "text": system}]})
    messages.append({"role": "user", "content": _with_pictures(user)})
    return messages


def num_pictures(user: str) -> int:
    """How many pictures a prompt with this user text shows."""
    return max(1, user.count(IMAGE_MARKER))


def check_pictures(user: str, examples: Iterable[Example]) -> None:
    """None; ``ValueError`` naming ``prompt.user`` at the first example with another number of pictures."""
    shown = num_pictures(user)
    for example in examples:
        if len(example.images) != shown:
            raise ValueError(
                f"prompt.user shows {shown} pictures ({user.count(IMAGE_MARKER)} times {IMAGE_MARKER}), but "
                f"{example.id} of {example.dataset} has {len(example.images)}: choose a prompt and a set "
                "that belong together"
            )


def _with_pictures(user: str) -> list[dict[str, str]]:
    if IMAGE_MARKER not in user:
        return [{"type": "image"}, {"type": "text", "text": user}]
    first, *others = user.split(IMAGE_MARKER)
    content = [{"type": "text", "text": first}]
    for text in others:
        content += [{"type": "image"}, {"type": "text", "text": text}]
    return [part for part in content if part["type"] == "image" or part["text"]]


IMAGE_MARKER = "{image}"
"""What marks the place of a picture in ``prompt.user``."""

_IMAGE_TOKENS = ("<image>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|image|>")


def target_text(example: Example, *, mos: float, decimals: int, reasoning: bool) -> str:
    """What a cold start teaches for ``example``: ``<think>blurred, strong</think><answer>2.1</answer>``.

    ``mos`` is the score to write (it may carry label noise), clipped to [1, 5], with ``decimals`` digits.
    With ``reasoning`` the think part holds ``reasoning_words``, else it is empty. Supervision to disclose:
    for sets whose file names tell the distortion (kadid, csiq, tid2013) the words are the true type and
    level; elsewhere they are a level word of the same ``mos``, which adds nothing to the score.
    """
    score = min(MOS_HIGH, max(MOS_LOW, mos))
    words = reasoning_words(example.labels, mos=score) if reasoning else ""
    return f"<think>{words}</think><answer>{score:.{decimals}f}</answer>"


def reasoning_words(labels: Mapping[str, str | float], *, mos: float) -> str:
    """``appearance, severity`` where the labels tell both, else the level word of ``mos`` in [1, 5]."""
    appearance, severity = labels.get("appearance"), labels.get("severity")
    if isinstance(appearance, str) and isinstance(severity, str):
        return f"{appearance}, {severity}"
    return level_word(mos)


def level_word(mos: float) -> str:
    """The word for ``mos`` in [1, 5]: five equal parts, a boundary belongs to the better word."""
    share = (mos - MOS_LOW) / (MOS_HIGH - MOS_LOW)
    return LEVELS[min(len(LEVELS) - 1, int(share * len(LEVELS)))]


def reasoning_texts() -> list[str]:
    """Every think text that a cold start can teach, sorted: what the tiny tokenizer has to know."""
    kinds = (*KADID_TYPES.values(), *TID_TYPES.values(), *CSIQ_TYPES.values())
    appearances = {appearance for _, appearance in kinds}
    return sorted(
        {f"{appearance}, {severity}" for appearance in appearances for severity in SEVERITIES} | {*LEVELS}
    )
