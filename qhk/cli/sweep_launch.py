"""Starts what a sweep still lacks: on this machine, or on a cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import qhk
from qhk.cli.sweep_check import check_files, share_plan
from qhk.cli.sweep_plan import SweepPlan
from qhk.config.catalogue import Catalogue
from qhk.errors import UserError
from qhk.settings.sweep import LocalLauncherSettings, SlurmLauncherSettings
from qhk.sweep.local import LocalLauncher
from qhk.sweep.manifest import (
    JOBS_FILE,
    Manifest,
    SweepRun,
    freeze_code,
    freeze_run,
    merge_runs,
    planned_as_run,
    read_manifest,
    sweep_folder,
    write_manifest,
)
from qhk.sweep.state import RunView, launcher_lock, look, sweep_lock
from qhk.sweep.table import exit_code, search_lines, status_view, table_console
from qhk.tracking.archive import archive_folder, archive_runs
from qhk.tracking.lock import RunLock
from qhk.tracking.status import Status

WAIT_S = 5.0


def package_folder() -> Path:
    """The folder of the package that runs now."""
    return Path(qhk.__path__[0])


def launch_plan(plan: SweepPlan, catalogue: Catalogue) -> int:
    """The exit code of the sweep once started: see ``start``. Everything it consists of is frozen first.

    A search goes on round by round where the command stays; on a cluster, without ``wait``, it starts one.
    With ``fresh=true`` an earlier search is archived as a whole. Raises ValueError where another command is
    at work on the sweep, and where ``fresh`` would move what still runs or waits.
    """
    if plan.search is None:
        return _launch_runs(plan)
    from qhk.cli.sweep_search import next_round

    folder, code = sweep_folder(plan.outputs, plan.name).absolute(), None
    if plan.fresh and folder.exists():
        _archive_search(folder)
    while True:
        drawn = next_round(plan, folder, catalogue)
        if not drawn.runs:
            return start(read_manifest(folder), [], lock=None) if code is None else code
        code = _launch_runs(drawn)
        if isinstance(plan.launcher, SlurmLauncherSettings) and not plan.launcher.wait:
            return code


def _launch_runs(plan: SweepPlan) -> int:
    folder = sweep_folder(plan.outputs, plan.name).absolute()
    lock = sweep_lock(folder)
    try:
        manifest = freeze(plan, folder)
        asked = {run.label for run in plan.runs}
        return start(manifest, [view for view in look(manifest) if view.run.label in asked], lock=lock)
    finally:
        lock.release()


def _archive_search(folder: Path) -> None:
    lock = sweep_lock(folder)
    try:
        if (folder / "sweep.json").exists():
            refuse_active(look(read_manifest(folder)))
        archive_folder(folder)
    finally:
        lock.release()


def freeze(plan: SweepPlan, folder: Path) -> Manifest:
    """The sweep on disk: code, settings of every run, and the list of runs, joined to what was there.

    Of a run that is at work, or may be, settings and code stay those that it was submitted with. With
    ``fresh`` what was there is archived. Raises ValueError, one line, where any of it still runs or waits,
    and where runs of this machine would not find their data.
    """
    if plan.fresh and plan.search is None and (folder / "sweep.json").exists():
        refuse_active(look(read_manifest(folder)))
    runs = share_plan(plan)
    check_files(runs, plan.launcher)
    for modules in {run.modules for run in runs}:
        freeze_code(folder, package_folder(), modules)
    new = [planned_as_run(run) for run in runs]
    # What is there of a fresh search are its own earlier rounds.
    joins = (folder / "sweep.json").exists() and (not plan.fresh or plan.search is not None)
    views = look(read_manifest(folder)) if joins else []
    old = [view.run for view in views]
    kept = {view.run.label: view.run for view in views if view.active or view.unheard}
    manifest = Manifest(
        folder=folder,
        cwd=Path.cwd(),
        overrides=tuple(word for word in plan.words if not word.startswith("fresh=")),
        launcher=plan.launcher,
        search=plan.search,
        runs=tuple(kept.get(run.label, run) for run in merge_runs(old, new)),
    )
    if plan.fresh:
        archive_runs([run.directory for run in new if not run.same_as])
        if plan.search is None:
            archive_folder(folder / JOBS_FILE)
    for planned, run in zip(runs, new, strict=True):
        if run.label not in kept:
            freeze_run(manifest, run, planned.settings)
    write_manifest(manifest)
    if kept:
        print(f"note: {len(kept)} runs at work keep their settings and code", file=sys.stderr)
    return manifest


def refuse_active(views: Sequence[RunView]) -> None:
    """Raises ValueError, one line, where a run that is to be archived runs, waits, or may do so."""
    busy = [view for view in views if view.active or view.unheard]
    if busy:
        first, more = busy[0], f" and {len(busy) - 1} more" if len(busy) > 1 else ""
        job = f", job {first.job}" if first.job else ""
        raise UserError(
            f"fresh=true: {first.run.label} is {first.state.value}{job}{more}; "
            "wait for them, or qhk sweep cancel NAME first"
        )


def start(manifest: Manifest, views: Sequence[RunView], *, lock: RunLock | None) -> int:
    """Starts those of ``views`` that lack something and are not another's. 0 once submitted to a cluster;
    once all have ended (on this machine, or with ``wait``): 0 where the sweep is done, 1 where something
    failed, 3 otherwise.

    ``lock`` is the sweep's: it was taken before ``views`` were looked at, and is given up once the runs are
    in the sweep's record, so that nobody else starts them. Raises ValueError where nothing can be started
    since it is not known whether it waits already.
    """
    runs = [view.run for view in views if view.resumable and not _is_followed(manifest, view.run)]
    _tell_unheard(manifest, views, nothing=not runs)
    launcher = manifest.launcher
    if not runs:
        print(f"sweep {manifest.name}: nothing to start")
    elif isinstance(launcher, LocalLauncherSettings):
        _start_here(manifest, launcher, runs, lock)
    else:
        _submit(manifest, launcher, runs, lock)
        if not launcher.wait:
            return 0
        wait(manifest)
    views = look(manifest)
    table_console().print(status_view(manifest, views))
    return exit_code(manifest, views)


def _tell_unheard(manifest: Manifest, views: Sequence[RunView], *, nothing: bool) -> None:
    unheard = [view for view in views if view.unheard and not view.active]
    if not unheard:
        return
    line = (
        f"{unheard[0].unheard}, so whether the jobs of {len(unheard)} runs of sweep {manifest.name} "
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
    """The function that submits. Raises ValueError where submitit is not installed."""
    try:
        from qhk.sweep.slurm import submit
    except ImportError:
        raise UserError("hydra/launcher=slurm: needs submitit; pip install 'qhk[slurm]'") from None
    return submit


def _is_followed(manifest: Manifest, run: SweepRun) -> bool:
    """Whether the run is an earlier one of this sweep, which is started in its place."""
    return any(run.same_as == other.label for other in manifest.runs)


def _start_here(
    manifest: Manifest, launcher: LocalLauncherSettings, runs: Sequence[SweepRun], lock: RunLock | None
) -> None:
    total, ended = len(runs), 0

    def say_started(run: SweepRun) -> None:
        print(f"started {run.label}   {run.log}", file=sys.stderr, flush=True)

    def say_ended(run: SweepRun, status: Status | None) -> None:
        nonlocal ended
        ended += 1
        words = "no status" if status is None else " ".join(filter(None, [status.state.value, status.cause]))
        print(f"[{ended}/{total}] {run.label}: {words}", file=sys.stderr, flush=True)

    launching = launcher_lock(manifest.folder)
    try:
        local = LocalLauncher(manifest=manifest, settings=launcher, started=say_started, ended=say_ended)
        local.take(runs)
        if lock is not None:
            lock.release()
        local.work()
    finally:
        launching.release()


def wait(manifest: Manifest) -> None:
    """Returns when nothing of the sweep is active any more, for certain."""
    while any(view.active or view.unheard for view in look(manifest)):
        time.sleep(WAIT_S)


def with_present_code(manifest: Manifest, views: Sequence[RunView]) -> tuple[Manifest, list[RunView]]:
    """The sweep and the views, those to be started on a new copy of the present code; others keep theirs."""
    runs = [view.run for view in views if view.resumable]
    codes = {
        names: freeze_code(manifest.folder, package_folder(), names)
        for names in {run.modules for run in runs}
    }
    moved = {run.label: replace(run, code=codes[run.modules]) for run in runs}
    changed = replace(manifest, runs=tuple(moved.get(run.label, run) for run in manifest.runs))
    write_manifest(changed)
    return changed, [replace(view, run=moved.get(view.run.label, view.run)) for view in views]
