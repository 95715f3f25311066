"""Freezes a plan and starts what it still lacks: on this machine, or on a cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import qhk
from qhk.data.missing import missing_files
from qhk.errors import UserError
from qhk.plain import print
from qhk.settings.problems import first_few
from qhk.settings.root import Settings
from qhk.settings.sweep import LauncherSettings, LocalLauncherSettings, SlurmLauncherSettings
from qhk.sweep.local import LocalLauncher
from qhk.sweep.manifest import (
    FOLDER,
    JOBS_FILE,
    MANIFEST_FILE,
    Manifest,
    SweepRun,
    freeze_code,
    freeze_run,
    read_manifest,
    read_submitted,
    sweep_folder,
    write_manifest,
)
from qhk.sweep.plan import PlannedRun, SweepPlan
from qhk.sweep.search import next_round
from qhk.sweep.sharing import Task, share_plan
from qhk.sweep.states import RunView, launcher_lock, read_states, sweep_lock
from qhk.sweep.table import exit_code, search_lines, status_view, table_console
from qhk.tracking.archive import archive_folder, archive_runs
from qhk.tracking.lock import RunLock
from qhk.tracking.run_directory import refuse_outputs
from qhk.tracking.status import RunState, Status

WAIT_S = 5.0
PATIENCE_S = 3.0
PACKAGE = Path(qhk.__path__[0])


def launch_plan(plan: SweepPlan, task: Task) -> int:
    """Freeze the plan, start it, and return the exit code of ``start``; ``task`` shows progress.

    A search goes on round by round where the command stays; on a cluster, without ``wait``, it starts one
    round. With ``fresh=true`` an earlier search is archived as a whole. Raises UserError where another
    command works on the sweep, and where ``fresh`` would move a run that is active or waits.
    """
    if plan.search is None:
        return _launch_runs(plan, task)
    folder, code = sweep_folder(plan.outputs, plan.name).absolute(), None
    if plan.fresh and folder.exists():
        _archive_search(folder)
    while True:
        drawn = next_round(plan, folder)
        if not drawn.runs:
            return start(read_manifest(folder), [], lock=None) if code is None else code
        code = _launch_runs(drawn, task)
        if isinstance(plan.launcher, SlurmLauncherSettings) and not plan.launcher.wait:
            return code


def _launch_runs(plan: SweepPlan, task: Task) -> int:
    folder = sweep_folder(plan.outputs, plan.name).absolute()
    lock = sweep_lock(folder)
    try:
        manifest = freeze(plan, folder, task)
        asked = {run.label for run in plan.runs}
        return start(manifest, [view for view in read_states(manifest) if view.run.label in asked], lock=lock)
    finally:
        lock.release()


def _archive_search(folder: Path) -> None:
    lock = sweep_lock(folder)
    try:
        if (folder / MANIFEST_FILE).exists():
            refuse_active(read_states(read_manifest(folder)))
        archive_folder(folder)
    finally:
        lock.release()


def freeze(plan: SweepPlan, folder: Path, task: Task) -> Manifest:
    """Write code, settings and the list of runs into the sweep's folder, joined to what it holds already.

    Runs that are or may be active keep the settings and code that they were submitted with. With ``fresh``
    earlier runs are archived. Raises UserError where one of those may be active, and where runs on this
    machine would not find their data.
    """
    there = (folder / MANIFEST_FILE).exists()
    # In a fresh search, what is there are its own earlier rounds.
    fresh = plan.fresh and plan.search is None
    if fresh and there:
        refuse_active(read_states(read_manifest(folder)))
    runs = share_plan(plan, task)
    require_files(runs, plan.launcher)
    for modules in {run.modules for run in runs}:
        freeze_code(folder, PACKAGE, modules)
    views = read_states(read_manifest(folder)) if there and not fresh else []
    kept = {view.run.label: view.run for view in views if view.may_be_active}
    new = [run.frozen() for run in runs]
    # A new run replaces the old one of its label: it may lie elsewhere now, or share another run.
    by_label = {run.label: run for run in (*(view.run for view in views), *new, *kept.values())}
    manifest = Manifest(
        folder=folder,
        cwd=Path.cwd(),
        overrides=tuple(word for word in plan.words if not word.startswith("fresh=")),
        launcher=plan.launcher,
        search=plan.search,
        runs=tuple(by_label.values()),
    )
    if plan.fresh:
        moved = [run.directory for run in new if not run.same_as]
        shared = _shared_elsewhere(plan.outputs, folder, moved)
        archive_runs(moved)
        for line in shared:
            print(f"note: {line}", file=sys.stderr)
        if plan.search is None:
            archive_folder(folder / JOBS_FILE)
    for planned, run in zip(runs, new, strict=True):
        if run.label not in kept:
            freeze_run(manifest, run, planned.settings)
    write_manifest(manifest)
    if kept:
        print(f"note: {len(kept)} active runs keep their settings and code", file=sys.stderr)
    return manifest


def _shared_elsewhere(outputs: Path, folder: Path, moved: Sequence[Path]) -> list[str]:
    """Return a line for each other sweep that has runs in directories which are about to be archived."""
    there = {directory.absolute() for directory in moved if directory.exists()}
    lines = []
    for file in sorted(outputs.glob(f"{FOLDER}/*/{MANIFEST_FILE}")):
        lost = sorted(there & read_submitted(file).keys()) if file.parent.absolute() != folder else []
        if lost:
            named = first_few(["/".join(directory.parts[-3:]) for directory in lost], most=1)
            lines.append(f"fresh=true archived {named}, which sweep {file.parent.name} shares")
    return lines


def refuse_active(views: Sequence[RunView]) -> None:
    """Raise UserError where a run that ``fresh`` would archive is, or may be, active."""
    active = [view for view in views if view.may_be_active]
    if active:
        first, more = active[0], f" and {len(active) - 1} more" if len(active) > 1 else ""
        job = f", job {first.job}" if first.job else ""
        raise UserError(
            f"fresh=true: {first.run.label} is {first.state.value}{job}{more}; "
            "wait for them, or qhk sweep cancel NAME first"
        )


def missing_in(
    runs: Sequence[PlannedRun], problems: Callable[[Settings], list[str]] | None = None
) -> list[str]:
    """Return a line for each file that runs still to be computed lack here, with the first such run.

    ``problems`` gives the lines of one run in place of ``missing_files``. Runs that read and are rewarded
    alike are asked about once.
    """
    found: dict[str, str] = {}
    checked = []
    for run in runs:
        settings = run.settings
        own = (settings.data, settings.task, settings.reward, settings.mixture, settings.stages)
        reads = (settings.dataset, settings.model.path, settings.twin.manifest, settings.paths, own)
        if run.state is RunState.DONE or reads in checked:
            continue
        checked.append(reads)
        for line in (problems or missing_files)(settings):
            found.setdefault(line, run.label)
    return [f"{line} ({label})" for line, label in found.items()]


def require_files(runs: Sequence[PlannedRun], launcher: LauncherSettings) -> None:
    """Raise UserError where runs on this machine would lack a file; for a cluster's, only print it."""
    for run in runs:
        refuse_outputs(run.settings)
    lines = missing_in(runs)
    if lines and isinstance(launcher, LocalLauncherSettings):
        more = f"; and {len(lines) - 1} more, which dry_run=true lists" if len(lines) > 1 else ""
        raise UserError(lines[0] + more)
    for line in lines:
        print(f"note: not on this machine, so jobs must find it: {line}", file=sys.stderr)


