"""Text for a terminal: what names of files and answers of a model contain is shown, never acted on."""

from __future__ import annotations

import builtins
import unicodedata
from typing import TextIO

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of controls, of marks that turn the direction of writing, of half a surrogate."""


def plain_text(text: str) -> str:
    """Return ``text`` with escapes such as ``\\x1b`` for what has no glyph, line feeds and tabs apart."""
    return text if text.isprintable() else "".join(map(_shown, text))


def counted(number: int, noun: str) -> str:
    """Return a number with what it counts, which has an s unless it is one: ``1 image``, ``2 images``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def show_value(value: object, *, none: str = "null") -> str:
    """Return a value as a message shows it: one line, as YAML writes truth values, cut where it is long.

    ``none`` stands for None. Never raises, whatever the value's own ``repr`` does.
    """
    try:
        if getattr(value, "shape", None) == ():  # a number of NumPy or torch
            value = value.item()  # type: ignore[attr-defined]
        text = repr(value)
    except Exception:  # an integer of too many digits, nesting too deep, or a foreign class
        text = f"a {type(value).__name__}"
    if value is None or isinstance(value, bool):
        text = {None: none, True: "true", False: "false"}[value]
    text = " ".join(line.strip() for line in text.splitlines())
    return text if len(text) <= 60 else text[:57] + "..."


def _shown(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in HIDDEN:
        return character
    return character.encode("unicode_escape").decode()


def print(*values: object, end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    """Print as the builtin does, in plain text; every module of ours imports this one."""
    builtins.print(plain_text(" ".join(map(str, values))), end=end, file=file, flush=flush)
