"""The commands below ``qhk sweep``: the keys of their own, and the function that runs each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhk.cli.command import Command, Job
from qhk.cli.requests import SweepLogsRequest, SweepRequest, SweepResumeRequest, SweepStatusRequest
from qhk.errors import UserError


def start_status(job: Job, positionals: Sequence[str]) -> int:
    """0 where all is done, 1 where something failed, 3 where neither."""
    from qhk.cli.sweep_commands import status

    assert isinstance(job.request, SweepStatusRequest)
    return status(_outputs(job), _name("status", positionals), job.request)


def start_cancel(job: Job, positionals: Sequence[str]) -> int:
    """0 once everything that was asked for is called off."""
    from qhk.cli.sweep_commands import cancel

    assert isinstance(job.request, SweepRequest)
    return cancel(_outputs(job), _name("cancel", positionals), job.request)


def start_resume(job: Job, positionals: Sequence[str]) -> int:
    """The exit code of the sweep, started again where it lacks something."""
    from qhk.cli.sweep_commands import resume

    assert isinstance(job.request, SweepResumeRequest)
    return resume(_outputs(job), _name("resume", positionals), job.request, job.overrides)


def start_logs(job: Job, positionals: Sequence[str]) -> int:
    """0 after the logs were printed."""
    from qhk.cli.sweep_commands import logs

    assert isinstance(job.request, SweepLogsRequest)
    return logs(_outputs(job), _name("logs", positionals), job.request)


def _outputs(job: Job) -> Path:
    return Path(job.settings.paths.outputs)


def _name(command: str, positionals: Sequence[str]) -> str:
    if len(positionals) != 1:
        raise UserError(f"qhk sweep {command}: give one sweep's name, as outputs/sweeps/ lists them")
    return positionals[0]


SWEEP_COMMANDS = {
    "sweep status": Command(
        sentence="Shows a sweep's cells x seeds, why runs stopped, and means over seeds.",
        positionals="NAME",
        recipes=(
            ("once", "qhk sweep status modules"),
            ("until nothing is active any more", "qhk sweep status modules watch=true"),
            ("from another directory", "qhk sweep status modules paths.outputs=/shared/outputs"),
        ),
        request=SweepStatusRequest,
        start=start_status,
    ),
    "sweep cancel": Command(
        sentence="Calls off a sweep's runs that wait or run; running ones write a checkpoint first.",
        positionals="NAME",
        recipes=(
            ("all of it", "qhk sweep cancel modules"),
            ("one cell", "qhk sweep cancel modules cell=without_perception"),
            ("one run", "qhk sweep cancel modules cell=full only_seed=2"),
        ),
        request=SweepRequest,
        start=start_cancel,
    ),
    "sweep resume": Command(
        sentence="Starts what a sweep lacks: runs missing, failed, preempted or cancelled.",
        positionals="NAME",
        recipes=(
            ("where and as it was launched", "qhk sweep resume modules"),
            ("on this machine", "qhk sweep resume modules hydra/launcher=local hydra.launcher.jobs=2"),
            ("after a fix, with the present code", "qhk sweep resume modules code=current"),
        ),
        request=SweepResumeRequest,
        start=start_resume,
    ),
    "sweep logs": Command(
        sentence="Prints the end of the logs of a sweep's runs.",
        positionals="NAME",
        recipes=(
            ("of those that did not end well", "qhk sweep logs modules"),
            ("of one cell", "qhk sweep logs modules cell=full"),
            ("more of one run", "qhk sweep logs modules cell=full only_seed=0 lines=200"),
        ),
        request=SweepLogsRequest,
        start=start_logs,
    ),
}
