"""Which tokens of a completion stand in a span of its text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def tokens_in_span(tokenizer: Any, ids: Tensor, span: tuple[int, int]) -> Tensor:
    """Return which tokens ``ids`` (T,) hold a character of the half-open, non-empty ``span``, bool (T,).

    ``span`` counts characters of the decoded text without special tokens. A token that reaches over an edge
    of the span, as a merge of a tag's end with a digit does, is inside. Found by bisection on the decoded
    length of prefixes, which never falls: about 2 log2 T decodings, whatever the tokenizer.
    """

    def num_characters(num_tokens: int) -> int:
        return len(tokenizer.decode(ids[:num_tokens], skip_special_tokens=True))

    # Token k holds the characters from num_characters(k) to num_characters(k + 1).
    first = _bisect(len(ids), lambda k: num_characters(k + 1) > span[0])
    behind = _bisect(len(ids), lambda k: num_characters(k) >= span[1])
    places = torch.arange(len(ids))
    return (places >= first) & (places < behind)


def tokens_before(tokenizer: Any, ids: Tensor, place: int) -> int | None:
    """Return how many of ``ids`` (T,) make up the first ``place`` characters of their text, or None.

    None where a token reaches over that place. Tokens without characters at the place are counted.
    """
    count = _bisect(len(ids), lambda k: len(tokenizer.decode(ids[: k + 1], skip_special_tokens=True)) > place)
    text = tokenizer.decode(ids, skip_special_tokens=True)
    before = tokenizer.decode(ids[:count], skip_special_tokens=True)
    return count if before == text[:place] else None


def _bisect(limit: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest k in [0, limit) with ``holds(k)``, which is monotone in k; else ``limit``."""
    low, high = 0, limit
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
