"""User mistakes as one line on stderr and exit code 2; anything else keeps its traceback."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from qhk.errors import UserError
from qhk.tracking.status import RunState
from qhk.training.stop import RunStopped

USER_ERROR = 2
INTERNAL_ERROR = 1
INTERRUPTED = 130
PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: not done, and the same command goes on."""


def report(action: Callable[[], int]) -> int:
    """The action's own exit code; 2 after one line for a user's mistake, 1 after any other error's traceback.

    75 for a run that was preempted, 130 for one that was interrupted: the same command goes on with both.

    A user's mistake is a ``UserError``; a ValueError out of a library, or of a failed operation in our own
    code, is shown for the defect that it is.
    """
    try:
        return action()
    except RunStopped as stop:
        print(f"qhk: {stop}; the same command resumes", file=sys.stderr)
        return INTERRUPTED if stop.state is RunState.CANCELLED else PREEMPTED
    except KeyboardInterrupt:
        print("qhk: interrupted; the same command resumes an unfinished run", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; the flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        if logging.getLogger("qhk").isEnabledFor(logging.DEBUG):
            traceback.print_exc()
        print(f"qhk: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except Exception:
        traceback.print_exc()
        return INTERNAL_ERROR


def tell_everything(loggers: Sequence[str]) -> None:
    """Let loggers ("" for all) tell all they can on stderr; a user's mistake shows its traceback."""
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s: %(message)s")
    for name in loggers:
        logging.getLogger(name).setLevel(logging.DEBUG)
