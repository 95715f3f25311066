"""From the composed config, as plain data, to typed settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from qhk.errors import UserError
from qhk.settings.problems import first_problem
from qhk.settings.root import STAGE_KEYS, Settings
from qhk.settings.upgrade import upgrade
from qhk.settings.views import StageView, stage_views, task_views


def parse_settings(plain: Mapping[str, Any]) -> Settings:
    """Return the typed settings of a resolved config; dataset entries that nothing uses are left out.

    Raises UserError, one line naming key, value and fix, for an unknown or missing key, a wrong type, a
    value out of range, or values that do not fit each other.
    """
    try:
        settings = Settings.model_validate(dict(plain))
    except ValidationError as error:
        raise UserError(first_problem(error, plain, Settings)) from None
    views = [_checked_stage(stage, plain) for stage in stage_views(settings)]
    tasks = [task for view in views for task in task_views(view).values()]
    used = {name for task in tasks for name in (*task.data, *task.benchmark)}
    kept = {name: entry for name, entry in settings.dataset.items() if name in used}
    return settings.model_copy(update={"dataset": kept})


def _checked_stage(stage: StageView, plain: Mapping[str, Any]) -> Settings:
    """Return the stage's settings, held against every rule between nodes; UserError naming the stage."""
    if not stage.name:
        return stage.settings
    whole = {
        **plain,
        **{
            key: value
            for key, value in plain["stages"][stage.name].items()
            if key not in STAGE_KEYS and value is not None
        },
        "stages": {},
    }
    try:
        return Settings.model_validate(whole)
    except ValidationError as error:
        raise UserError(f"stages.{stage.name}: {first_problem(error, whole, Settings)}") from None


def read_settings(stored: Mapping[str, Any]) -> Settings:
    """Return the typed settings of a stored config, of this version or an earlier one."""
    return parse_settings(upgrade(stored))


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain JSON-ready data, which ``parse_settings`` reads back to equal settings."""
    return settings.model_dump(mode="json", by_alias=True)
