"""Overrides put together of several lists, for commands, which take each key once."""

from __future__ import annotations

from collections.abc import Iterable


def last_of_each(words: Iterable[str]) -> list[str]:
    """Return the words without values that a later word replaces or deletes; deletions stay, once."""
    kept: list[str] = []
    for word in words:
        key = _key(word)
        kept = [one for one in kept if one != word and (one.startswith("~") or _key(one) != key)]
        kept.append(word)
    return kept


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]
