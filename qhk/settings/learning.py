"""Settings of how the policy learns: cold start, rollout, reward, objective and its modules, optimiser."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from qhk.errors import UserError
from qhk.objective.forms import PERCEPTION_FORMS, UNCERTAINTY_FORMS
from qhk.settings.base import (
    Count,
    Duration,
    Fraction,
    Node,
    NonNegative,
    NumOrZero,
    Positive,
    Readout,
    Schedule,
    Text,
    one_of,
)


class ColdStartSettings(Node):
    """A short supervised start for a model without the skill; ``none`` is an exact no-op.

    ``label_noise`` is the standard deviation, in points of the 1 to 5 scale, added to scores, and
    ``wrong_labels`` the share of answers in words that are taught wrong. Both are ``fixed`` for an example,
    or drawn anew ``each_step``: then labels are soft, the mean over steps being the cross-entropy with their
    distribution (Gaussian labels: DeQA-Score, arXiv 2501.11561).
    ``reasoning`` says whether the taught answers hold a think part; ``final_factor`` ends the cosine.
    """

    form: Literal["none", "sft"]
    steps: NumOrZero
    batch_size: Count
    lr: Positive
    warmup_steps: NumOrZero
    weight_decay: NonNegative
    final_factor: Fraction
    max_grad_norm: Positive
    num_examples: Count
    label_noise: NonNegative
    wrong_labels: Fraction
    validate_every: Count
    reasoning: bool
    label_resample: Literal["fixed", "each_step"] = "fixed"

    @model_validator(mode="after")
    def _steps_match_form(self) -> Self:
        if self.form == "sft" and self.steps == 0:
            raise UserError("steps must be at least 1 with form sft, got 0; or choose cold_start=none")
        if self.form == "none" and self.steps != 0:
            raise UserError(f"steps must be 0 with form none, got {self.steps}; or choose cold_start=sft")
        if self.warmup_steps > self.steps:
            raise UserError(
                f"warmup_steps is {self.warmup_steps}, more than all {self.steps} steps: "
                f"give warmup_steps as well, 0 to {self.steps}"
            )
        return self


LinearLayer = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""The linear layers of a block of the language model, by the names that families share."""


class AdapterSettings(Node):
    """Low-rank matrices beside frozen weights: LoRA (arXiv 2106.09685); ``adapter=none`` has no such node.

    A layer of weight W gives ``W x + alpha / rank * B A x``, with B zero at the start. ``targets`` are layers
    of the language model; ``vision`` and ``merger`` add all linear layers of the vision tower and of what
    leads from it to the language model. ``lr_factor`` times ``optimizer.lr`` is the learning rate. ``qlora``
    keeps the frozen weights in 4 bits (arXiv 2305.14314).
    """

    form: Literal["lora", "qlora"]
    rank: Count
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: list[LinearLayer]
    vision: bool
    merger: bool
    lr_factor: Positive

    @model_validator(mode="after")
    def _adapts_something(self) -> Self:
        if not (self.targets or self.vision or self.merger):
            raise UserError("targets must name a layer, or set vision or merger to true, got []")
        if len(set(self.targets)) != len(self.targets):
            raise UserError(f"targets must differ from each other, got {self.targets}")
        return self


def _absent(value: object) -> object:
    return None if value == {} else value


Adapter = Annotated[AdapterSettings | None, BeforeValidator(_absent)]
"""None, also written ``{}``: all weights are trained."""


class CorrectionSettings(Node):
    """Truncated importance weights between what sampled and what is trained; ``none`` is an exact no-op.

    See ``qhk.objective.correction`` for ``level`` and ``bound``.
    """

    level: Literal["none", "token", "sequence"]
    bound: Annotated[float, Field(ge=1)]


UNCORRECTED = CorrectionSettings(level="none", bound=2.0)
"""Of a run whose policy samples for itself, and of configs from before there was another engine."""


class VllmSettings(Node):
    """How vLLM samples; see ``qhk.rollout.vllm``.

    ``colocated``: every process has an engine of its own on its GPU, of which ``gpu_memory_utilization`` is
    vLLM's share while it samples; it ``sleep``s while the policy learns, and with ``enforce_eager`` captures
    no graphs. ``server``: all processes ask the one at ``url``, which reads weights from the folder
    ``exchange``. ``adapter`` says whether a LoRA adapter
    is handed over ``merged`` into whole weights, or ``alone``. ``max_model_len`` null is what the longest
    prompt and answer need. A step whose mean gap between sampling and training log-probability, in nats per
    token, is above ``max_logprob_gap`` ends the run: such an engine samples from another model.
    """

    mode: Literal["colocated", "server"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+$")] | None
    exchange: Text
    adapter: Literal["merged", "alone"]
    max_model_len: Count | None
    gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)]
    sleep: bool
    enforce_eager: bool
    max_logprob_gap: Positive

    @model_validator(mode="after")
    def _server_has_an_address(self) -> Self:
        if (self.mode == "server") != (self.url is not None):
            raise UserError(
                f"url must be an address with mode server and null otherwise, got {self.url} with {self.mode}"
            )
        return self


