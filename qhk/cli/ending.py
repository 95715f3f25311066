"""Every way a run can end, and the status that says which."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

from qhk.evaluation.results import Results
from qhk.tracking.run_directory import log_line, log_traceback
from qhk.tracking.status import RunState
from qhk.training.loop import train
from qhk.training.run import Run
from qhk.training.stop import RunStopped, failure_line, is_known


def run_to_end(job: Run, *, finish: Callable[[], None]) -> Results | None:
    """The results of the trained run after ``finish``; None, after one line, where training could not go on.

    Status and ``run.log`` say how it ended. Errors without a known meaning are raised again after that, and
    so is ``RunStopped``.
    """
    with job.signals:
        try:
            results = train(job)
            finish()
        except RunStopped as stop:
            _end(job, stop.state, str(stop))
            raise
        except KeyboardInterrupt:
            _end(job, RunState.CANCELLED, "interrupted; the same command resumes behind the last checkpoint")
            raise
        except BaseException as error:
            cause = failure_line(error, directory=job.directory.path)
            _record_failure(job, error, cause)
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
