"""Chat messages from the prompt's wording."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from qhk.errors import UserError
from qhk.types import Example


class Message(TypedDict):
    """One turn in the layout of Hugging Face chat templates."""

    role: str
    content: list[dict[str, str]]


def build_messages(*, user: str, system: str | None) -> list[Message]:
    """Return the turns of one question: an optional system turn, then the user's text with its pictures.

    Each ``{image}`` in ``user`` is the place of one picture, in the example's order; without any, the one
    picture stands before the text. A picture is a placeholder; the processor puts the pixels in. Raises
    ``UserError`` when a text holds one of the model's own image tokens, which would stand for a picture
    that is not there, or when the system turn holds a marker.
    """
    for key, text in (("user", user), ("system", system or "")):
        stray = [token for token in _IMAGE_TOKENS if token in text]
        if stray:
            raise UserError(
                f"prompt.{key} holds {stray[0]!r}: leave it out, {IMAGE_MARKER} marks the place of a picture"
            )
    messages: list[Message] = []
    if system is not None:
        if IMAGE_MARKER in system:
            raise UserError(f"prompt.system holds {IMAGE_MARKER}: pictures belong to prompt.user")
        messages.append({"role": "system", "content": [{"type": "text", "text": system}]})
    messages.append({"role": "user", "content": _with_pictures(user)})
    return messages


def with_times(
    messages: Sequence[Mapping[str, Any]], seconds: Sequence[float | None], *, form: str
) -> Sequence[Mapping[str, Any]]:
    """Return the turns with its time in words before each picture that has one: ``form`` with the seconds.

    ``seconds`` go by the order of the pictures. Where ``form`` is empty, or no time is known, the turns are
    returned as they are.
    """
    if not form or all(second is None for second in seconds):
        return messages
    times, turns = iter(seconds), list[Mapping[str, Any]]()
    for turn in messages:
        content: list[Mapping[str, str]] = []
        for part in turn["content"]:
            second = next(times) if part["type"] == "image" else None
            content += [] if second is None else [{"type": "text", "text": form.format(second)}]
            content.append(part)
        turns.append({**turn, "content": content})
    return turns


def num_pictures(user: str) -> int:
    """Return how many pictures a prompt with this user text shows."""
    return max(1, user.count(IMAGE_MARKER))


def check_pictures(user: str, examples: Iterable[Example], *, key: str = "prompt.user") -> None:
    """Raise ``UserError`` naming the text's key at the first example with another number of pictures."""
    shown = num_pictures(user)
    for example in examples:
        if len(example.images) != shown:
            raise UserError(
                f"{key} shows {shown} pictures ({user.count(IMAGE_MARKER)} times {IMAGE_MARKER}), but "
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

_IMAGE_TOKENS = (
    "<image>",
    "<image_soft_token>",
    "<start_of_image>",
    "<|image_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image|>",
)
