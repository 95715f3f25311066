"""Settings of the loss: objective, uncertainty weight, token credit and perception."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qhk.errors import UserError
from qhk.objective.forms import PERCEPTION_FORMS, UNCERTAINTY_FORMS
from qhk.settings.base import Count, Fraction, Node, NonNegative, NumOrZero, Positive, Schedule, Text, one_of


class CovarianceSettings(Node):
    """What becomes of the tokens whose covariance takes most entropy away; ``none`` is an exact no-op.

    See ``qhk.objective.credit``: ``clip`` draws ``share`` of all tokens among those between ``low`` and
    ``high`` and leaves them out; ``kl`` holds the ``share`` with the largest to the old policy, by
    ``kl_coef``.
    """

    form: Literal["none", "clip", "kl"]
    share: Annotated[float, Field(gt=0, le=1)]
    low: float
    high: float
    kl_coef: NonNegative

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.low >= self.high:
            raise UserError(f"low must be below high, got {self.low} and {self.high}")
        return self


NO_COVARIANCE = CovarianceSettings(form="none", share=2e-4, low=1.0, high=5.0, kl_coef=1.0)


class ObjectiveSettings(Node):
    """The policy loss, its reference penalty, and which groups, completions and tokens it learns from.

    ``truncated`` says what a completion cut at the length limit does, ``max_resamples`` how many times a
    group of equal rewards, or of a spread below ``minimum_std``, gives its place to a fresh prompt, at most.
    ``advantage_rewards`` says whether the total is normalised in a group, or each reward before they add.
    ``credit`` and ``entropy_share`` say which tokens the policy term learns from.
    """

    ratio: Literal["token", "sequence"]
    clip_low: Annotated[float, Field(gt=0, lt=1)] | None
    clip_high: Positive | None
    updates_per_rollout: Count
    aggregation: Literal["sequence_mean", "token_mean", "constant"]
    constant_length: Count | None
    advantage_scaling: Literal["group_std", "batch_std", "none"]
    advantage_epsilon: NonNegative
    truncated: Literal["keep", "mask", "exclude"]
    max_resamples: NumOrZero
    kl_coef: NonNegative
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_placement: Literal["loss", "reward"]
    entropy_coef: NonNegative
    entropy_scope: Literal["completion", "answer"]
    surrogate: Literal["clip", "cispo", "sapo"] = "clip"
    soft_positive: Positive = 1.0
    soft_negative: Positive = 1.05
    advantage_rewards: Literal["total", "each"] = "total"
    minimum_std: NonNegative = 0.0
    credit: Literal["completion", "reasoning", "answer"] = "completion"
    entropy_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    covariance: CovarianceSettings = NO_COVARIANCE

    @model_validator(mode="after")
    def _sapo_has_no_bounds(self) -> Self:
        if self.surrogate == "sapo" and (self.clip_low, self.clip_high) != (None, None):
            raise UserError(
                f"clip_low and clip_high must be null with surrogate sapo, which reads none, got "
                f"{self.clip_low} and {self.clip_high}; choose objective=sapo"
            )
        return self

    @model_validator(mode="after")
    def _covariance_has_an_update_to_hold(self) -> Self:
        if self.covariance.form == "kl" and self.updates_per_rollout == 1:
            raise UserError(
                "updates_per_rollout must be at least 2 with covariance.form kl, got 1: in the first update "
                "no token has left the old policy, and the term is 0"
            )
        return self

    @model_validator(mode="after")
    def _each_reward_is_scaled_by_its_group(self) -> Self:
        if self.advantage_rewards == "total":
            return self
        if self.advantage_scaling != "group_std":
            raise UserError(
                "advantage_scaling must be group_std with advantage_rewards each, got "
                f"{self.advantage_scaling}"
            )
        if self.kl_placement == "reward" and self.kl_coef > 0:
            raise UserError(
                "kl_placement must be loss with advantage_rewards each, got reward: a KL is no reward to "
                "normalise by itself; or set kl_coef to 0"
            )
        return self

    @model_validator(mode="after")
    def _constant_has_length(self) -> Self:
        if (self.aggregation == "constant") != (self.constant_length is not None):
            raise UserError(
                "constant_length must be a number of tokens with aggregation constant and null otherwise, "
                f"got {self.constant_length} with {self.aggregation}"
            )
        return self


class UncertaintySettings(Node):
    """The weight of a group by the spread of its scores; ``none`` is an exact no-op.

    ``answer_rule`` reads the scores whose spread it is; null is the task's own rule.
    """

    form: Annotated[str, one_of(UNCERTAINTY_FORMS)]
    alpha: NonNegative
    normaliser: Literal["fixed_maximum", "batch_relative"]
    minimum_parsed: Count
    unparsed_weight: Annotated[float, Field(gt=0, le=1)] | Literal["minimum"]
    out_of_range: Literal["clip", "refuse"]
    history_decay: Annotated[float, Field(ge=0, lt=1)]
    schedule: Schedule
    answer_rule: Text | None = None

    @model_validator(mode="after")
    def _weights_stay_positive(self) -> Self:
        if self.form == "none" and (self.alpha > 0 or self.history_decay > 0):
            raise UserError(
                f"alpha {self.alpha} and history_decay {self.history_decay} have no effect with form none; "
                "choose an uncertainty option such as exponential, or leave them at 0"
            )
        largest = UNCERTAINTY_FORMS[self.form].largest_alpha
        if self.alpha > largest:
            raise UserError(f"alpha must be at most {largest:g} with form {self.form}, got {self.alpha}")
        return self


class DependencySettings(Node):
    """How the advantage is shared out among tokens by their dependency on the picture; ``none`` is a no-op.

    ``vppo`` reads ``share`` and ``lowest``, ``pgpo`` reads ``threshold`` and ``strength``: see
    ``visual_credit`` and ``gated_credit`` in ``qhk.objective.credit``.
    """

    form: Literal["none", "vppo", "pgpo"]
    share: Annotated[float, Field(gt=0, le=1)]
    lowest: Fraction
    threshold: Fraction
    strength: NonNegative


NO_DEPENDENCY = DependencySettings(form="none", share=0.4, lowest=0.9, threshold=0.5, strength=1.0)


class PerceptionSettings(Node):
    """The divergence between original and degraded image, which training raises; ``none`` is a no-op."""

    form: Annotated[str, one_of(PERCEPTION_FORMS)]
    gamma: NonNegative
    gamma_schedule: Schedule
    exponent_bound: Positive
    value_bound: Positive
    aggregation: Literal["token_mean", "sequence_mean"]
    entropy: Literal["off", "sampled", "exact"]
    eta_original: NonNegative
    eta_degraded: NonNegative

    @model_validator(mode="after")
    def _nothing_is_set_while_off(self) -> Self:
        if self.form == "none" and (self.gamma > 0 or self.entropy != "off"):
            raise UserError(
                f"gamma {self.gamma} and entropy {self.entropy} have no effect with form none; "
                "choose a perception option such as exact, or leave them alone"
            )
        return self

    @model_validator(mode="after")
    def _entropy_is_on_if_weighted(self) -> Self:
        if self.entropy == "off" and (self.eta_original > 0 or self.eta_degraded > 0):
            raise UserError(
                f"eta_original {self.eta_original} and eta_degraded {self.eta_degraded} have no effect with "
                "entropy off; set entropy to exact or both to 0"
            )
        return self
