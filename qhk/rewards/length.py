"""Penalty for answers near the length limit."""

from __future__ import annotations

from qhk.rewards.term import Positive
from qhk.types import Completion, Example


def soft_overlong(
    completion: Completion, example: Example, *, max_tokens: int, buffer_fraction: Positive
) -> float:
    """Return the soft overlong punishment in [-1, 0] of the completion's number of tokens ``n``.

    With ``buffer = buffer_fraction * max_tokens``:

    ``0``                                   where ``n <= max_tokens - buffer``
    ``(max_tokens - buffer - n) / buffer``  up to ``max_tokens``
    ``-1``                                  beyond it, and where the limit cut the completion

    ``max_tokens`` >= 1 is the budget of tokens. Source: DAPO (arXiv 2503.14476, eq. 13), whose buffer is 4096
    of 20480 tokens, so a fraction of 0.2.
    """
    if completion.truncated:
        return -1.0
    buffer = buffer_fraction * max_tokens
    over = completion.num_tokens - (max_tokens - buffer)
    return -min(max(over / buffer, 0.0), 1.0)
