"""``qhk sweep resume``: starts what a sweep lacks, from its frozen settings."""

from __future__ import annotations

from typing import Literal

from qhk.cli.command import LightCommand, LightJob
from qhk.cli.sweep_request import RunsRequest


class ResumeRequest(RunsRequest):
    """Which runs: of one cell, of one seed; null means all.

    ``code``: what the sweep was frozen with, or a new copy of the current code.
    """

    code: Literal["frozen", "current"]


def run(job: LightJob[ResumeRequest]) -> int:
    """Return the exit code of the sweep, started again where it lacks something."""
    from qhk.sweep.resume import resume_sweep
    from qhk.training.display import ConsoleDisplay

    request = job.request
    return resume_sweep(
        request.folder(job.positionals[0]),
        cell=request.cell,
        seed=request.only_seed,
        current_code=request.code == "current",
        overrides=job.overrides,
        catalogue=job.catalogue,
        task=ConsoleDisplay().task,
    )


COMMAND = LightCommand(
    sentence="Starts what a sweep lacks: runs missing, failed, preempted or cancelled.",
    positionals="NAME",
    recipes=(
        ("where and as it was launched", "qhk sweep resume modules"),
        ("on this machine", "qhk sweep resume modules hydra/launcher=local hydra.launcher.jobs=2"),
        ("after a fix, with the current code", "qhk sweep resume modules code=current"),
    ),
    request=ResumeRequest,
    run=run,
)
