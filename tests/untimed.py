"""What two runs of the same settings agree in: all that they recorded but times, rates and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEASURED = ("time/", "memory/")
"""Beginnings of the names that no two runs agree in; rates end in ``_per_s``."""


def untimed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values whose names say neither a time, nor a rate, nor memory."""
    return {
        name: value
        for name, value in values.items()
        if not name.startswith(MEASURED) and not name.endswith("_per_s")
    }


def untimed_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``results.json`` whose figures are without times."""
    return {**row, "figures": untimed(row["figures"])}
