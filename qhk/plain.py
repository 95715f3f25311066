"""Text for a terminal: what names of files and answers of a model contain is shown, never acted on."""

from __future__ import annotations

import sys
import unicodedata
from typing import TextIO

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of controls, of marks that turn the direction of writing, of half a surrogate."""


def plain_text(text: str, *, lines: bool = False) -> str:
    """Return ``text`` with everything that no glyph stands for as an escape: ``\\x1b``, ``\\u202e``.

    Line feeds and tabs stay where ``lines`` is true. Any encoding but ASCII can hold what is returned.
    """
    if text.isprintable():
        return text
    return "".join(_shown(character, lines) for character in text)


def _shown(character: str, lines: bool) -> str:
    if (lines and character in "\n\t") or unicodedata.category(character) not in HIDDEN:
        return character
    return character.encode("unicode_escape").decode()


def say(*lines: str, file: TextIO | None = None, flush: bool = False) -> None:
    """Print lines, by default on stdout; those of a text of several stay its lines."""
    for line in lines:
        print(plain_text(line, lines=True), file=sys.stdout if file is None else file, flush=flush)
