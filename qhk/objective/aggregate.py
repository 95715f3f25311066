"""From per-token values to one number: weights that divide once, by global counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from qhk.errors import UserError

Aggregation = Literal["sequence_mean", "token_mean", "constant"]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much one optimizer update covers: all ranks and all micro-batches together.

    ``sequences`` completions, ``tokens`` tokens under the mask, ``answer_tokens`` those of them inside an
    answer, None where no term asks. Losses of micro-batches are *summed* (an engine that averages over
    accumulation steps or ranks must be undone by whoever knows it).
    """

    sequences: int
    tokens: int
    answer_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.sequences < 1 or self.tokens < 0:
            raise UserError(
                f"counts: need sequences >= 1 and tokens >= 0, got {self.sequences} and {self.tokens}"
            )


def token_weights(
    mask: Tensor, *, aggregation: Aggregation, counts: Counts, constant_length: int | None
) -> Tensor:
    """Return every token's weight, ``(R, T)`` float64, 0 outside the mask: ``loss = sum(w * per_token)``.

    sequence_mean  ``1 / (|o_r| * counts.sequences)``         mean over tokens, then over completions (GRPO)
    token_mean     ``1 / counts.tokens``                      every token alike (DAPO, arXiv 2503.14476)
    constant       ``1 / (constant_length * counts.sequences)``   no length bias (Dr. GRPO, arXiv 2503.20783)

    ``mask`` bool ``(R, T)``. A completion without tokens weighs nothing but stays in ``counts.sequences``.
    ``constant_length`` is read by ``constant`` alone; ``UserError`` where it is then missing.
    """
    weights = mask.to(torch.float64)
    if aggregation == "sequence_mean":
        length = weights.sum(dim=1, keepdim=True).clamp(min=1.0)
        return weights / (length * counts.sequences)
    if aggregation == "token_mean":
        return weights / max(counts.tokens, 1)
    if aggregation == "constant":
        if constant_length is None or constant_length < 1:
            raise UserError(
                f"objective.constant_length: got {constant_length}; aggregation constant needs a number >= 1"
            )
        return weights / (constant_length * counts.sequences)
    raise UserError(
        f"objective.aggregation: unknown {aggregation!r}; use sequence_mean, token_mean or constant"
    )
