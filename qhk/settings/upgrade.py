"""Stored configs of earlier versions, as the present one writes them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def upgrade(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config (plain data, of any version) as one of the present version.

    A config without ``version`` is of version 1. Keys that were added within a version have defaults and need
    nothing here. The input is not changed.
    """
    config = copy.deepcopy(dict(stored))
    if config.setdefault("version", 1) == 1:
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
