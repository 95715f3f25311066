"""Stored configs of earlier versions, as the present one writes them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
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
    _split_data(config)
    for part in _parts(config):
        _split_data(part)
        if part.get("loading") == config["loading"]:
            part["loading"] = None


def _parts(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the stages, and the further tasks of the run and of every stage."""
    stages = list(config["stages"].values())
    mixtures = [node.get("mixture") or {} for node in (config, *stages)]
    return [*stages, *(part for mixture in mixtures for part in mixture.values())]


def _split_data(node: dict[str, Any]) -> None:
    if node.get("data") is not None:
        node["loading"] = dict(node["data"])
        node["data"] = node["loading"].pop("sets")
