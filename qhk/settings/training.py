"""Settings of how long and by what steps a run learns: cold start, optimiser, training, processes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qhk.errors import UserError
from qhk.settings.base import Count, Duration, Fraction, Node, NonNegative, NumOrZero, Positive, Readout


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
    ``on_collapse`` says what follows where ``tracking.collapse`` sees signs of collapse, looked for every
    ``validate_every`` steps: a warning, the end of the run as failed, or a rollback (``training.collapse``),
    of which a stage has at most ``max_rollbacks``, each with ``rollback_lr_factor`` times the learning rate.
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
