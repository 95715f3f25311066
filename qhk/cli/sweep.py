"""The commands below ``qhk sweep``: their help, and the functions that run them."""

from __future__ import annotations

from collections.abc import Sequence

from qhk.cli.command import Command, LightCommand
from qhk.config.catalogue import Catalogue
from qhk.errors import UserError
from qhk.settings.base import Node
from qhk.sweep.requests import LogsRequest, ResumeRequest, RunsRequest, StatusRequest


def start_status(request: Node, names: Sequence[str], overrides: Sequence[str], catalogue: Catalogue) -> int:
    """Return 0 where all is done, 1 where something failed, 3 where neither."""
    from qhk.sweep.commands import status

    assert isinstance(request, StatusRequest)
    return status(request, _only("status", names))


def start_cancel(request: Node, names: Sequence[str], overrides: Sequence[str], catalogue: Catalogue) -> int:
    """Return 0 once everything that was asked for is cancelled."""
    from qhk.sweep.commands import cancel

    assert isinstance(request, RunsRequest)
    return cancel(request, _only("cancel", names))


def start_resume(request: Node, names: Sequence[str], overrides: Sequence[str], catalogue: Catalogue) -> int:
    """Return the exit code of the sweep, started again where it lacks something."""
    from qhk.cli.display import ConsoleDisplay
    from qhk.sweep.resume import resume

    assert isinstance(request, ResumeRequest)
    return resume(request, _only("resume", names), overrides, catalogue, ConsoleDisplay().task)


def start_logs(request: Node, names: Sequence[str], overrides: Sequence[str], catalogue: Catalogue) -> int:
    """Return 0 after printing the logs."""
    from qhk.sweep.commands import logs

    assert isinstance(request, LogsRequest)
    return logs(request, _only("logs", names))


def _only(command: str, names: Sequence[str]) -> str:
    if len(names) != 1:
        raise UserError(f"qhk sweep {command}: give one sweep's name, as outputs/sweeps/ lists them")
    return names[0]


SWEEP_COMMANDS: dict[str, Command | LightCommand] = {
    "sweep status": LightCommand(
        sentence="Shows a sweep's cells x seeds, why runs stopped, and means over seeds.",
        positionals="NAME",
        recipes=(
            ("once", "qhk sweep status modules"),
            ("until nothing is active any more", "qhk sweep status modules watch=true"),
            ("from another directory", "qhk sweep status modules paths.outputs=/shared/outputs"),
        ),
        request=StatusRequest,
        start=start_status,
    ),
    "sweep cancel": LightCommand(
        sentence="Cancels a sweep's runs that wait or run; running ones write a checkpoint first.",
        positionals="NAME",
        recipes=(
            ("all of it", "qhk sweep cancel modules"),
            ("one cell", "qhk sweep cancel modules cell=without_perception"),
            ("one run", "qhk sweep cancel modules cell=full only_seed=2"),
        ),
        request=RunsRequest,
        start=start_cancel,
    ),
    "sweep resume": LightCommand(
        sentence="Starts what a sweep lacks: runs missing, failed, preempted or cancelled.",
        positionals="NAME",
        recipes=(
            ("where and as it was launched", "qhk sweep resume modules"),
            ("on this machine", "qhk sweep resume modules hydra/launcher=local hydra.launcher.jobs=2"),
            ("after a fix, with the current code", "qhk sweep resume modules code=current"),
        ),
        request=ResumeRequest,
        start=start_resume,
    ),
    "sweep logs": LightCommand(
        sentence="Prints the end of the logs of a sweep's runs.",
        positionals="NAME",
        recipes=(
            ("of those that did not end well", "qhk sweep logs modules"),
            ("of one cell", "qhk sweep logs modules cell=full"),
            ("more of one run", "qhk sweep logs modules cell=full only_seed=0 lines=200"),
        ),
        request=LogsRequest,
        start=start_logs,
    ),
}
