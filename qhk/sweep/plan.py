"""The runs of a sweep before they start: who they are and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qhk.settings import Settings, reward_modules, run_directory, run_id
from qhk.tracking.status import RunState


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One cell at one seed. ``changes`` are the cell's own overrides.

    ``modules`` are the user's own that it takes rewards from, ``code`` is the digest of all its code, ""
    until it was compared. ``directory`` is where the run lies; ``same_as`` names the run it shares that
    with, "" for none. ``state`` is what an earlier launch left there, None for nothing.
    """

    cell: str
    seed: int
    changes: tuple[str, ...]
    settings: Settings
    run_id: str
    modules: tuple[str, ...]
    code: str
    directory: Path
    same_as: str
    state: RunState | None

    @property
    def label(self) -> str:
        """``cell/seed2``, unique in its sweep."""
        return f"{self.cell}/seed{self.seed}"


def plan_run(*, cell: str, changes: Sequence[str], settings: Settings) -> PlannedRun:
    """The run in its own directory, not yet compared with any other."""
    return PlannedRun(
        cell=cell,
        seed=settings.seed,
        changes=tuple(changes),
        settings=settings,
        run_id=run_id(settings),
        modules=tuple(sorted(reward_modules(settings))),
        code="",
        directory=run_directory(settings),
        same_as="",
        state=None,
    )
