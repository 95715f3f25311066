"""Which terms a step's loss has, and what each of them asks the policy for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qhk.errors import UserError
from qhk.objective.aggregate import Aggregation
from qhk.objective.forms import PERCEPTION_FORMS
from qhk.objective.policy import Ratio
from qhk.objective.reference import Estimator

EntropyForm = Literal["off", "sampled", "exact"]
EntropyScope = Literal["completion", "answer"]


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
    ``entropy`` is not off. ``constant_length`` is read by the aggregation ``constant`` alone. ``UserError``
    on an unknown form and on a negative coefficient.
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
        for key, value in (
            ("objective.kl_coef", self.kl_coef),
            ("objective.entropy_coef", self.entropy_coef),
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
        return Needs(
            reference=self.kl_coef != 0.0,
            original_entropy=self.entropy_coef != 0.0 or (entropy == "exact" and self.eta_original != 0.0),
            degraded=kl or (entropy != "off" and self.eta_degraded != 0.0),
            degraded_entropy=degraded_entropy,
            degraded_gradient=(kl and form is not None and form.degraded_gradient) or degraded_entropy,
            exact_kl=kl and form is not None and form.exact,
            answer_tokens=self.entropy_coef != 0.0 and self.entropy_scope == "answer",
        )
