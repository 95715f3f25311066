"""``qhk sweep status | cancel | resume | logs``: asks and steers a sweep through its directory alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.live import Live

from qhk.cli.requests import SweepLogsRequest, SweepRequest, SweepResumeRequest, SweepStatusRequest
from qhk.errors import UserError
from qhk.settings.sweep import LauncherSettings, parse_launcher
from qhk.sweep.manifest import (
    JobEvent,
    Manifest,
    event,
    find_sweep,
    last_events,
    read_manifest,
    record_events,
)
from qhk.sweep.state import RunView, launcher_at_work, look, sweep_lock
from qhk.sweep.table import exit_code, job_logs, status_view, table_console
from qhk.tracking.lock import holder_name
from qhk.tracking.status import RunState, writer_alive

CHUNK = 500
"""Jobs in one call of scancel, whose command line has a limit."""

SCANCEL_S = 60.0


def status(outputs: Path, name: str, request: SweepStatusRequest) -> int:
    """The sweep's exit code after its table: 0 all done, 1 something failed, 3 neither."""
    manifest, console = read_manifest(find_sweep(outputs, name)), table_console()
    views = look(manifest)
    if not request.watch:
        console.print(status_view(manifest, views))
        return exit_code(manifest, views)
    with Live(status_view(manifest, views), console=console, auto_refresh=False) as live:
        while any(view.active or view.unheard for view in views):
            time.sleep(request.interval_s)
            views = look(manifest)
            live.update(status_view(manifest, views), refresh=True)
    return exit_code(manifest, views)


def cancel(outputs: Path, name: str, request: SweepRequest) -> int:
    """0 once the runs are called off: jobs through scancel, processes of this machine by SIGTERM, those of
    another by their launcher there, which reads the sweep's record. 1 where some can be reached by none of
    these: each is named, with the command that ends it.

    Runs that another sweep or cell has started go on. Raises ValueError, and calls nothing off, where SLURM
    does not take its jobs back, and where all that is open is another sweep's.
    """
    folder = find_sweep(outputs, name)
    lock = sweep_lock(folder)
    try:
        manifest = read_manifest(folder)
        events = last_events(manifest)
        chosen = [view for view in _chosen(look(manifest), request) if _is_open(view)]
        views = [view for view in chosen if not view.run.same_as or view.run.label in events]
        if chosen and not views:
            first = chosen[0].run
            raise UserError(f"{first.label}: is {first.same_as}, started by another sweep; cancel it there")
        _scancel([view.job for view in views if view.job])
        launcher = launcher_at_work(folder)
        reached = [view for view in views if _reach(view, events.get(view.run.label), launcher)]
        record_events(manifest, [event("cancelled", view.run.label, job=view.job) for view in reached])
    finally:
        lock.release()
    print(f"sweep {manifest.name}: {len(reached)} runs called off")
    return 0 if len(reached) == len(views) else 1


def _is_open(view: RunView) -> bool:
    return view.active or bool(view.unheard) or view.state in (RunState.PENDING, RunState.PREEMPTED)


def _reach(view: RunView, last: JobEvent | None, launcher: str) -> bool:
    """Whether the run will not go on once its cancelling is recorded; says so where that is another's work.

    ``launcher``: the local launcher at work on the sweep, as its lock names it; "" for none.
    """
    status = view.status
    if view.job or status is None or view.state is not RunState.RUNNING:
        return True
    owned = last is not None and launcher == holder_name(last.pid, last.host)
    if writer_alive(status):
        # Its launcher sends the one signal: a second may come when the run has given its handlers back.
        if not owned:
            os.kill(status.pid, signal.SIGTERM)
        return True
    where = (
        f"{view.run.label} runs on {status.host} (process {status.pid}), which this machine does not reach"
    )
    if owned:
        print(f"{where}: its launcher there stops it")
        return True
    print(f"qhk: {where}, and no launcher is left: there, kill {status.pid}", file=sys.stderr)
    return False


def _scancel(jobs: Sequence[str]) -> None:
    if jobs and shutil.which("scancel") is None:
        raise UserError("scancel: not found; cancel the sweep's jobs where SLURM's commands are")
    for first in range(0, len(jobs), CHUNK):
        words = ["scancel", *jobs[first : first + CHUNK]]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SCANCEL_S)
        except subprocess.TimeoutExpired:
            raise UserError(f"scancel: no answer in {SCANCEL_S:.0f} s; nothing recorded, try again") from None
        if done.returncode != 0:
            raise UserError(f"scancel: {' '.join(done.stderr.split())}; ask qhk sweep status, then again")


