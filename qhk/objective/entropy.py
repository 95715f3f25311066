"""Exact entropy of the next-token distribution."""

from __future__ import annotations

import torch
from torch import Tensor


def categorical_entropy(logits: Tensor) -> Tensor:
    """Return the entropy over the vocabulary at each position, ``(N, V) -> (N,)``, in nats, in [0, log V].

    ``H = -sum_v p(v) log p(v)``,  ``p = softmax(logits)``

    In float32 at least, with gradient. Tokens that are ruled out (logit minus infinity) add nothing.
    """
    values = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_p = torch.log_softmax(values, dim=-1)
    # Replaced before the product: 0 * inf would poison the gradient.
    return -(log_p.exp() * torch.where(log_p > -torch.inf, log_p, 0.0)).sum(dim=-1)
