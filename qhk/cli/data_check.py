"""``qhk data check``: holds the named sets against what is known of them."""

from __future__ import annotations

from qhk.cli.compose import choice_of
from qhk.cli.display import ConsoleDisplay
from qhk.cli.requests import CheckRequest
from qhk.settings import Settings
from qhk.training.data import load_sets


def run(settings: Settings, overrides: list[str], request: CheckRequest) -> int:
    """0 where every set is as expected, 2 where one is not. Raises ValueError for bad input."""
    settings = with_root(settings, checked_names(settings, overrides), request.root)
    for name, loaded in load_sets(settings, checked_names(settings, overrides), ConsoleDisplay()).items():
        counts = ", ".join(f"{split} {len(part)}" for split, part in loaded.examples.items())
        print(f"{name}: {counts}; fingerprint {loaded.fingerprint[:12]}")
    return 0


def checked_names(settings: Settings, overrides: list[str]) -> list[str]:
    """The sets that the command line names by ``data`` or ``benchmark``; all in use where it names none."""
    named = {group: choice_of(group, overrides) is not None for group in ("data", "benchmark")}
    either = any(named.values())
    sets = list(settings.data.sets) if named["data"] or not either else []
    return list(dict.fromkeys(sets + (list(settings.benchmark) if named["benchmark"] or not either else [])))


def with_root(settings: Settings, names: list[str], root: str | None) -> Settings:
    """The settings with ``root`` in the one set that is named. Raises ValueError where several are."""
    if root is None:
        return settings
    if len(names) != 1:
        raise ValueError(
            f"root: {root} stands for one set, {len(names)} are named ({', '.join(names)}); "
            f"write dataset.{names[0]}.root={root} for each"
            if names
            else "root: no set is named"
        )
    entry = settings.dataset[names[0]].model_copy(update={"root": root})
    return settings.model_copy(update={"dataset": {**settings.dataset, names[0]: entry}})
