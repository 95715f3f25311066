"""The runs of a sweep before they start: who they are, where they lie, and which of them are the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qhk.settings import Settings, run_directory, run_id
from qhk.tracking.provenance import read_provenance
from qhk.tracking.status import STATUS_FILE, RunState, read_status

FIX = "choose another study=NAME or fresh=true"


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One cell at one seed. ``changes`` are the cell's own overrides.

    ``directory`` is where the run lies; ``same_as`` names the run it shares that with, "" for none.
    ``state`` is what an earlier launch left there, None for nothing.
    """

    cell: str
    seed: int
    changes: tuple[str, ...]
    settings: Settings
    run_id: str
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
        directory=run_directory(settings),
        same_as="",
        state=None,
    )


def existing_runs(outputs: Path) -> dict[str, list[Path]]:
    """Run id -> the directories below ``outputs`` that hold a run of it, in order of their paths."""
    found: dict[str, list[Path]] = {}
    for file in sorted(outputs.glob("*/*/seed*/run_id")):
        if ".replaced-" not in file.parent.name:
            found.setdefault(file.read_text(encoding="utf-8").strip(), []).append(file.parent)
    return found


def share_runs(
    runs: Iterable[PlannedRun], *, known: Mapping[str, Sequence[Path]], code: str, fresh: bool
) -> list[PlannedRun]:
    """The runs, of which equal ones (run id and code) point to one directory: computed once.

    A run's own directory comes first, then one of another study or sweep, then an earlier cell of this one.
    With ``fresh`` nothing on disk counts. Raises ValueError, one line, where a run's own directory belongs
    to other settings, or is finished by other code.
    """
    planned: list[PlannedRun] = []
    first: dict[str, PlannedRun] = {}
    for run in runs:
        twin = first.get(run.run_id)
        if twin is not None:
            planned.append(replace(run, directory=twin.directory, same_as=twin.label, state=twin.state))
            continue
        placed = run if fresh else _place(run, known.get(run.run_id, ()), code)
        first[run.run_id] = placed
        planned.append(placed)
    return planned


def _place(run: PlannedRun, elsewhere: Sequence[Path], code: str) -> PlannedRun:
    own = run.directory / "run_id"
    if own.exists():
        found = own.read_text(encoding="utf-8").strip()
        if found != run.run_id:
            raise ValueError(f"{run.directory} belongs to run id {found}, {run.label} is {run.run_id}: {FIX}")
        if _state(run.directory) is RunState.DONE and not _same_code(run.directory, code):
            raise ValueError(f"{run.directory} was finished by other code: {FIX}")
        return replace(run, state=_state(run.directory))
    for directory in elsewhere:
        if _same_code(directory, code) and _state(directory) in SHAREABLE:
            study, name = directory.parts[-3:-1]
            label = f"{study}/{name}/{directory.name}"
            return replace(run, directory=directory, same_as=label, state=_state(directory))
    return run


SHAREABLE = (RunState.DONE, RunState.RUNNING, RunState.PENDING, RunState.PREEMPTED)
"""States of another study's run in which it is worth waiting for, rather than starting one's own."""


def _state(directory: Path) -> RunState | None:
    status = read_status(directory / STATUS_FILE)
    return None if status is None else status.state


def _same_code(directory: Path, code: str) -> bool:
    """Whether the run was made by this code; one that has not begun says nothing against it."""
    provenance = read_provenance(directory / "provenance.json")
    return provenance is None or provenance.code_digest == code
