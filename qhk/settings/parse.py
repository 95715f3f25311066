"""From a config as plain data, composed or stored by any version, to typed settings, and back."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qhk.errors import UserError
from qhk.files import read_yaml
from qhk.settings.problems import validated
from qhk.settings.root import STAGE_KEYS, VERSION, Settings
from qhk.settings.views import StageView, stage_views, task_views

CHECKPOINT_CONFIG = "qhk.yaml"
"""The stored config of a run in the folder of its weights."""


def parse_settings(plain: Mapping[str, Any]) -> Settings:
    """Return the typed settings of a resolved config; dataset entries that nothing uses are left out.

    Raises UserError, one line naming key, value and fix, for an unknown or missing key, a wrong type, a
    value out of range, or values that do not fit each other.
    """
    settings = validated(Settings, plain)
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
    return validated(Settings, whole, where=f"stages.{stage.name}: ")


def read_settings(file: Path) -> Settings:
    """Return the typed settings of a stored config, of this version or an earlier one.

    Raises UserError, one line naming the file, where it holds something else.
    """
    stored = read_yaml(file)
    try:
        return parse_settings(upgrade(stored))
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain JSON-ready data, which ``parse_settings`` reads back to equal settings."""
    return settings.model_dump(mode="json", by_alias=True)


def upgrade(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config (plain data, of any version) as one of the present version.

    A config without ``version`` is of version 1. Keys that were added within a version have defaults and need
    nothing here. The input is not changed. Raises UserError for a version that is not known here.
    """
    config = copy.deepcopy(dict(stored))
    version = config.setdefault("version", 1)
    if version not in (1, VERSION):
        raise UserError(
            f"version: must be at most {VERSION}, got {version!r}; a later qhk wrote this config, so read it "
            "with that one"
        )
    if version == 1:
        _from_1_to_2(config)
    return config


def _from_1_to_2(config: dict[str, Any]) -> None:
    """Change a config of version 1 in place.

    - ``data`` held the weights as ``data.sets`` beside what is now ``loading``, in every part of a run.
    """
    config["version"] = 2
    stages = list((config.get("stages") or {}).values())
    for node in (config, *stages):
        for part in (node, *(node.get("mixture") or {}).values()):
            _split_data(part)
    own, read = config.get("loading"), [stage.get("loading") or config.get("loading") for stage in stages]
    # A part without a loading of its own reads as what encloses it: left out only where that is the same.
    for stage, enclosing in zip(stages, read, strict=True):
        _leave_out_loading((stage.get("mixture") or {}).values(), [enclosing])
    shared = [one for stage, one in zip(stages, read, strict=True) if stage.get("mixture") is None]
    _leave_out_loading((config.get("mixture") or {}).values(), [own, *shared])
    _leave_out_loading(stages, [own])


def _leave_out_loading(parts: Iterable[dict[str, Any]], enclosing: Sequence[Any]) -> None:
    for part in parts:
        if all(part.get("loading") == other for other in enclosing):
            part["loading"] = None


def _split_data(node: dict[str, Any]) -> None:
    if node.get("data") is not None:
        node["loading"] = dict(node["data"])
        node["data"] = node["loading"].pop("sets", None)
