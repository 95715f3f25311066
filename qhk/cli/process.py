"""What a process of ours does at its beginning, and the exit code and message that it ends with."""

from __future__ import annotations

import errno
import logging
import os
import select
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from qhk.errors import UserError
from qhk.plain import print
from qhk.tracking.status import RunState
from qhk.training.stop import RunStopped, failure_line

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "0"}
"""The setting of the OpenMP standard, and what GNU's library (in torch's wheels) and Intel's call theirs."""

USER_ERROR = 2
INTERNAL_ERROR = 1
INTERRUPTED = 130
PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: not done, and the same command goes on."""
OUT_OF_REACH = (errno.ENAMETOOLONG, errno.EACCES)
"""What looking for a user's file raises instead of saying that it is not there."""
READER_GONE = 141
"""What a shell says of a process that SIGPIPE has ended."""


def let_idle_threads_sleep() -> None:
    """Let threads that wait for work soon give up their core. To be called before anything loads torch.

    OpenMP reads the setting once, when it is loaded. By default its threads spin between two pieces of work.
    Where other work needs these cores every piece then waits for a thread that has lost its turn to a
    spinning one, and runs slow each other by a factor of five to ten. To sleep at once costs a step on idle
    cores a half more. Some 3000 turns, about ten microseconds, bridge most gaps and hold no core for long. No
    result depends on it. A setting of the user's stands.
    """
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)


def quiet_libraries() -> None:
    """Silence notices and progress bars of libraries in this process; errors still speak.

    Called before anything else of theirs is imported, since some speak as they are.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    # Where torchao is installed, transformers imports it, and it tells of kernels that nothing here uses.
    for name in ("accelerate", "torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def report(action: Callable[[], int]) -> int:
    """Return the action's exit code; 2 after one line for a user's mistake, 1 after any other traceback.

    75 for a run that was preempted, 130 for one that was interrupted: the same command goes on with both. 1
    where anything called ``exit``, whatever with, and 141 where the reader of our output has gone.

    A user's mistake is a ``UserError``, or a name that is too long or that nobody may look up; a ValueError
    out of a library, or of a failed operation in our own code, is shown for the defect that it is.
    """
    try:
        with _exit_raised():
            return action()
    except RunStopped as stop:
        print(f"qhk: {stop}; the same command resumes", file=sys.stderr)
        return INTERRUPTED if stop.state is RunState.CANCELLED else PREEMPTED
    except KeyboardInterrupt:
        print("qhk: interrupted; the same command resumes an unfinished run", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as error:
        # Our own code never calls exit: its code would pass for the command's, 0 for success.
        print(f"qhk: {failure_line(error, directory=Path.cwd())}", file=sys.stderr)
        return INTERNAL_ERROR
    except BrokenPipeError:
        if not _reader_has_gone():
            traceback.print_exc()
            return INTERNAL_ERROR
        # As `head` does; the flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except UserError as error:
        if logging.getLogger("qhk").isEnabledFor(logging.DEBUG):
            print(traceback.format_exc(), end="", file=sys.stderr)
        print(f"qhk: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        if error.errno not in OUT_OF_REACH or error.filename is None:
            print(traceback.format_exc(), end="", file=sys.stderr)
            return INTERNAL_ERROR
        line = (
            f"{error.filename}: cannot be looked up ({error.strerror}): correct the name or its permissions"
        )
        print(f"qhk: {' '.join(line.split())}", file=sys.stderr)
        return USER_ERROR
    except Exception:
        print(traceback.format_exc(), end="", file=sys.stderr)
        return INTERNAL_ERROR


@contextmanager
def _exit_raised() -> Iterator[None]:
    """Let ``os._exit`` raise ``SystemExit`` inside, as ``sys.exit`` does.

    It would end the process with any code, 0 included, and nobody would learn why. A forked child ends by
    it, as it must; in another thread, where nobody would see an exception, the process ends with a failure's
    code.
    """
    leave, owner = os._exit, os.getpid()

    def raised(status: int) -> NoReturn:
        if os.getpid() != owner:
            leave(status)
        if threading.current_thread() is not threading.main_thread():
            print(f"qhk: os._exit was called with {status!r} in a thread", file=sys.stderr, flush=True)
            leave(status or INTERNAL_ERROR)
        raise SystemExit(status)

    os._exit = raised
    try:
        yield
    finally:
        os._exit = leave


def _reader_has_gone() -> bool:
    """Return whether the other end of our standard output, a pipe or a socket, is closed."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))


def tell_everything(loggers: Sequence[str]) -> None:
    """Let loggers ("" for all) tell all they can on stderr; a user's mistake shows its traceback."""
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s: %(message)s")
    for name in loggers:
        logging.getLogger(name).setLevel(logging.DEBUG)
