"""Submits runs as one SLURM job array through submitit, which requeues them when they are preempted."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from qhk.errors import UserError
from qhk.settings.sweep import SlurmLauncherSettings
from qhk.sweep.manifest import Manifest, SweepRun, event, record_events
from qhk.sweep.process import mark_pending, record_job, run_command, run_environment
from qhk.sweep.scheduler import cluster_name
from qhk.sweep.slurm_job import CellJob

REQUEUE_S = 15.0
"""The part of the time between SLURM's signal and its limit that is kept for requeueing."""

ELSEWHERE = "submit from a login node of the cluster, or leave hydra/launcher=slurm out to run here"

OPTIONS = (
    "partition", "account", "qos", "constraint", "exclude", "nodelist", "nodes", "cpus_per_task",
    "signal_delay_s", "array_parallelism", "setup", "srun_args",
)  # fmt: skip


def submit(manifest: Manifest, settings: SlurmLauncherSettings, runs: Sequence[SweepRun]) -> list[str]:
    """Submit the runs and return their job ids, in their order, as soon as SLURM has accepted them.

    Raises UserError without SLURM's commands, for a path that no quotes help, and where SLURM refuses.
    """
    _refuse_broken_lines(manifest)
    for program in ("sbatch", "srun"):
        if shutil.which(program) is None:
            raise UserError(f"hydra/launcher=slurm: {program} is not here; {ELSEWHERE}")
    for run in runs:
        mark_pending(run)
    executor, cluster = _executor(manifest, settings, runs), cluster_name()
    try:
        # What sbatch says is part of our one line; submitit prints it too.
        with redirect_stderr(StringIO()), executor.batch():
            jobs = [executor.submit(_job(manifest, settings, run)) for run in runs]
    except (FailedSubmissionError, FailedJobError, subprocess.CalledProcessError) as error:
        said = " ".join(str(error).split())
        what = f"sbatch refused: {said}; change the key below hydra.launcher that it names"
        what = what if cluster else f"SLURM does not work here: {said}; {ELSEWHERE}"
        raise UserError(f"hydra/launcher=slurm: {what}") from None
    ids = [job.job_id for job in jobs]
    pairs = list(zip(runs, ids, strict=True))
    record_events(manifest, [event("submitted", run.label, job=job, cluster=cluster) for run, job in pairs])
    for run, job in pairs:
        record_job(run, job)
    return ids


def _refuse_broken_lines(manifest: Manifest) -> None:
    """Raise UserError for a path that ends a line: no quotes keep it inside an ``#SBATCH`` comment."""
    for path in map(str, (manifest.folder, manifest.cwd)):
        if not path.isprintable():
            raise UserError(f"hydra/launcher=slurm: {path!a} has control characters; rename that folder")


def _executor(manifest: Manifest, settings: SlurmLauncherSettings, runs: Sequence[SweepRun]) -> SlurmExecutor:
    executor = SlurmExecutor(manifest.folder / "submitit", max_num_timeout=settings.max_num_timeout)
    given = {name: value for name, value in settings.model_dump().items() if name in OPTIONS}
    options = {name: value for name, value in given.items() if value is not None}
    # submitit's own process needs the frozen code too, and never the working directory.
    code = f"export PYTHONPATH={shlex.quote(str(manifest.code_folder(runs[0])))}${{PYTHONPATH:+:$PYTHONPATH}}"
    options["setup"] = [code, "export PYTHONSAFEPATH=1", *settings.setup]
    more = {"requeue": True, "chdir": str(manifest.cwd), **settings.additional_parameters}
    executor.update_parameters(
        job_name=manifest.name,
        time=settings.timeout_min,
        mem=f"{int(settings.mem_gb * 1024)}MB",
        ntasks_per_node=settings.tasks_per_node,
        gpus_per_node=settings.gpus_per_node or None,
        additional_parameters=more,
        **options,
    )
    return executor


def _job(manifest: Manifest, settings: SlurmLauncherSettings, run: SweepRun) -> CellJob:
    return CellJob(
        command=run_command(manifest, run),
        environment=run_environment(manifest, run),
        directory=run.directory,
        log=run.log,
        cwd=manifest.cwd,
        patience_s=max(settings.signal_delay_s - REQUEUE_S, settings.signal_delay_s / 2),
    )
