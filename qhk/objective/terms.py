"""Which terms a step's loss has, and what each of them asks the policy for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qhk.errors import UserError
from qhk.objective.aggregate import Aggregation
from qhk.objective.credit import Scope
from qhk.objective.forms import PERCEPTION_FORMS
from qhk.objective.policy import Ratio, Surrogate
from qhk.objective.reference import Estimator

EntropyForm = Literal["off", "sampled", "exact"]
EntropyScope = Literal["completion", "answer"]
Covariance = Literal["none", "clip", "kl"]
Dependency = Literal["none", "vppo", "pgpo"]


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the terms of a step ask the policy for; all else costs no forward pass.

    ``reference``, ``degraded``: a branch at all; ``degraded_gradient``: that branch with gradient;
    ``original_entropy``, ``degraded_entropy``: exact entropies; ``exact_kl``: KL over the vocabulary;
    ``answer_tokens``: which tokens stand in the answer.
    """

    reference: bool
    original_entropy: bool
    degraded: bool
    degraded_entropy: bool
    degraded_gradient: bool
    exact_kl: bool
    answer_tokens: bool


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Which terms the loss has and how strong each is at this step: the settings after schedules.

    ``kl_coef`` is that of the KL in the loss: 0 where it is taken off the reward. ``gamma`` is gamma_t.
    ``eta_original`` and ``eta_degraded`` act only where ``perception`` is not none and
    ``entropy`` is not off. ``constant_length`` is read by the aggregation ``constant`` alone, ``soft_*`` by
    the surrogate ``sapo``. What follows ``eta_degraded`` says which tokens the policy term learns from
    (``qhk.objective.credit``): of which part of a completion, the share with the largest entropies, those
    whose covariance is not clipped (``kl``: those are penalised by ``covariance_kl_coef``), and those that
    depend on the picture, with the numbers of ``visual_credit`` and ``gated_credit``. ``UserError`` on an
    unknown form and on a negative coefficient.
    """

    ratio: Ratio
    clip_low: float | None
    clip_high: float | None
    aggregation: Aggregation
    constant_length: int | None
    kl_coef: float
    kl_estimator: Estimator
    entropy_coef: float
    entropy_scope: EntropyScope
    perception: str
    gamma: float
    exponent_bound: float
    value_bound: float
    perception_aggregation: Aggregation
    entropy: EntropyForm
    eta_original: float
    eta_degraded: float
    surrogate: Surrogate = "clip"
    soft_positive: float = 1.0
    soft_negative: float = 1.05
    credit: Scope = "completion"
    entropy_share: float = 1.0
    covariance: Covariance = "none"
    covariance_kl_coef: float = 1.0
    dependency: Dependency = "none"
    dependency_share: float = 0.4
    dependency_lowest: float = 0.9
    dependency_threshold: float = 0.5
    dependency_strength: float = 1.0

    def __post_init__(self) -> None:
        if self.perception not in PERCEPTION_FORMS:
            raise UserError(
                f"perception.form: unknown {self.perception!r}; use one of {', '.join(PERCEPTION_FORMS)}"
            )
        if self.entropy not in ("off", "sampled", "exact"):
            raise UserError(f"perception.entropy: unknown {self.entropy!r}; use off, sampled or exact")
        if self.entropy_scope not in ("completion", "answer"):
            raise UserError(
                f"objective.entropy_scope: unknown {self.entropy_scope!r}; use completion or answer"
            )
        if self.dependency not in ("none", "vppo", "pgpo"):
            raise UserError(f"dependency.form: unknown {self.dependency!r}; use none, vppo or pgpo")
        for key, value in (
            ("objective.kl_coef", self.kl_coef),
            ("objective.entropy_coef", self.entropy_coef),
            ("objective.covariance.kl_coef", self.covariance_kl_coef),
            ("perception.gamma", self.gamma),
            ("perception.eta_original", self.eta_original),
            ("perception.eta_degraded", self.eta_degraded),
        ):
            if not value >= 0.0:
                raise UserError(f"{key}: got {value}; must be >= 0")

    def needs(self) -> Needs:
        """Return what must be computed for this step."""
        form = PERCEPTION_FORMS[self.perception]
        kl = form is not None and self.gamma != 0.0
        entropy = self.entropy if form is not None else "off"
        degraded_entropy = entropy == "exact" and self.eta_degraded != 0.0
        dependency = self.dependency != "none"
        return Needs(
            reference=self.kl_coef != 0.0,
            original_entropy=self.entropy_coef != 0.0
            or self.entropy_share < 1.0
            or (entropy == "exact" and self.eta_original != 0.0),
            degraded=kl or dependency or (entropy != "off" and self.eta_degraded != 0.0),
            degraded_entropy=degraded_entropy,
            degraded_gradient=(kl and form is not None and form.degraded_gradient) or degraded_entropy,
            exact_kl=dependency or (kl and form is not None and form.exact),
            answer_tokens=self.credit != "completion"
            or (self.entropy_coef != 0.0 and self.entropy_scope == "answer"),
        )