def resume(outputs: Path, name: str, request: SweepResumeRequest, overrides: Sequence[str]) -> int:
    """The exit code of what was started: everything of the sweep that is not done and not at work."""
    from qhk.cli.sweep_launch import start, with_present_code

    folder = find_sweep(outputs, name)
    lock = sweep_lock(folder)
    try:
        manifest = read_manifest(folder)
        manifest = replace(manifest, launcher=_launcher(manifest.launcher, overrides))
        views = _chosen(look(manifest), request)
        if manifest.trials_left and request.cell is None and request.only_seed is None:
            views = _without_failed_trials(views)
        if request.code == "current":
            manifest, views = with_present_code(manifest, views)
        if manifest.search is None or any(view.resumable or view.unheard for view in views):
            return start(manifest, views, lock=lock)
    finally:
        lock.release()
    return _go_on_searching(manifest)


def _without_failed_trials(views: Sequence[RunView]) -> list[RunView]:
    """The runs without those of failed trials, which tell a search enough by having failed."""
    failed = sorted({view.run.cell for view in views if view.state is RunState.FAILED and view.resumable})
    if failed:
        print(f"failed trials count as such in the search: {', '.join(failed)}; cell=NAME starts one again")
    return [view for view in views if view.run.cell not in failed]


def _go_on_searching(manifest: Manifest) -> int:
    """The exit code of a search's next round, or of the search where there is none."""
    from qhk.cli.sweep_launch import launch_plan
    from qhk.cli.sweep_plan import plan_sweep
    from qhk.config.catalogue import config_root, read_catalogue

    catalogue = read_catalogue(config_root())
    words = [word for word in manifest.overrides if not word.startswith(("study=", "paths.outputs="))]
    where = [f"study={manifest.name}", f"paths.outputs={manifest.folder.parents[1]}"]
    seeds = [f"seed={seed}" for seed in manifest.seeds]
    plan = plan_sweep([*words, *where, *seeds], catalogue)
    return launch_plan(replace(plan, launcher=manifest.launcher), catalogue)


def _launcher(own: LauncherSettings, overrides: Sequence[str]) -> LauncherSettings:
    """The launcher that a command line asks for: another one where it names one, else the sweep's own with
    the keys that it gives."""
    words = [word.lstrip("+~") for word in overrides]
    given = {
        word.removeprefix("hydra.launcher.").partition("=")[0].partition(".")[0]
        for word in words
        if word.startswith("hydra.launcher.")
    }
    names_one = any(word.startswith("hydra/launcher=") for word in words)
    if not given and not names_one:
        return own
    from qhk.config.catalogue import config_root, read_catalogue
    from qhk.config.compose import compose_launcher

    asked = list(overrides) if names_one else [f"hydra/launcher={own.form}", *overrides]
    composed = compose_launcher("sweep resume", asked, read_catalogue(config_root()))
    if names_one:
        return parse_launcher(composed)
    return parse_launcher({**own.model_dump(), **{key: composed[key] for key in given if key in composed}})


def logs(outputs: Path, name: str, request: SweepLogsRequest) -> int:
    """0 after the end of the chosen logs: those of one cell, or of all that failed or stopped."""
    manifest = read_manifest(find_sweep(outputs, name))
    views = _chosen(look(manifest), request)
    if request.cell is None and request.only_seed is None:
        views = [view for view in views if view.state not in (RunState.DONE, RunState.PENDING)]
    for view in views:
        logs = [log for log in (view.run.log, view.run.directory / "run.log") if log.exists()]
        for log in logs or job_logs(manifest, view):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            print("\n".join([f"==> {view.run.label} {view.state.value}: {log}", *lines[-request.lines :]]))
    return 0


def _chosen(views: Sequence[RunView], request: SweepRequest | SweepLogsRequest) -> list[RunView]:
    """The runs that were asked for. Raises ValueError for a cell or seed that the sweep does not have."""
    known = list(dict.fromkeys(view.run.cell for view in views))
    if request.cell is not None and request.cell not in known:
        raise UserError(f"cell={request.cell}: no such cell; known: {', '.join(known)}")
    return [
        view
        for view in views
        if request.cell in (None, view.run.cell) and request.only_seed in (None, view.run.seed)
    ]
