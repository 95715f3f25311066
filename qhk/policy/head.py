"""What is read off the language head: log-probabilities, exact entropies, exact KL between two branches.

Only positions that predict a completion token reach the head, in chunks whose logits are recomputed in
the backward pass, so logits of the whole vocabulary exist for one chunk at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qhk.objective.entropy import categorical_entropy
from qhk.objective.perception import categorical_kl
from qhk.objective.total import Branch

Head = Callable[[Tensor], Tensor]


def _logits(head: Head, hidden: Tensor, temperature: float) -> Tensor:
    """(N, V) logits of the distribution that is sampled from, in float32 or wider."""
    logits = head(hidden)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits / temperature


def _pick(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)


def _in_chunks(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    chunk: int,
    *,
    is_last: bool = True,
) -> tuple[Tensor, ...]:
    """``function`` over chunks of the inputs' rows, recomputed in backward where there are several.

    One chunk is kept until then, where ``is_last`` says that no other logits come in between.
    """
    rows = inputs[0].shape[0]
    if rows <= chunk and is_last:
        return function(*inputs)
    pieces = []
    for start in range(0, rows, chunk):
        part = tuple(tensor[start : start + chunk] for tensor in inputs)
        recompute = torch.is_grad_enabled()
        pieces.append(checkpoint(function, *part, use_reentrant=False) if recompute else function(*part))
    return tuple(torch.cat(columns) for columns in zip(*pieces, strict=True))


def read_head(
    head: Head,
    hidden: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    with_entropy: bool,
    chunk: int,
    is_last: bool = True,
) -> Branch:
    """Return log-probabilities (N,) of ``targets`` (N,) under ``hidden`` (N, H), and entropies if asked for.

    Both are of the distribution at the sampling temperature. ``is_last`` is False where the head is read once
    more before the backward pass: no logits are kept meanwhile.
    """

    def one(hidden: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        logits = _logits(head, hidden, temperature)
        logprobs = _pick(logits, targets)
        return (logprobs, categorical_entropy(logits)) if with_entropy else (logprobs,)

    outputs = _in_chunks(one, (hidden, targets), chunk, is_last=is_last)
    return Branch(logprobs=outputs[0], entropy=outputs[1] if with_entropy else None)


def read_head_pair(
    head: Head, original: Tensor, degraded: Tensor, targets: Tensor, *, temperature: float, chunk: int
) -> tuple[Branch, Branch, Tensor]:
    """Return both branches (N,) and KL(original || degraded) (N,), summed over the vocabulary."""

    def one(original: Tensor, degraded: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        first, second = _logits(head, original, temperature), _logits(head, degraded, temperature)
        return (
            _pick(first, targets),
            categorical_entropy(first),
            _pick(second, targets),
            categorical_entropy(second),
            categorical_kl(first, second),
        )

    outputs = _in_chunks(one, (original, degraded, targets), chunk)
    first = Branch(logprobs=outputs[0], entropy=outputs[1])
    return first, Branch(logprobs=outputs[2], entropy=outputs[3]), outputs[4]