def start(manifest: Manifest, views: Sequence[RunView], *, lock: RunLock | None) -> int:
    """Start those of ``views`` that are resumable and not shared with an earlier one.

    Returns 0 once submitted to a cluster; once all have ended (on this machine, or with ``wait``): 0 where
    the sweep is done, 1 where something failed, 3 otherwise. ``lock`` is the sweep's, taken before the states
    were read, and released once the runs are recorded as submitted. Raises UserError where nothing can be
    started since the scheduler cannot be asked.
    """
    labels = {run.label for run in manifest.runs}
    runs = [view.run for view in views if view.resumable and view.run.same_as not in labels]
    _report_unreachable(manifest, views, nothing=not runs)
    launcher = manifest.launcher
    if not runs:
        print(f"sweep {manifest.name}: nothing to start")
    elif isinstance(launcher, LocalLauncherSettings):
        _start_here(manifest, launcher, runs, lock)
    else:
        _submit(manifest, launcher, runs, lock)
        if not launcher.wait:
            return 0
        while any(view.may_be_active for view in read_states(manifest)):
            time.sleep(WAIT_S)
    views = read_states(manifest)
    table_console().print(status_view(manifest, views))
    return exit_code(manifest, views)


def _report_unreachable(manifest: Manifest, views: Sequence[RunView], *, nothing: bool) -> None:
    unknown = [view for view in views if view.unreachable and not view.active]
    if not unknown:
        return
    line = (
        f"{unknown[0].unreachable}, so whether the jobs of {len(unknown)} runs of sweep {manifest.name} "
        "still wait is not known: they are not started; try again later"
    )
    if nothing:
        raise UserError(line)
    print(f"qhk: {line}", file=sys.stderr)


