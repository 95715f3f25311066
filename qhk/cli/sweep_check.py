"""What the runs of a sweep would miss on this machine, and how their sharing came out, for the user."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qhk.cli.display import ConsoleDisplay
from qhk.cli.dry_run import missing_files
from qhk.cli.sweep_plan import SweepPlan
from qhk.errors import UserError
from qhk.settings.sweep import LauncherSettings, LocalLauncherSettings
from qhk.sweep.plan import PlannedRun
from qhk.sweep.present import Present
from qhk.sweep.share import Sharing, existing_runs
from qhk.tracking.status import RunState


def share_plan(plan: SweepPlan) -> list[PlannedRun]:
    """The plan's runs, compared with each other and with what is on disk; says what is not reused and why."""
    present = Present(ConsoleDisplay())
    sharing = Sharing(
        existing=existing_runs(plan.outputs), code=present.code, data=present.data, fresh=plan.fresh
    )
    shared = sharing.share(plan.runs)
    for note in shared.notes:
        print(f"note: {note}", file=sys.stderr)
    return shared.runs


def missing_in(runs: Sequence[PlannedRun]) -> list[str]:
    """One line, with the first run that it stops, for each file that runs still to be computed lack here."""
    found: dict[str, str] = {}
    seen = []
    for run in runs:
        settings = run.settings
        reads = (settings.dataset, settings.model.path, settings.twin.manifest, settings.paths.cache)
        if run.state is RunState.DONE or reads in seen:
            continue
        seen.append(reads)
        for line in missing_files(settings):
            found.setdefault(line, run.label)
    return [f"{line} ({label})" for line, label in found.items()]


def check_files(runs: Sequence[PlannedRun], launcher: LauncherSettings) -> None:
    """Raises ValueError, one line, where runs here would lack a file; a cluster's may see other disks."""
    lines = missing_in(runs)
    if lines and isinstance(launcher, LocalLauncherSettings):
        more = f"; and {len(lines) - 1} more, which dry_run=true lists" if len(lines) > 1 else ""
        raise UserError(lines[0] + more)
    for line in lines:
        print(f"note: not on this machine, so jobs must find it: {line}", file=sys.stderr)
