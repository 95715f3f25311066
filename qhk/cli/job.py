"""One job: its overrides, composed and checked into typed settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from qhk.cli.arguments import COMMANDS
from qhk.cli.command import Job
from qhk.config.catalogue import Catalogue
from qhk.errors import UserError
from qhk.rewards.compose import build_terms
from qhk.rewards.term import BatchTerm
from qhk.settings.base import Node
from qhk.settings.identity import run_name
from qhk.settings.inputs import DatasetSettings
from qhk.settings.parse import parse_settings
from qhk.settings.problems import first_problem
from qhk.settings.root import Settings
from qhk.settings.views import stage_views, task_views
from qhk.tasks import build_task


def prepare(command: str, overrides: Sequence[str], catalogue: Catalogue) -> Job:
    """The checked job of a command and its overrides. Raises ValueError, one line, for any mistake."""
    from qhk.config.compose import choice_of, compose_config, overruled_choices, plain_config
    from qhk.config.stage_overrides import refuse_overruled_by_stages

    config = compose_config(command, overrides, catalogue)
    plain = plain_config(config)
    if plain.pop("sweep", None) is not None:
        raise UserError(
            f"sweep={choice_of('sweep', overrides)}: has no effect on qhk {command}; leave it out"
        )
    request = _take_request(plain, COMMANDS[command].request)
    settings = _checked(command, plain)
    if command == "train":
        refuse_overruled_by_stages(overrides, config, catalogue)
    if settings.name is None:
        name = run_name(choice_of("experiment", overrides), overrides)
        settings = settings.model_copy(update={"name": name})
    return Job(
        settings=settings,
        datasets={name: DatasetSettings.model_validate(entry) for name, entry in plain["dataset"].items()},
        overrides=tuple(overrides),
        request=request,
        notes=tuple(overruled_choices(command, overrides, config, catalogue)),
    )


def prepare_seeds(overrides: Sequence[str], seeds: Sequence[int], catalogue: Catalogue) -> list[Settings]:
    """The checked settings of training runs that differ in their seed alone, composed once.

    Raises ValueError, one line, for any mistake.
    """
    from qhk.config.compose import compose_config, plain_config
    from qhk.config.stage_overrides import refuse_overruled_by_stages

    config = compose_config("train", overrides, catalogue)
    refuse_overruled_by_stages(overrides, config, catalogue)
    found = []
    for seed in seeds:
        config.seed = seed
        plain = plain_config(config)
        plain.pop("sweep", None)
        found.append(_checked("train", plain))
    return found


def _checked(command: str, plain: dict[str, Any]) -> Settings:
    settings = parse_settings(plain)
    _check_reward(settings)
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
    """Raises ValueError where training would lose its small updates in the rounding of bfloat16 weights."""
    if settings.model.dtype == "bfloat16" and settings.optimizer.form == "adamw":
        raise UserError(
            f"optimizer.form: adamw loses updates of about lr {settings.optimizer.lr:g} in weights of "
            "model.dtype bfloat16; choose optimizer=adamw_stochastic, or model.dtype=float32"
        )


def _check_uncertainty(settings: Settings) -> None:
    """Raises ValueError where a weight by the spread of scores is on and no task of any stage has scores."""
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


def _check_reward(settings: Settings) -> None:
    """Raises ValueError where a reward term of any stage is not one that can be built."""
    for view in (view for stage in stage_views(settings) for view in task_views(stage.settings).values()):
        for term in build_terms(view.reward.specs):
            if isinstance(term, BatchTerm) and not build_task(view.task).has_scores:
                raise UserError(
                    f"reward.terms.{term.name}: compares scores, but task.form {view.task.form} is answered "
                    "in words; choose a reward made for this task"
                )


def _take_request(plain: dict[str, Any], request: type[Node] | None) -> Node | None:
    """Takes the keys that only this command has out of the config."""
    if request is None:
        return None
    own = {key: plain.pop(key) for key in request.model_fields if key in plain}
    try:
        return request.model_validate(own)
    except ValidationError as error:
        raise UserError(first_problem(error, own, request)) from None
