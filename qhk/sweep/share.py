"""Which runs of a plan are the same as another, there already or planned before: computed once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from qhk.errors import UserError
from qhk.settings import Settings
from qhk.sweep.plan import PlannedRun
from qhk.tracking.provenance import changed_sets, read_provenance
from qhk.tracking.run_directory import known_run_id
from qhk.tracking.status import STATUS_FILE, RunState, read_status

FIX = "choose another study=NAME or fresh=true"

SHAREABLE = (RunState.DONE, RunState.RUNNING, RunState.PENDING, RunState.PREEMPTED)
"""States of another study's run in which it is worth waiting for, rather than starting one's own."""

NAMED = 3
"""How many runs a line names before it only counts."""


@dataclass(frozen=True, kw_only=True)
class Existing:
    """Runs on disk: their directories by run id, and the code that a sweep has submitted one for."""

    directories: Mapping[str, Sequence[Path]]
    submitted: Mapping[Path, str]


def existing_runs(outputs: Path) -> Existing:
    """The runs below ``outputs``, in order of their paths. Raises ValueError at a file that is none."""
    found: dict[str, list[Path]] = {}
    for file in sorted(outputs.glob("*/*/seed*/run_id")):
        if ".replaced-" not in file.parent.name:
            found.setdefault(file.read_text(encoding="utf-8").strip(), []).append(file.parent)
    submitted: dict[Path, str] = {}
    for file in sorted(outputs.glob("sweeps/*/sweep.json")):
        submitted |= _submitted(file)
    return Existing(directories=found, submitted=submitted)


def _submitted(file: Path) -> dict[Path, str]:
    """The code of each run's directory, of a sweep of this version or an earlier one."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {Path(run["directory"]): run.get("code") or content["code"] for run in content["runs"]}
    except (KeyError, TypeError, ValueError) as fault:
        raise UserError(f"{file} is not a sweep's file ({fault}): move its folder away") from None


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The runs of a plan, each with its place, and ``notes``: one line for each reason not to reuse a run."""

    runs: list[PlannedRun]
    notes: list[str]


@dataclass(kw_only=True)
class Sharing:
    """Places runs one by one. ``code`` and ``data`` say what a run would be computed from here and now.

    ``data`` raises ValueError where that cannot be known here; it is asked only where a run is there already.
    """

    existing: Existing
    code: Callable[[Settings], str]
    data: Callable[[Settings], Mapping[str, str]]
    fresh: bool
    placed: dict[str, list[PlannedRun]] = field(default_factory=dict)
    passed_over: dict[str, list[str]] = field(default_factory=dict)

    def share(self, runs: Sequence[PlannedRun]) -> Shared:
        """The runs, of which equal ones (run id, code and data) point to one directory.

        A run's own directory comes first, then one of another study or sweep, then a cell of this one. With
        ``fresh`` nothing on disk counts. Raises ValueError, one line, where a run's own directory belongs to
        other settings, is finished by other code, or was begun on other data.
        """
        # Of equal cells, the one that has begun already is the one that the others follow.
        order = sorted(runs, key=lambda run: self.fresh or not (run.directory / "run_id").exists())
        placed = {run.label: self._place(replace(run, code=self.code(run.settings))) for run in order}
        notes = [_note(reason, pairs) for reason, pairs in self.passed_over.items()]
        return Shared(runs=[placed[run.label] for run in runs], notes=notes)

    def _place(self, run: PlannedRun) -> PlannedRun:
        before = self.placed.setdefault(run.run_id, [])
        twin = next((other for other in before if self._reads_alike(run, other)), None)
        if twin is not None:
            return replace(run, directory=twin.directory, same_as=twin.label, state=twin.state)
        if not self.fresh:
            run = self._on_disk(run)
        before.append(run)
        return run

    def _reads_alike(self, run: PlannedRun, other: PlannedRun) -> bool:
        """Whether two planned runs of one id read the same; the roots of sets are no part of the id."""
        if run.settings.dataset == other.settings.dataset:
            return True
        try:
            return self.data(run.settings) == self.data(other.settings)
        except ValueError:
            return False

    def _on_disk(self, run: PlannedRun) -> PlannedRun:
        own = run.directory / "run_id"
        if own.exists():
            found, known = own.read_text(encoding="utf-8").strip(), known_run_id(run.directory, run.settings)
            if found != known:
                raise UserError(
                    f"{run.directory} belongs to run id {found}, {run.label} is {run.run_id}: {FIX}"
                )
            self._check_own(run)
            return replace(run, run_id=known, state=_state(run.directory))
        for directory in self.existing.directories.get(run.run_id, ()):
            state, label = _state(directory), "/".join(directory.parts[-3:])
            if state not in SHAREABLE:
                continue
            difference = self._difference(run, directory)
            if not difference:
                return replace(run, directory=directory, same_as=label, state=state)
            if state is RunState.DONE:
                self._pass_over(difference, f"{label} for {run.label}")
        return run

    def _difference(self, run: PlannedRun, directory: Path) -> str:
        """Why a run of the same id is not this one, "" where it is."""
        provenance = read_provenance(directory / "provenance.json")
        if provenance is None:
            # It has not begun: what counts is the code that it was submitted with.
            promised = self.existing.submitted.get(directory.absolute(), run.code)
            return "" if promised == run.code else "of other code"
        if provenance.code_digest != run.code:
            return "of other code"
        try:
            changed = changed_sets(provenance.data_fingerprints, self.data(run.settings))
        except ValueError as error:
            return f"its data cannot be compared here: {error}"
        return f"{', '.join(changed)} changed since" if changed else ""

    def _check_own(self, run: PlannedRun) -> None:
        provenance = read_provenance(run.directory / "provenance.json")
        if provenance is None:
            return
        done = _state(run.directory) is RunState.DONE
        if done and provenance.code_digest != run.code:
            raise UserError(f"{run.directory} was finished by other code: {FIX}")
        try:
            changed = changed_sets(provenance.data_fingerprints, self.data(run.settings))
        except ValueError as error:
            if done:
                self._pass_over(f"kept, its data cannot be compared here: {error}", run.label)
            return
        if changed:
            state = "finished" if done else "unfinished"
            raise UserError(f"{run.directory} is {state}, but {', '.join(changed)} changed since: {FIX}")

    def _pass_over(self, reason: str, which: str) -> None:
        self.passed_over.setdefault(reason, []).append(which)


def _note(reason: str, which: Sequence[str]) -> str:
    more = f" and {len(which) - NAMED} more" if len(which) > NAMED else ""
    verb = "" if reason.startswith("kept, ") else "not reused, "
    return f"{verb}{reason}: {', '.join(which[:NAMED])}{more}"


def _state(directory: Path) -> RunState | None:
    status = read_status(directory / STATUS_FILE)
    return None if status is None else status.state
