"""How much the policy's words depend on what it sees: divergence between original and degraded image."""

from __future__ import annotations

import torch
from torch import Tensor


def sampled_kl(
    original_logprobs: Tensor,
    degraded_logprobs: Tensor,
    *,
    exponent_bound: float,
    value_bound: float,
) -> tuple[Tensor, Tensor]:
    """Return the k3 estimate of KL(original || degraded) per token ``(R, T)``, and where a bound acts.

    ``x = clamp(ld - lo, -exponent_bound, exponent_bound)``,  ``k = min(exp(x) - x - 1, value_bound)``

    ``lo``, ``ld`` ``(R, T)``: log-probabilities, in nats, of the tokens sampled on the original image, given
    the original and the degraded one. In float32 at least. The second result is bool ``(R, T)``. Where a
    bound acts the gradient is zero; with the release's 20 and 10 that is x > 2.611 or x < -11.0.

    Nothing is detached here: the caller chooses the branches. Expected gradients, samples held fixed: through
    ``lo`` that of KL(degraded || original), through ``ld`` that of KL(original || degraded). So with ``ld``
    detached (release) what is maximised is *not* the direction that the value estimates.
    Source: release of Q-Hawkeye (arXiv 2601.22920); PAPO (arXiv 2507.06448).
    """
    original, degraded = _at_least_float32(original_logprobs), _at_least_float32(degraded_logprobs)
    difference = degraded - original
    exponent = difference.clamp(-exponent_bound, exponent_bound)
    estimate = exponent.exp() - exponent - 1.0
    saturated = (difference.abs() > exponent_bound) | (estimate > value_bound)
    return estimate.clamp(max=value_bound), saturated.detach()


def bounded_kl(divergence: Tensor, *, value_bound: float) -> tuple[Tensor, Tensor]:
    """Return ``min(divergence, value_bound)`` per token ``(R, T)`` and where the bound acts, bool ``(R, T)``.

    Zero gradient where it acts. In nats.
    """
    return divergence.clamp(max=value_bound), (divergence > value_bound).detach()


def categorical_kl(original_logits: Tensor, degraded_logits: Tensor) -> Tensor:
    """Return KL(original || degraded) over the vocabulary per position, ``(N, V) -> (N,)``, in nats, >= 0.

    ``sum_v p_o(v) (log p_o(v) - log p_d(v))``

    In float32 at least. Gradients flow through both arguments. A token that the original rules out (logit
    minus infinity) adds nothing; one that only the degraded branch rules out gives infinity, as it should.
    """
    original = torch.log_softmax(_at_least_float32(original_logits), dim=-1)
    degraded = torch.log_softmax(_at_least_float32(degraded_logits), dim=-1)
    possible = original > -torch.inf
    # Both sides are replaced before the product: 0 * inf would poison the gradient even if masked afterwards.
    difference = torch.where(possible, original, 0.0) - torch.where(possible, degraded, 0.0)
    return (original.exp() * difference).sum(dim=-1)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
