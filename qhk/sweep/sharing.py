"""Runs that compute the same: found in a plan and on disk, so that each is computed once.

Two runs are the same where their run id, the digest of their code and the fingerprints of their data agree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from qhk.data.datasets import load_dataset_entry
from qhk.errors import UserError
from qhk.files import read_text
from qhk.plain import print
from qhk.settings.data import DatasetSettings
from qhk.settings.problems import first_few
from qhk.settings.root import Settings
from qhk.settings.views import reward_modules
from qhk.sweep.manifest import FOLDER, MANIFEST_FILE, read_manifest, read_submitted, sweep_folder
from qhk.sweep.plan import PlannedRun, SweepPlan, refuse_changed
from qhk.tracking.code import run_code
from qhk.tracking.provenance import changed_sets, read_provenance
from qhk.tracking.run_directory import known_run_id
from qhk.tracking.status import STATUS_FILE, RunState, read_status

FIX = "choose another study=NAME or fresh=true"

SHAREABLE = (RunState.DONE, RunState.RUNNING, RunState.PENDING, RunState.PREEMPTED)
"""States of another study's run in which it is worth waiting for, rather than starting one's own."""

Task = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Opens a progress bar of the given label, which is told (done, in all)."""


class CurrentInputs:
    """The code and data that runs would have here and now; each digest and fingerprint is computed once."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._codes: dict[frozenset[str], str] = {}
        self._sets: dict[tuple[str, str], str | ValueError] = {}

    def code(self, settings: Settings) -> str:
        """Return the digest of the run's code; see ``run_code``."""
        modules = frozenset(reward_modules(settings))
        if modules not in self._codes:
            self._codes[modules] = run_code(settings)
        return self._codes[modules]

    def data(self, settings: Settings) -> Mapping[str, str]:
        """Return the fingerprint of every set that the run reads, by name.

        Pictures that have not changed since the inventory below the cache was written are not read again.
        Raises UserError for a set that cannot be read here.
        """
        return {name: self._fingerprint(name, entry, settings) for name, entry in settings.dataset.items()}

    def _fingerprint(self, name: str, entry: DatasetSettings, settings: Settings) -> str:
        key = (name, f"{entry.model_dump_json()} {settings.paths.cache}")
        if key not in self._sets:
            try:
                with self.task(f"comparing {name}") as progress:
                    self._sets[key] = load_dataset_entry(
                        name,
                        entry,
                        cache=Path(settings.paths.cache),
                        progress=progress,
                        workers=settings.loading.workers,
                    ).fingerprint
            except ValueError as error:
                self._sets[key] = error
        found = self._sets[key]
        if isinstance(found, ValueError):
            raise found
        return found


def existing_runs(outputs: Path) -> dict[str, list[Path]]:
    """Return the directories of the runs below ``outputs`` by run id, in order of their paths."""
    found: dict[str, list[Path]] = {}
    for file in sorted(outputs.glob("*/*/seed*/run_id")):
        if ".replaced-" not in file.parent.name:
            found.setdefault(read_text(file).strip(), []).append(file.parent)
    return found


def submitted_codes(outputs: Path) -> dict[Path, str]:
    """Return the code that sweeps have submitted runs for, by directory. Raises UserError as its reader."""
    files = sorted(outputs.glob(f"{FOLDER}/*/{MANIFEST_FILE}"))
    return {directory: code for file in files for directory, code in read_submitted(file).items()}


@dataclass(kw_only=True)
class Sharing:
    """Gives each run of a plan its directory.

    ``existing`` and ``submitted`` are the runs on disk. ``code`` and ``data`` return what a run would be
    computed from now. ``data`` raises UserError where a set cannot be read; it is called only to compare with
    an existing run. ``passed_over`` holds the runs that were not reused, by the reason.
    """

    existing: Mapping[str, Sequence[Path]]
    submitted: Mapping[Path, str]
    code: Callable[[Settings], str]
    data: Callable[[Settings], Mapping[str, str]]
    fresh: bool
    placed: dict[str, list[PlannedRun]] = field(default_factory=dict)
    passed_over: dict[str, list[str]] = field(default_factory=dict)

    def share(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        """Return the runs; those that compute the same have one directory.

        A run's own directory comes first, then one of another study or sweep, then a cell of this one. With
        ``fresh`` nothing on disk counts. Raises UserError where a run's own directory belongs to other
        settings, is finished by other code, or was begun on other data.
        """
        # Of equal cells, the others share the directory of the one that has begun already.
        order = sorted(runs, key=lambda run: self.fresh or not (run.directory / "run_id").exists())
        placed = {run.label: self._place(replace(run, code=self.code(run.settings))) for run in order}
        return [placed[run.label] for run in runs]

    @property
    def notes(self) -> list[str]:
        """A line for each reason why runs on disk were not reused."""
        return [_note(reason, which) for reason, which in self.passed_over.items()]

    def _place(self, run: PlannedRun) -> PlannedRun:
        before = self.placed.setdefault(run.run_id, [])
        for other in before:
            if self._same_data(run, other):
                return replace(run, directory=other.directory, same_as=other.label, state=other.state)
        if not self.fresh:
            run = self._on_disk(run)
        before.append(run)
        return run

    def _same_data(self, run: PlannedRun, other: PlannedRun) -> bool:
        """Return whether two planned runs of one id read the same data; roots are not in the id."""
        if run.settings.dataset == other.settings.dataset:
            return True
        try:
            return self.data(run.settings) == self.data(other.settings)
        except ValueError:
            return False

    def _on_disk(self, run: PlannedRun) -> PlannedRun:
        own = run.directory / "run_id"
        if own.exists():
            found, known = read_text(own).strip(), known_run_id(run.directory, run.settings)
            if found != known:
                raise UserError(
                    f"{run.directory} belongs to run id {found}, {run.label} is {run.run_id}: {FIX}"
                )
            self._check_own(run)
            return replace(run, run_id=known, state=_state(run.directory))
        for directory in self.existing.get(run.run_id, ()):
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
        """Return why an existing run of the same id is not the same run, "" where it is."""
        provenance = read_provenance(directory / "provenance.json")
        if provenance is None:
            # It has not begun: what counts is the code that it was submitted with.
            promised = self.submitted.get(directory.absolute(), run.code)
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
            raise UserError(
                f"{run.directory} was finished by other code: qhk sweep resume starts what its sweep lacks, "
                f"as it was frozen; else {FIX}"
            )
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


def share_plan(plan: SweepPlan, task: Task) -> list[PlannedRun]:
    """Return the plan's runs after sharing; print why runs on disk are not reused.

    Raises UserError where a run of the sweep on disk would now compute something else.
    """
    folder = sweep_folder(plan.outputs, plan.name)
    if not plan.fresh and (folder / MANIFEST_FILE).exists():
        refuse_changed(read_manifest(folder), plan.runs)
    inputs = CurrentInputs(task)
    sharing = Sharing(
        existing=existing_runs(plan.outputs),
        submitted=submitted_codes(plan.outputs),
        code=inputs.code,
        data=inputs.data,
        fresh=plan.fresh,
    )
    runs = sharing.share(plan.runs)
    for note in sharing.notes:
        print(f"note: {note}", file=sys.stderr)
    return runs


def _note(reason: str, which: Sequence[str]) -> str:
    verb = "" if reason.startswith("kept, ") else "not reused, "
    return f"{verb}{reason}: {first_few(which)}"


def _state(directory: Path) -> RunState | None:
    status = read_status(directory / STATUS_FILE)
    return None if status is None else status.state
