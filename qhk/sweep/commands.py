"""``qhk sweep status | cancel | logs``: commands that read a sweep's folder alone, and compose no config."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.live import Live

from qhk.errors import UserError
from qhk.files import read_log
from qhk.plain import print
from qhk.sweep.manifest import CANCELLED, JobEvent, event, last_events, read_manifest, record_events
from qhk.sweep.states import RunView, launcher_at_work, read_states, sweep_lock
from qhk.sweep.table import exit_code, job_logs, status_view, table_console
from qhk.tracking.lock import holder_name
from qhk.tracking.status import RunState, writer_alive

CHUNK = 500
"""Jobs in one call of scancel, whose command line has a limit."""

SCANCEL_S = 60.0


def status(folder: Path, *, watch: bool, interval_s: float) -> int:
    """Print a sweep's table and return its exit code: 0 all done, 1 something failed, 3 neither.

    ``watch`` shows it live, every ``interval_s`` seconds, until nothing is active any more.
    """
    manifest, console = read_manifest(folder), table_console()
    views = read_states(manifest)
    if not watch:
        console.print(status_view(manifest, views))
        return exit_code(manifest, views)
    with Live(status_view(manifest, views), console=console, auto_refresh=False) as live:
        while any(view.may_be_active for view in views):
            time.sleep(interval_s)
            views = read_states(manifest)
            live.update(status_view(manifest, views), refresh=True)
    return exit_code(manifest, views)


def cancel(folder: Path, *, cell: str | None, seed: int | None) -> int:
    """Cancel runs and return 0, or 1 where some cannot be reached: each is named, with the command to end it.

    Jobs end through scancel, processes of this machine by SIGTERM, those of another by their launcher there,
    which reads the sweep's record. Runs that another sweep or cell has started go on. Raises UserError, and
    cancels nothing, where SLURM does not answer, and where all that is unfinished is another sweep's.
    """
    lock = sweep_lock(folder)
    try:
        manifest = read_manifest(folder)
        events = last_events(manifest)
        chosen = chosen_runs(read_states(manifest), cell=cell, seed=seed)
        chosen = [view for view in chosen if _can_be_cancelled(view)]
        views = [view for view in chosen if not view.run.same_as or view.run.label in events]
        if chosen and not views:
            first = chosen[0].run
            raise UserError(f"{first.label}: is {first.same_as}, started by another sweep; cancel it there")
        _scancel([view.job for view in views if view.job])
        launcher = launcher_at_work(folder)
        stopped = [view for view in views if _stop(view, events.get(view.run.label), launcher)]
        record_events(
            manifest, [event("cancelled", view.run.label, job=view.job, cause=CANCELLED) for view in stopped]
        )
    finally:
        lock.release()
    print(f"sweep {manifest.name}: {len(stopped)} runs cancelled")
    return 0 if len(stopped) == len(views) else 1


def _can_be_cancelled(view: RunView) -> bool:
    return view.may_be_active or view.state in (RunState.PENDING, RunState.PREEMPTED)


def _stop(view: RunView, last: JobEvent | None, launcher: str) -> bool:
    """Return whether the run will end once its cancelling is recorded; print where another has to end it.

    ``launcher``: the local launcher that works on the sweep, as its lock names it; "" for none.
    """
    status = view.status
    if view.job or status is None or view.state is not RunState.RUNNING:
        return True
    launched = last is not None and launcher == holder_name(last.pid, last.host)
    if writer_alive(status):
        # A launcher sends the one signal: a second could arrive when the run has restored its handlers.
        if not launched:
            os.kill(status.pid, signal.SIGTERM)
        return True
    where = (
        f"{view.run.label} runs on {status.host} (process {status.pid}), which this machine does not reach"
    )
    if launched:
        print(f"{where}: its launcher there stops it")
        return True
    print(f"qhk: {where}, and no launcher is left: there, kill {status.pid}", file=sys.stderr)
    return False


def _scancel(jobs: Sequence[str]) -> None:
    for first in range(0, len(jobs), CHUNK):
        words = ["scancel", *jobs[first : first + CHUNK]]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SCANCEL_S)
        except FileNotFoundError:
            raise UserError(
                "scancel: not found; cancel the sweep's jobs where SLURM's commands are"
            ) from None
        except subprocess.TimeoutExpired:
            raise UserError(f"scancel: no answer in {SCANCEL_S:.0f} s; nothing recorded, try again") from None
        if done.returncode != 0:
            raise UserError(f"scancel: {' '.join(done.stderr.split())}; ask qhk sweep status, then again")


def logs(folder: Path, *, cell: str | None, seed: int | None, num_lines: int) -> int:
    """Print the end of the chosen logs, by default of all runs that failed or stopped, and return 0."""
    manifest = read_manifest(folder)
    views = chosen_runs(read_states(manifest), cell=cell, seed=seed)
    if cell is None and seed is None:
        views = [view for view in views if view.state not in (RunState.DONE, RunState.PENDING)]
    for view in views:
        found = [log for log in (view.run.log, view.run.directory / "run.log") if log.exists()]
        for log in found or job_logs(manifest, view):
            lines = read_log(log)[-num_lines:]
            print("\n".join([f"==> {view.run.label} {view.state.value}: {log}", *lines]))
    return 0


def chosen_runs(views: Sequence[RunView], *, cell: str | None, seed: int | None) -> list[RunView]:
    """Return the runs of a cell, of a seed; None means all. Raises UserError for a cell that is not there."""
    known = list(dict.fromkeys(view.run.cell for view in views))
    if cell is not None and cell not in known:
        raise UserError(f"cell={cell}: no such cell; known: {', '.join(known)}")
    return [view for view in views if cell in (None, view.run.cell) and seed in (None, view.run.seed)]
