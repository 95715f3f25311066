"""From the composed config, as plain data, to typed settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from qhk.settings.problems import first_problem
from qhk.settings.root import Settings


def parse_settings(plain: Mapping[str, Any]) -> Settings:
    """The typed settings of a resolved config; dataset entries that nothing uses are left out.

    Raises ValueError, one line naming key, value and fix, for an unknown or missing key, a wrong type, a
    value out of range, or values that do not fit each other.
    """
    try:
        settings = Settings.model_validate(dict(plain))
    except ValidationError as error:
        raise ValueError(first_problem(error, plain, Settings)) from None
    used = {*settings.data.sets, *settings.benchmark}
    for part in settings.mixture.values():
        used |= {*part.data.sets, *part.benchmark}
    kept = {name: entry for name, entry in settings.dataset.items() if name in used}
    return settings.model_copy(update={"dataset": kept})


def plain_settings(settings: Settings) -> dict[str, Any]:
    """The settings as plain JSON-ready data, which ``parse_settings`` reads back to equal settings."""
    return settings.model_dump(mode="json", by_alias=True)
