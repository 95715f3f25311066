"""Checks of a run's settings that need more than the settings: whether its rewards and rules can be built."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from qhk.errors import UserError
from qhk.rewards.compose import build_terms
from qhk.rewards.term import BatchTerm, Judge
from qhk.settings.parse import parse_settings
from qhk.settings.reward import RewardSettings
from qhk.settings.root import Settings
from qhk.settings.views import stage_views, task_views
from qhk.tasks import build_task


def checked_settings(command: str, plain: Mapping[str, Any]) -> Settings:
    """Return the typed settings of a command's resolved config. Raises UserError for any mistake."""
    settings = parse_settings(plain)
    _check_reward(settings)
    if settings.perturbation.corruptions and find_spec("imagecorruptions") is None:
        raise UserError("perturbation.corruptions: needs imagecorruptions; pip install 'qhk[robustness]'")
    if command == "train":
        _check_narrow_weights(settings)
        _check_uncertainty(settings)
        if settings.checkpoint is not None:
            raise UserError(
                f"checkpoint: {settings.checkpoint} has no effect on training; "
                "a run resumes by itself, and model.path starts one from other weights"
            )
    return settings


def _check_narrow_weights(settings: Settings) -> None:
    """Raise UserError where training would lose its small updates in the rounding of bfloat16 weights.

    An adapter's are float32; a cold start trains the weights below it.
    """
    if settings.adapter is not None and settings.cold_start.form == "none":
        return
    if settings.model.dtype == "bfloat16" and settings.optimizer.form == "adamw":
        raise UserError(
            f"optimizer.form: adamw loses updates of about lr {settings.optimizer.lr:g} in weights of "
            "model.dtype bfloat16; choose optimizer=adamw_stochastic, or model.dtype=float32"
        )


def _check_uncertainty(settings: Settings) -> None:
    """Raise UserError where a weight by the spread of scores is on and cannot read any.

    No task of any stage has scores, or one that has them does not know the rule that is to read them.
    """
    stages = [stage.settings for stage in stage_views(settings)]
    if settings.training.learner != "reinforcement":
        return
    weighing = [stage for stage in stages if stage.uncertainty.form != "none" and stage.uncertainty.alpha > 0]
    tasks = [build_task(view.task) for stage in weighing for view in task_views(stage).values()]
    if tasks and not any(task.has_scores for task in tasks):
        raise UserError(
            f"uncertainty.form: {weighing[0].uncertainty.form} weighs groups by the spread of their scores, "
            f"but task.form {tasks[0].form} is answered in words; choose uncertainty=none"
        )
    for stage in weighing:
        rule = stage.uncertainty.answer_rule
        for task in (build_task(view.task) for view in task_views(stage).values()):
            if rule is not None and task.has_scores and rule not in task.rules:
                raise UserError(
                    f"uncertainty.answer_rule: {rule} reads no answers of task.form {task.form}; "
                    f"use null, or one of {', '.join(task.rules)}"
                )


def _check_reward(settings: Settings) -> None:
    """Raise UserError where a reward term of any stage is not one that can be built."""
    for view in (view for stage in stage_views(settings) for view in task_views(stage.settings).values()):
        for term in build_terms(view.reward.specs):
            if isinstance(term, BatchTerm) and not build_task(view.task).has_scores:
                raise UserError(
                    f"reward.terms.{term.name}: compares scores, but task.form {view.task.form} is answered "
                    "in words; choose a reward made for this task"
                )
        _check_reward_schedules(view.reward)


def _check_reward_schedules(reward: RewardSettings) -> None:
    """Raise UserError where a term could not be built of a value that its schedule comes to."""
    for place, schedule in reward.scheduled.items():
        name, _, key = place.rpartition(".")
        spec = reward.specs[name]
        # A weight may fade to 0, which no term is built with.
        for factor in () if key == "weight" else (1.0, schedule.final):
            value = spec[key] * factor
            try:
                (term,) = build_terms({name: {**spec, key: value}})
            except UserError as error:
                raise UserError(f"reward.schedules.{place}: comes to {value:g}, but {error}") from None
            if isinstance(term.function, Judge):
                raise UserError(
                    f"reward.schedules.{place}: {spec['_target_']} takes its settings once; "
                    f"schedule {name}.weight, or leave this out"
                )
