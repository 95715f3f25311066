"""A run from its settings to its table: its directory opened, trained, and the way it ended recorded."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from qhk.errors import UserError
from qhk.evaluation.results import Moment, Results, read_results
from qhk.evaluation.table import perturbed_table, print_table, results_tables
from qhk.plain import print
from qhk.rollout.installed import engine_problems
from qhk.settings.identity import run_directory, run_id
from qhk.settings.parse import plain_settings
from qhk.settings.root import Settings
from qhk.tracking.code import PACKAGE, code_text, read_code_parts
from qhk.tracking.code_store import keep_code
from qhk.tracking.commit import source_commit
from qhk.tracking.mirror import Ending, GuardedMirror
from qhk.tracking.mirrors import open_mirrors
from qhk.tracking.provenance import Provenance, gather_provenance
from qhk.tracking.recorder import MetricsRecorder, Recorder
from qhk.tracking.run_directory import (
    Opened,
    RunDirectory,
    join_run_directory,
    known_run_id,
    leave_failure,
    log_line,
    log_traceback,
    open_run_directory,
    refuse_outputs,
)
from qhk.tracking.status import RunState
from qhk.tracking.validation import validation_line
from qhk.training.display import ConsoleDisplay, Display, LoggedDisplay, SilentDisplay
from qhk.training.distributed import Processes
from qhk.training.libraries import library_problems
from qhk.training.loop import train
from qhk.training.mirrored import mirror_content, mirror_run
from qhk.training.run import Run
from qhk.training.stages import RunStage, fingerprints, load_stages
from qhk.training.stop import RunStopped, failure_line, is_known

MOMENTS = (Moment.BEFORE, Moment.AFTER, Moment.CONTROL)


def launch(settings: Settings) -> int:
    """Train and return 0 once the run is done and its table printed, 1 where training could not go on.

    A finished run with the same id, code and data prints its table instead of running again; an
    unfinished one resumes. Raises UserError for bad input, and ``RunStopped`` as ``run_to_end`` does.
    """
    processes = Processes(settings.distributed.form)
    check_processes(settings, processes)
    display: Display = ConsoleDisplay() if processes.is_main else SilentDisplay()
    started = time.perf_counter()
    refuse_outputs(settings)
    for problem in engine_problems(settings):
        raise UserError(problem)
    try:
        stages = load_stages(settings, display)
        directory = open_directory(settings, fingerprints(stages), processes)
    except Exception as error:
        if processes.is_main:
            _leave_failure(settings, error)
        raise
    with directory:
        if directory.opened is Opened.FINISHED:
            again = "fresh=true would archive it and run it again"
            display.line(f"already done (run {directory.run_id}); {again}")
            if processes.is_main:
                print_results(settings, read_results(directory.results), directory.path)
            return 0
        prepared = time.perf_counter() - started
        return _train(settings, stages, directory, display, processes, prepared_s=prepared)


def _leave_failure(settings: Settings, error: Exception) -> None:
    """Record why a run ended before its directory was open; another's word in it stands."""
    assert settings.name is not None
    outputs = Path(settings.paths.outputs)
    with suppress(UserError):  # a directory that cannot take it must not hide the error itself
        leave_failure(
            outputs,
            study=settings.study,
            name=settings.name,
            seed=settings.seed,
            run_id=known_run_id(run_directory(settings), settings),
            cause=failure_line(error, directory=outputs),
            error=error,
        )


def check_processes(settings: Settings, processes: Processes) -> None:
    """Raise UserError where a model is to be spread over one process, or prompts do not divide over them.

    The prompts of a step divide over processes and micro-batches.
    """
    for problem in library_problems(settings):
        raise UserError(problem)
    if processes.shards and processes.count == 1:
        raise UserError(
            f"distributed: {settings.distributed.form} spreads the model over processes, and there is one; "
            "start several with torchrun --nproc-per-node=N -m qhk ..., or choose distributed=single"
        )
    per_step, per_device = settings.training.prompts_per_step, settings.training.prompts_per_device
    if per_step % (processes.count * per_device):
        raise UserError(
            f"training.prompts_per_step: {per_step} is not a multiple of processes x prompts_per_device "
            f"({processes.count} x {per_device}); change one of them"
        )


def open_directory(
    settings: Settings, data_fingerprints: Mapping[str, str], processes: Processes
) -> RunDirectory:
    """Return the run directory of these settings: fresh, to be resumed, or finished.

    The first process opens it.
    """
    assert settings.name is not None
    where: dict[str, Any] = {
        "study": settings.study,
        "name": settings.name,
        "seed": settings.seed,
        "run_id": run_id(settings) if settings.fresh else known_run_id(run_directory(settings), settings),
    }
    outputs, opened = Path(settings.paths.outputs), None
    if processes.is_main:
        directory = open_run_directory(
            outputs,
            **where,
            config=plain_settings(settings),
            provenance=_provenance(settings, data_fingerprints, processes),
            fresh=settings.fresh,
        )
        opened = directory.opened
    opened = processes.shared(opened)
    assert opened is not None
    return directory if processes.is_main else join_run_directory(outputs, **where, opened=opened)


