"""The one place where the terms of the objective meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from qhk.errors import UserError
from qhk.objective.aggregate import Aggregation, Counts, token_weights
from qhk.objective.credit import Scope, gated_credit, top_tokens, visual_credit
from qhk.objective.forms import PERCEPTION_FORMS
from qhk.objective.perception import bounded_kl, sampled_kl
from qhk.objective.policy import policy_loss
from qhk.objective.reference import kl_estimate
from qhk.objective.terms import Needs, Terms

__all__ = ["Branch", "LossOutput", "Needs", "NonFiniteTermError", "Terms", "check_finite", "total_loss"]

T = TypeVar("T")


class NonFiniteTermError(FloatingPointError):
    """A term of the loss is NaN or infinite."""


@dataclass(frozen=True, kw_only=True)
class Branch:
    """What one image of a group gives: log-probabilities, in nats, of the sampled tokens; maybe entropies.

    ``logprobs (R, T)``; ``entropy (R, T)`` exact, over the vocabulary, or None where no term asks for it.
    """

    logprobs: Tensor
    entropy: Tensor | None


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """The loss, a scalar with gradient, and what each term measured in this micro-batch: (sum, count).

    Sums are unweighted (no coefficient, no normalisation) and detached; sum / count, both added up over
    micro-batches and ranks, is the mean. A term that is off has no entry. Names: ``policy``, ``clipped``
    (share of tokens), ``credited`` (share of tokens that the policy term learns from), ``reference_kl``,
    ``entropy``, ``perception_kl``, ``perception_saturated`` (share of tokens), ``entropy_original``,
    ``entropy_degraded``, counted in tokens; ``logprob_sum_original`` and ``logprob_sum_degraded``, counted
    in completions.
    """

    loss: Tensor
    sums: dict[str, tuple[float, int]]


def total_loss(
    *,
    mask: Tensor,
    advantages: Tensor,
    original: Branch,
    old_logprobs: Tensor | None,
    reference_logprobs: Tensor | None,
    degraded: Branch | None,
    exact_kl: Tensor | None,
    counts: Counts,
    terms: Terms,
    answer_mask: Tensor | None = None,
    correction: Tensor | None = None,
    selected: Tensor | None = None,
    group_size: int = 1,
) -> LossOutput:
    """Return a micro-batch's loss, to be *summed* over micro-batches and ranks, and what terms measured.

    ``L = policy + kl_coef KL(policy||reference) - entropy_coef H
    - gamma KL(original||degraded) + eta_original H_original + eta_degraded H_degraded``

    ``mask`` bool ``(R, T)``; ``advantages (R,)`` already times the uncertainty weight; all else ``(R, T)``.
    Policy, reference KL and entropy bonus (which *raises* the policy's entropy) share ``terms.aggregation``;
    the perception KL, maximised, has its own; ``counts`` are those of the whole update. With entropy scope
    ``answer`` the bonus is on the tokens of bool ``answer_mask (R, T)`` alone and divides by their number: a
    longer thought does not dilute it, and keeping the scores diverse does not loosen the wording; a
    completion without an answer gets none. ``correction (R, T)`` are the weights of completions that another
    engine sampled (``correction_weights``): they multiply the policy term, token by token, and no other.

    So do the weights of ``qhk.objective.credit``, which say which tokens an advantage goes to; several at
    once multiply. With ``terms.credit`` answer or reasoning the policy term is on the tokens inside
    ``answer_mask`` or on the others, and divides by their number. ``selected`` bool ``(R, T)`` are the tokens
    of the largest covariance: with ``terms.covariance`` clip they leave the policy term, with kl they add
    ``covariance_kl_coef |lp - old|`` (arXiv 2505.22617), 0 in the first update on a rollout. Rows are whole
    groups of ``group_size``. Perception forms:

    release  k3 with the degraded branch detached here: its expected gradient *ascends*
             KL(degraded||original), through the original branch alone. The release takes the token mean over
             a micro-batch, this over the update.
    paper    k3 with gradient through both branches. The body of the paper was not at hand: this rests on its
             figure, which shows the policy trained on the degraded image too, and on its abstract.
    papo     as paper: PAPO's objective as it is written (arXiv 2507.06448), with numbers of its own.
    exact    ``exact_kl``, over the vocabulary at each position, both branches with gradient: the direction
             that the value states, with less variance (ours).

    Perception entropies, which are *penalised* (PAPO's aim, arXiv 2507.06448: keep both low):

    exact    ``+ eta`` times the token mean of ``Branch.entropy``, with gradient where the branch has one.
    sampled  ``- eta`` times the sum of log-probabilities of each completion, mean over completions: what the
             release calls entropy and never switches on. Its expected gradient on the original branch is
             zero, and the degraded branch is detached. Measured as ``logprob_sum_*``, for it is no entropy.

    A term whose coefficient is 0, or whose form is none, adds no operation: loss and gradient are bit for bit
    those of a loss without it. Values outside the mask, NaN included, change nothing. Sums in float32 at
    least. Raises ``UserError`` where a term that is on lacks its tensor, ``NonFiniteTermError`` naming the
    first term that is not finite.
    """
    ledger = _Ledger(mask, counts, terms)
    logprobs = ledger.inside(original.logprobs)
    per_token, clipped = policy_loss(
        logprobs,
        None if old_logprobs is None else ledger.inside(old_logprobs),
        advantages,
        mask,
        ratio=terms.ratio,
        clip_low=terms.clip_low,
        clip_high=terms.clip_high,
        surrogate=terms.surrogate,
        soft_positive=terms.soft_positive,
        soft_negative=terms.soft_negative,
    )
    if correction is not None:
        per_token = per_token * ledger.inside(correction.detach())
    credit = _token_credit(ledger, original, exact_kl, selected, group_size)
    if credit is not None:
        per_token = per_token * credit.to(per_token.dtype)
    if terms.covariance == "kl" and old_logprobs is not None:
        chosen = _require(selected, "objective.covariance.form", terms.covariance, "the selected tokens")
        moved = (logprobs - ledger.inside(old_logprobs).detach()).abs()
        per_token = per_token + terms.covariance_kl_coef * torch.where(ledger.mask & chosen, moved, 0.0)
    ledger.measure("policy", per_token)
    ledger.measure("clipped", clipped)
    part = _within(ledger, answer_mask, terms.credit, "objective.credit", terms.credit)
    if credit is not None or part is not ledger:
        ledger.measure("credited", part.mask if credit is None else part.mask & (credit > 0))
    loss = part.aggregate(per_token, terms.aggregation)
    scoped: dict[str, tuple[float, int]] = {}
    if terms.kl_coef != 0.0:
        reference = _require(reference_logprobs, "objective.kl_coef", terms.kl_coef, "reference log-probs")
        divergence = kl_estimate(logprobs, ledger.inside(reference), estimator=terms.kl_estimator)
        ledger.measure("reference_kl", divergence)
        loss = loss + terms.kl_coef * ledger.aggregate(divergence, terms.aggregation)
    if terms.entropy_coef != 0.0:
        entropy = _require(original.entropy, "objective.entropy_coef", terms.entropy_coef, "exact entropies")
        key = "objective.entropy_coef"
        scope = _within(ledger, answer_mask, terms.entropy_scope, key, terms.entropy_coef)
        entropy = scope.inside(entropy)
        scope.measure("entropy", entropy)
        loss = loss - terms.entropy_coef * scope.aggregate(entropy, terms.aggregation)
        scoped = {} if scope is ledger else scope.sums()
    if terms.perception != "none" and terms.gamma != 0.0:
        divergence = _perception_kl(ledger, original, degraded, exact_kl)
        loss = loss - terms.gamma * ledger.aggregate(divergence, terms.perception_aggregation)
    if terms.perception != "none" and terms.entropy != "off":
        loss = _add_entropies(loss, ledger, original, degraded)
    sums = {**ledger.sums(), **scoped}
    check_finite(sums)
    return LossOutput(loss=loss, sums=sums)


def check_finite(sums: Mapping[str, tuple[float, int]]) -> None:
    """Raise ``NonFiniteTermError`` naming the first term whose sum is NaN or infinite."""
    for name, (value, _) in sums.items():
        if not math.isfinite(value):
            raise NonFiniteTermError(f"loss term {name} is {value}")


class _Ledger:
    """Mask, counts and terms of one micro-batch, and the sums measured so far."""

    def __init__(self, mask: Tensor, counts: Counts, terms: Terms) -> None:
        self.mask, self.counts, self.terms = mask, counts, terms
        self._measured: dict[str, Tensor] = {}

    def inside(self, values: Tensor) -> Tensor:
        """Return ``values`` where the mask holds, 0 elsewhere: padding reaches neither loss nor gradient."""
        return torch.where(self.mask, values, 0.0).to(torch.promote_types(values.dtype, torch.float32))

    def aggregate(self, per_token: Tensor, aggregation: Aggregation) -> Tensor:
        weights = token_weights(
            self.mask,
            aggregation=aggregation,
            counts=self.counts,
            constant_length=self.terms.constant_length,
        )
        return (weights.to(per_token.dtype) * per_token).sum()

    def measure(self, name: str, per_token: Tensor) -> None:
        self._measured[name] = torch.where(self.mask, per_token.detach(), 0).sum(dtype=torch.float64)

    def sums(self) -> dict[str, tuple[float, int]]:
        """Return all sums with their counts, fetched from the device at once."""
        fetched = torch.stack([self.mask.sum(dtype=torch.float64), *self._measured.values()]).tolist()
        num_tokens, num_completions = int(fetched[0]), len(self.mask)
        return {
            name: (value, num_completions if name.startswith("logprob_sum") else num_tokens)
            for name, value in zip(self._measured, fetched[1:], strict=True)
        }


def _within(
    ledger: _Ledger, answer_mask: Tensor | None, scope: Scope, key: str, value: float | str
) -> _Ledger:
    """The same micro-batch, of which only the tokens inside answers count, or only those outside."""
    if scope == "completion":
        return ledger
    inside = _require(answer_mask, key, value, "the places of the answers")
    number = _require(ledger.counts.answer_tokens, key, value, "the counts of the answers' tokens")
    if scope == "reasoning":
        inside, number = ~inside, ledger.counts.tokens - number
    counts = Counts(sequences=ledger.counts.sequences, tokens=number)
    return _Ledger(ledger.mask & inside, counts, ledger.terms)


def _token_credit(
    ledger: _Ledger,
    original: Branch,
    exact_kl: Tensor | None,
    selected: Tensor | None,
    group_size: int,
) -> Tensor | None:
    """(R, T) weights of the policy term; None where every token weighs alike."""
    terms, weights = ledger.terms, list[Tensor]()
    if terms.entropy_share < 1.0:
        key = "objective.entropy_share"
        entropy = _require(original.entropy, key, terms.entropy_share, "exact entropies")
        weights.append(top_tokens(entropy, ledger.mask, share=terms.entropy_share))
    if terms.covariance == "clip":
        key = "objective.covariance.form"
        weights.append(~_require(selected, key, terms.covariance, "the selected tokens"))
    if terms.dependency != "none":
        key = "dependency.form"
        dependency = _require(exact_kl, key, terms.dependency, "KL values over the vocabulary")
        weights.append(
            visual_credit(
                dependency,
                ledger.mask,
                group_size=group_size,
                share=terms.dependency_share,
                lowest=terms.dependency_lowest,
            )
            if terms.dependency == "vppo"
            else gated_credit(
                dependency,
                ledger.mask,
                threshold=terms.dependency_threshold,
                strength=terms.dependency_strength,
            )
        )
    return torch.stack([one.to(torch.float64) for one in weights]).prod(dim=0) if weights else None


def _perception_kl(
    ledger: _Ledger, original: Branch, degraded: Branch | None, exact_kl: Tensor | None
) -> Tensor:
    terms = ledger.terms
    form = PERCEPTION_FORMS[terms.perception]
    assert form is not None, "a perception term has a form"
    if form.exact:
        exact = _require(exact_kl, "perception.gamma", terms.gamma, "KL values over the vocabulary")
        divergence, saturated = bounded_kl(ledger.inside(exact), value_bound=terms.value_bound)
    else:
        branch = _require(degraded, "perception.gamma", terms.gamma, "log-probs on the degraded image")
        divergence, saturated = sampled_kl(
            ledger.inside(original.logprobs),
            ledger.inside(branch.logprobs if form.degraded_gradient else branch.logprobs.detach()),
            exponent_bound=terms.exponent_bound,
            value_bound=terms.value_bound,
        )
    ledger.measure("perception_kl", divergence)
    ledger.measure("perception_saturated", saturated)
    return divergence


def _add_entropies(loss: Tensor, ledger: _Ledger, original: Branch, degraded: Branch | None) -> Tensor:
    terms = ledger.terms
    if terms.eta_original != 0.0:
        loss = loss + terms.eta_original * _entropy(ledger, "original", original, terms.eta_original)
    if terms.eta_degraded != 0.0:
        key = "perception.eta_degraded"
        branch = _require(degraded, key, terms.eta_degraded, "values on the degraded image")
        if terms.entropy == "sampled":
            branch = Branch(logprobs=branch.logprobs.detach(), entropy=None)
        loss = loss + terms.eta_degraded * _entropy(ledger, "degraded", branch, terms.eta_degraded)
    return loss


def _entropy(ledger: _Ledger, name: str, branch: Branch, eta: float) -> Tensor:
    if ledger.terms.entropy == "sampled":
        logprobs = ledger.inside(branch.logprobs)
        ledger.measure(f"logprob_sum_{name}", logprobs)
        return -logprobs.sum() / ledger.counts.sequences
    exact = _require(branch.entropy, f"perception.eta_{name}", eta, f"exact entropies on the {name} image")
    entropy = ledger.inside(exact)
    ledger.measure(f"entropy_{name}", entropy)
    return ledger.aggregate(entropy, "token_mean")


def _require(value: T | None, key: str, setting: float | str, what: str) -> T:
    if value is None:
        off = "turn it off" if isinstance(setting, str) else "set it to 0"
        raise UserError(f"{key}: is {setting}, but {what} are missing; compute them or {off}")
    return value
