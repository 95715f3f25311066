"""The short runs whose numbers are on record: a name, the words of the command line, where the run starts.

Everything that could be a matter of taste is spelled out (strengths, prompts, lengths, group sizes), so that
the numbers follow from what stands here and not from what an option happens to hold.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One run: the words of its command line beside ``COMMON``, and how it is run.

    ``start`` names the case whose last checkpoint is the model to start from; None starts from scratch with
    a cold start. ``processes`` above 1 run together under gloo. ``stopped`` runs get SIGTERM in their
    second step and are started again.
    """

    words: tuple[str, ...]
    start: str | None = None
    processes: int = 1
    stopped: bool = False


COMMON = (
    "training.duration={steps: 3, epochs: null}",
    "training.prompts_per_step=4",
    "training.prompts_per_device=2",
    "training.log_every=1",
    "training.validate_every=3",
    "training.checkpoint_every=3",
    "training.threads=1",
    "training.validation_readout.num_samples=1",
    "training.validation_readout.temperature=0.0",
    "evaluation=greedy",
    "evaluation.bootstrap=0",
    "rollout.group_size=4",
    "rollout.temperature=1.0",
    "rollout.decode_batch=256",
    "optimizer=adamw",
    "optimizer.lr=8e-4",
    "optimizer.betas=[0.9, 0.99]",
    "optimizer.max_grad_norm=1.0",
    "lr_schedule=cosine",
    "lr_schedule.warmup={steps: 1, epochs: null}",
    "lr_schedule.final=0.1",
    "loading.limit=6",
    "loading.augmentation=none",
    "loading.validation_limit=3",
    "tracking=none",
    "seed=0",
)
"""What all cases share."""

COLD = (
    "model.tiny.whitening_images=8",
    "cold_start=sft",
    "cold_start.batch_size=8",
    "cold_start.lr=3e-3",
    "cold_start.warmup_steps=3",
    "cold_start.num_examples=8",
    "cold_start.label_noise=0.5",
    "cold_start.wrong_labels=0.35",
    "cold_start.reasoning=true",
)
"""A supervised start from nothing, on few examples, until some answers can be read."""

WARM = ("model=checkpoint", "cold_start=none")
"""The start from a checkpoint of another case."""

SCORES = (
    "prompt=score_short",
    "rollout.max_new_tokens=14",
    "benchmark={miniature_spaq:{limit:4}}",
)
"""The plain task of one score per image."""

DEGRADATIONS = (
    "prompt@mixture.degradation.prompt=degradation_short",
    "mixture.degradation.data=miniature_degradation",
    "mixture.degradation.benchmark={miniature_degradation:{limit:4}}",
)
"""The second task of ``mixture=degradation``, on its miniature set."""

COMPARISONS = (
    "prompt@stages.comparisons.prompt=comparison_short",
    "stages.comparisons.data=miniature_comparison",
    "stages.comparisons.benchmark={miniature_comparison:{limit:4}}",
    "rollout.max_new_tokens=24",
)
"""The second stage of ``stages=scores_then_comparisons``, on its miniature set."""

TWINS = (
    "twin=generated",
    "twin.strengths={noise: 30.0, blur: 1.2, jpeg: 12.0, darken: 0.6}",
    "twin.resample=fixed",
)
FADING = (
    "perception.gamma_schedule.form=cosine",
    "perception.gamma_schedule.until={steps: null, epochs: 5.0}",
    "perception.gamma_schedule.final=0.0",
)

TINY_REWARD = (
    "reward=q_hawkeye",
    "reward.terms.accuracy.tau=0.7",
    "reward.terms.format.weight=0.25",
)
TINY_OBJECTIVE = ("objective=grpo", "objective.kl_coef=0.01")
TINY_UNCERTAINTY = ("uncertainty=exponential", "uncertainty.alpha=1.0")
TINY_PERCEPTION = (
    "perception=exact",
    "perception.gamma=2e-3",
    "perception.eta_original=1e-3",
    "perception.eta_degraded=1e-3",
    *FADING,
    *TWINS,
)
DEFAULT = (*TINY_REWARD, *TINY_OBJECTIVE, *TINY_UNCERTAINTY, *TINY_PERCEPTION, *SCORES)
"""The two modules at the strengths of the tiny model."""