class RolloutSettings(Node):
    """How completions are sampled; ``decode_batch`` bounds the sequences decoded together.

    ``engine`` says by what: the ``policy`` itself, exactly as it is trained, or vLLM.
    """

    group_size: Annotated[int, Field(ge=2)]
    max_new_tokens: Count
    temperature: Positive
    decode_batch: Count
    engine: Literal["policy", "vllm"] = "policy"
    correction: CorrectionSettings = UNCORRECTED
    vllm: VllmSettings | None = None

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.decode_batch < self.group_size:
            raise UserError(
                f"decode_batch must be at least group_size {self.group_size}, got {self.decode_batch}"
            )
        return self

    @model_validator(mode="after")
    def _engine_has_its_settings(self) -> Self:
        if (self.engine == "vllm") != (self.vllm is not None):
            raise UserError(
                f"engine {self.engine} goes {'with' if self.engine == 'vllm' else 'without'} the node vllm; "
                "choose rollout=vllm, rollout=vllm_server or rollout=default"
            )
        if self.engine == "policy" and self.correction.level != "none":
            raise UserError(
                f"correction.level {self.correction.level} has no effect with engine policy, which samples "
                "exactly what is trained; leave it none, or choose rollout=vllm"
            )
        return self


class RewardTermSettings(Node):
    """One reward term: the dotted path of a function, its weight, and its keyword arguments."""

    model_config = ConfigDict(extra="allow", populate_by_name=False)

    target: Annotated[str, Field(alias="_target_", pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
    weight: Positive

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the term's function."""
        return dict(self.model_extra or {})


class RewardSettings(Node):
    """Named reward terms; the names become metric names.

    ``schedules`` multiply numbers of terms over the run, by term and key: a weight, or a number that the
    term's function takes, such as a threshold that narrows.
    """

    terms: Annotated[dict[str, RewardTermSettings], Field(min_length=1)]
    schedules: dict[str, dict[str, Schedule]] = {}

    @property
    def scheduled(self) -> dict[str, Schedule]:
        """The schedules by ``term.key``."""
        return {f"{name}.{key}": one for name, keys in self.schedules.items() for key, one in keys.items()}

    @model_validator(mode="after")
    def _schedules_have_a_number(self) -> Self:
        for place, schedule in self.scheduled.items():
            name, _, key = place.rpartition(".")
            term = self.terms.get(name)
            value = None if term is None else term.weight if key == "weight" else term.arguments.get(key)
            if not isinstance(value, int | float) or isinstance(value, bool):
                known = ", ".join(
                    f"{name}.{key}"
                    for name, one in self.terms.items()
                    for key, number in {"weight": one.weight, **one.arguments}.items()
                    if isinstance(number, int | float) and not isinstance(number, bool)
                )
                raise UserError(f"schedules.{place} must name a number of a term, one of {known}")
            reaches_zero = schedule.final == 0 and schedule.until is not None
            reaches_zero |= schedule.final == 0 and schedule.form != "constant"
            warms_from_zero = schedule.warmup_from == "zero" and (
                schedule.warmup.steps or schedule.warmup.epochs
            )
            if key != "weight" and (reaches_zero or warms_from_zero):
                raise UserError(
                    f"schedules.{place} must stay above 0, got final {schedule.final:g} and warmup_from "
                    f"{schedule.warmup_from}; only a weight may be 0"
                )
        return self

    @property
    def specs(self) -> dict[str, dict[str, Any]]:
        """The terms as plain data, by name: what they are built from."""
        return {name: term.model_dump(by_alias=True) for name, term in self.terms.items()}


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


class OptimizerSettings(Node):
    """The optimiser of the reinforcement stage.

    ``adamw_stochastic`` is for weights in bfloat16, ``adamw_8bit`` as well, with moments in 8 bits.
    """

    form: Literal["adamw", "adamw_stochastic", "adamw_8bit"]
    lr: Positive
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Field(strict=False)
    ]
    eps: Positive
    weight_decay: NonNegative
    max_grad_norm: Positive


class TrainingSettings(Node):
    """Length, batch and rhythm of a run.

    ``learner: supervised`` is the matched control: the same examples in order, labels as answers.
    ``prompts_per_step`` counts over all processes; ``prompts_per_device`` is the micro-batch of one.
    ``on_collapse`` says what follows where ``tracking.collapse`` sees signs of collapse at a validation: a
    warning, the end of the run as failed, or a rollback (``training.collapse``), of which a stage has at most
    ``max_rollbacks``, each with ``rollback_lr_factor`` times the learning rate.
    """

    learner: Literal["reinforcement", "supervised"]
    duration: Duration
    prompts_per_step: Count
    prompts_per_device: Count
    log_every: Count
    validate_every: Count
    checkpoint_every: Count
    keep_every: Count | None
    threads: Annotated[Count, Field(le=1024)]
    validation_readout: Readout
    on_collapse: Literal["warn", "stop", "rollback"] = "warn"
    max_rollbacks: Count = 3
    rollback_lr_factor: Annotated[float, Field(gt=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        if self.prompts_per_step % self.prompts_per_device:
            raise UserError(
                f"prompts_per_step must be a multiple of prompts_per_device {self.prompts_per_device}, "
                f"got {self.prompts_per_step}"
            )
        if not (self.duration.steps or self.duration.epochs):
            raise UserError("duration must be above 0; set duration.steps or duration.epochs")
        return self


class DistributedSettings(Node):
    """How many processes train one policy, and by which engine."""

    form: Literal["single", "ddp", "fsdp2", "zero2", "zero3"]