def _submit(
    manifest: Manifest, launcher: SlurmLauncherSettings, runs: Sequence[SweepRun], lock: RunLock | None
) -> None:
    submit = _slurm_submit()
    began = time.perf_counter()
    ids = submit(manifest, launcher, runs)
    seconds = time.perf_counter() - began
    if lock is not None:
        lock.release()
    print(f"sweep {manifest.name}: {len(ids)} runs submitted in {seconds:.1f} s ({ids[0]} to {ids[-1]})")
    print("\n".join([f"qhk sweep status {manifest.name}", *search_lines(manifest, active=True)]))


def _slurm_submit() -> Callable[[Manifest, SlurmLauncherSettings, Sequence[SweepRun]], list[str]]:
    """Return the function that submits. Raises UserError where submitit is not installed."""
    try:
        from qhk.sweep.slurm import submit
    except ImportError:
        raise UserError("hydra/launcher=slurm: needs submitit; pip install 'qhk[slurm]'") from None
    return submit


def _start_here(
    manifest: Manifest, launcher: LocalLauncherSettings, runs: Sequence[SweepRun], lock: RunLock | None
) -> None:
    total, ended = len(runs), 0

    def print_started(run: SweepRun) -> None:
        print(f"started {run.label}   {run.log}", file=sys.stderr, flush=True)

    def print_ended(run: SweepRun, status: Status | None) -> None:
        nonlocal ended
        ended += 1
        words = "no status" if status is None else " ".join(filter(None, [status.state.value, status.cause]))
        print(f"[{ended}/{total}] {run.label}: {words}", file=sys.stderr, flush=True)

    launching = launcher_lock(manifest.folder, patience_s=PATIENCE_S)
    try:
        local = LocalLauncher(manifest=manifest, settings=launcher, started=print_started, ended=print_ended)
        local.take(runs)
        if lock is not None:
            lock.release()
        local.work()
    finally:
        launching.release()


def with_current_code(manifest: Manifest, views: Sequence[RunView]) -> tuple[Manifest, list[RunView]]:
    """Freeze the current code for the runs to be started; return sweep and states that refer to it."""
    runs = [view.run for view in views if view.resumable]
    codes = {
        modules: freeze_code(manifest.folder, PACKAGE, modules) for modules in {run.modules for run in runs}
    }
    moved = {run.label: replace(run, code=codes[run.modules]) for run in runs}
    changed = replace(manifest, runs=tuple(moved.get(run.label, run) for run in manifest.runs))
    write_manifest(changed)
    return changed, [replace(view, run=moved.get(view.run.label, view.run)) for view in views]
