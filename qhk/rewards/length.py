"""Rewards for the length of a completion."""

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


def length_band(
    completion: Completion, example: Example, *, shortest: int, longest: int, slope: Positive
) -> float:
    """Return 1 for ``shortest <= n <= longest`` tokens, falling to 0 over ``slope`` tokens on either side.

    ``max(0, 1 - d / slope)``, d the tokens that lack or are too many; 0 where the limit cut the completion.
    It asks for reasoning without asking for more of it. The first and last length are >= 0. Ours.
    """
    if completion.truncated:
        return 0.0
    missing = max(shortest - completion.num_tokens, completion.num_tokens - longest, 0)
    return max(1.0 - missing / slope, 0.0)