PUBLISHED = (
    "reward.terms.accuracy.tau=0.3",
    "reward.terms.format.weight=0.8",
    "objective.kl_coef=0.04",
)


def experiment(name: str, *words: str) -> tuple[str, ...]:
    return (f"experiment={name}", "scale=miniature", *words)


CASES: dict[str, Case] = {
    "default": Case((*DEFAULT, *COLD, "cold_start.steps=45", "cold_start.validate_every=15")),
    "default_resumed": Case(DEFAULT + WARM, start="default", stopped=True),
    "default_undisturbed": Case(DEFAULT + WARM, start="default"),
    "two_processes": Case((*DEFAULT, *WARM, "distributed=ddp"), start="default", processes=2),
    "supervised_control": Case(
        experiment("supervised_control", *DEFAULT, *WARM, "optimizer.lr=1e-3"), start="default"
    ),
    "q_hawkeye_steady": Case(
        experiment(
            "q_hawkeye_steady",
            *PUBLISHED,
            "uncertainty.alpha=0.2",
            "perception.gamma=1e-4",
            "perception.eta_original=1e-3",
            "perception.eta_degraded=1e-3",
            "objective.kl_coef=0.05",
            "training.on_collapse=rollback",
            *FADING,
            *TWINS,
            *SCORES,
            *WARM,
        ),
        start="default",
    ),
    "q_hawkeye": Case(
        experiment(
            "q_hawkeye",
            *PUBLISHED,
            "uncertainty.alpha=0.2",
            "perception.gamma=1e-4",
            "perception.eta_original=1e-3",
            "perception.eta_degraded=1e-3",
            *FADING,
            *TWINS,
            *SCORES,
            *WARM,
        ),
        start="default",
    ),
    "grpo_baseline": Case(experiment("grpo_baseline", *PUBLISHED, *SCORES, *WARM), start="default"),
    "q_hawkeye_release": Case(
        experiment(
            "q_hawkeye_release",
            *PUBLISHED,
            "reward.terms.repetition.weight=1.0",
            "uncertainty.alpha=0.2",
            "perception.gamma=0.05",
            *FADING,
            *TWINS,
            *SCORES,
            *WARM,
        ),
        start="default",
    ),
    "visualquality_r1": Case(
        experiment("visualquality_r1", "objective.kl_coef=0.04", *SCORES, *WARM), start="default"
    ),
    "mr_iqa": Case(experiment("mr_iqa", "objective.kl_coef=0.02", *SCORES, *WARM), start="default"),
    "evoquality": Case(experiment("evoquality", "objective.kl_coef=0.04", *SCORES, *WARM), start="default"),
    "papo": Case(
        experiment(
            "papo",
            *PUBLISHED[:2],
            "objective.kl_coef=0.01",
            "perception.gamma=0.01",
            "perception.eta_original=0.03",
            "perception.eta_degraded=0.03",
            *SCORES,
            *WARM,
        ),
        start="default",
    ),
    "vppo": Case(
        experiment("vppo", *PUBLISHED[:2], "objective.kl_coef=0.0", *SCORES, *WARM), start="default"
    ),
    "q_insight": Case(
        experiment(
            "q_insight",
            "objective.kl_coef=0.001",
            "prompt=score_json_short",
            "rollout.max_new_tokens=40",
            "benchmark={miniature_spaq:{limit:4}}",
            *DEGRADATIONS,
            *COLD,
            "cold_start.steps=40",
            "cold_start.validate_every=40",
        )
    ),
    "q_insight_comparison": Case(
        experiment(
            "q_insight_comparison",
            "objective.kl_coef=0.001",
            "prompt=comparison_short",
            "rollout.max_new_tokens=24",
            "benchmark={miniature_comparison:{limit:4}}",
            *COLD,
            "cold_start.batch_size=4",
            "cold_start.steps=25",
            "cold_start.validate_every=25",
        )
    ),
    "preresq_r1_iqa": Case(
        experiment(
            "preresq_r1_iqa",
            "objective.kl_coef=0.04",
            "prompt=multi_aspect_short",
            "rollout.max_new_tokens=36",
            "benchmark={miniature_spaq:{limit:4}}",
            *COLD,
            "cold_start.steps=40",
            "cold_start.validate_every=40",
        )
    ),
    "preresq_r1_vqa": Case(
        experiment(
            "preresq_r1_vqa",
            "objective.kl_coef=0.04",
            "prompt=video_short",
            "rollout.max_new_tokens=24",
            "benchmark={miniature_video:{limit:4}}",
            *COLD,
            "cold_start.batch_size=4",
            "cold_start.steps=25",
            "cold_start.validate_every=25",
        )
    ),
    "mixture": Case(
        (
            *DEFAULT,
            "task=score_json",
            "prompt=score_json_short",
            "mixture=degradation",
            *DEGRADATIONS,
            "rollout.max_new_tokens=40",
            *WARM,
        ),
        start="q_insight",
    ),
    "scores_then_comparisons": Case(
        (
            *DEFAULT,
            "stages=scores_then_comparisons",
            *COMPARISONS,
            *COLD,
            "cold_start.steps=40",
            "cold_start.validate_every=40",
        )
    ),
    "everything_at_once": Case(
        (
            *DEFAULT,
            "uncertainty.history_decay=0.5",
            "uncertainty.schedule={form: linear, warmup: {steps: 2, epochs: null}, until: null, final: 1.0}",
            "perception.gamma=0.05",
            "objective.kl_coef=0.1",
            "objective.kl_placement=reward",
            "objective.updates_per_rollout=2",
            "objective.clip_low=0.02",
            "objective.clip_high=0.02",
            "objective.max_resamples=2",
            "objective.minimum_std=0.3",
            "objective.entropy_coef=0.01",
            "objective.entropy_scope=answer",
            "twin.resample=each_epoch",
            "loading.augmentation=dihedral",
            *WARM,
        ),
        start="default",
    ),
    "frozen_vision": Case(
        (*DEFAULT, "model.freeze_vision=true", "objective.updates_per_rollout=2", *WARM), start="default"
    ),
    "perception_paper": Case(
        (
            *DEFAULT,
            "perception=paper",
            "perception.gamma=0.05",
            "perception.aggregation=sequence_mean",
            "uncertainty=rank",
            "uncertainty.alpha=0.5",
            "objective=clip_higher",
            "objective.updates_per_rollout=2",
            *WARM,
        ),
        start="default",
    ),
    "dapo_linear": Case(
        (
            *DEFAULT,
            "reward=q_hawkeye_overlong",
            "reward.terms.accuracy.tau=0.7",
            "objective=dapo",
            "objective.max_resamples=2",
            "objective.kl_coef=0.0",
            "uncertainty=linear",
            "uncertainty.alpha=0.5",
            "uncertainty.normaliser=batch_relative",
            *WARM,
        ),
        start="default",
    ),
    "gspo_inverse": Case(
        (
            *DEFAULT,
            "objective=gspo",
            "objective.updates_per_rollout=2",
            "objective.kl_coef=0.0",
            "uncertainty=inverse",
            "uncertainty.alpha=1.0",
            *WARM,
        ),
        start="default",
    ),
    "dr_grpo_stochastic": Case(
        (
            *TINY_REWARD,
            *SCORES,
            "objective=dr_grpo",
            "objective.kl_coef=0.02",
            "objective.kl_estimator=k2",
            "perception=none",
            "uncertainty=none",
            "optimizer=adamw_stochastic",
            "optimizer.weight_decay=0.1",
            *WARM,
        ),
        start="default",
    ),
}
"""By name; a case that another one starts from stands before it."""