def _provenance(settings: Settings, data_fingerprints: Mapping[str, str], processes: Processes) -> Provenance:
    return gather_provenance(
        code=keep_code(settings),
        data_fingerprints=data_fingerprints,
        accelerators=processes.accelerators,
        threads=settings.training.threads,
        commit=source_commit(PACKAGE.parent),
    )


def _train(
    settings: Settings,
    stages: Sequence[RunStage],
    directory: RunDirectory,
    display: Display,
    processes: Processes,
    *,
    prepared_s: float,
) -> int:
    recorders: list[Recorder] = [MetricsRecorder(directory.metrics)] if processes.is_main else []
    mirrors = _open_mirrors(settings, directory) if processes.is_main else []
    display = LoggedDisplay(display, directory.log) if processes.is_main else display
    display.line(f"run {directory.run_id}  {directory.path}")
    job = Run(
        stages=stages,
        config=plain_settings(settings),
        directory=directory,
        recorders=[*recorders, *mirrors],
        display=display,
        processes=processes,
        wall_s={"preparation": prepared_s},
    )
    closing: list[str] = []

    def finish(ending: Ending) -> None:
        gather = partial(mirror_content, directory.path, settings)
        closing.extend(line for mirror in mirrors if (line := mirror.close(gather, ending)))

    results = run_to_end(job, finish=finish)
    if results is None:
        return 1
    if processes.is_main:
        print_results(settings, results, directory.path)
        parts = "  ".join(f"{part.replace('_', ' ')} {seconds:.0f} s" for part, seconds in job.wall_s.items())
        print("\n".join([f"wall time: {parts}", *closing]))
    return 0


def run_to_end(job: Run, *, finish: Callable[[Ending], None]) -> Results | None:
    """Train, and return the results after ``finish``; None, after one line, where training could not go on.

    Status and ``run.log`` say how it ended. Errors without a known meaning are raised again after that, and
    so is ``RunStopped``. ``finish`` is told of every end; of one that is not the run's own after its record.
    """
    with job.signals:
        try:
            results = train(job)
            finish(Ending(state=RunState.DONE, cause=""))
        except RunStopped as stop:
            _end(job, stop.state, str(stop))
            finish(Ending(state=stop.state, cause=str(stop)))
            raise
        except KeyboardInterrupt:
            cause = "interrupted; the same command resumes behind the last checkpoint"
            _end(job, RunState.CANCELLED, cause)
            finish(Ending(state=RunState.CANCELLED, cause=cause))
            raise
        except BaseException as error:
            cause = failure_line(error, directory=job.directory.path)
            _record_failure(job, error, cause)
            finish(Ending(state=RunState.FAILED, cause=cause))
            if not is_known(error):
                raise
            print(f"qhk: training failed: {cause}; traceback in {job.directory.log}", file=sys.stderr)
            return None
        _end(job, RunState.DONE, "")
    return results


def _end(job: Run, state: RunState, cause: str) -> None:
    other = job.directory.noted_failure()
    if other and state is not RunState.DONE:
        state, cause = RunState.FAILED, other
    job.directory.end(state, cause=cause)
    if job.processes.is_main and state is not RunState.DONE:
        log_line(job.directory.log, f"{state.value}: {cause}")


def _record_failure(job: Run, error: BaseException, cause: str) -> None:
    # Where the disk is what failed, its log may fail too; the error itself is on the way to the user.
    with suppress(OSError):
        if job.processes.is_main:
            log_traceback(job.directory.log, error)
        else:
            job.directory.note_failure(f"process {job.processes.rank}: {cause}", error)
    with suppress(OSError):
        _end(job, RunState.FAILED, cause)


def _open_mirrors(settings: Settings, directory: RunDirectory) -> list[GuardedMirror]:
    """Return the mirrors of the run. A mistake of the user's ends the run before it has begun."""
    run = mirror_run(
        settings, directory.path, run_id=directory.wandb_id, job_type="train", metrics=directory.metrics
    )
    try:
        return open_mirrors(settings.tracking, run, warn=_warn)
    except UserError as error:
        directory.end(RunState.FAILED, cause=str(error))
        raise


def _warn(text: str) -> None:
    print(f"qhk: WARNING: {text}", file=sys.stderr)


def print_results(settings: Settings, results: Results, directory: Path) -> None:
    """Print the headline table, and where everything lies."""
    if results.rows:
        for table in results_tables(
            results.rows,
            readout=settings.evaluation.headline,
            moments=MOMENTS,
            min_parsed_fraction=settings.evaluation.min_parsed_fraction,
        ):
            print_table(table, file=sys.stdout)
    copies = [row for row in results.perturbed if row.moment is not Moment.BEFORE]
    if copies:
        last = max(row.step for row in copies)
        print_table(perturbed_table([row for row in copies if row.step == last]), file=sys.stdout)
    if line := validation_line(directory):
        print(f"{line}; the benchmarks are those of last")
    parts = read_code_parts(directory)
    if len(parts) > 1:
        print(f"WARNING: this run is of more than one code: {code_text(parts)}")
    print(f"run directory: {directory}")
