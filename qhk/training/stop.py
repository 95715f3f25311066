"""Why a run ends early: it was asked to stop, and can go on later, or it failed, for a reason in one line."""

from __future__ import annotations

import errno
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from qhk.tracking.status import RunState

PREEMPTING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""What schedulers send before they kill, and what a closed terminal sends; SIGINT, Ctrl-C, cancels."""


FULL = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")
"""How libraries that hide the error number say that a disk is full."""

LESS_MEMORY = "lower training.prompts_per_device, rollout.decode_batch or evaluation.batch_images"


class RunStopped(Exception):
    """The run stopped because it was asked to; the message says by what and what is kept, in one line."""

    def __init__(self, number: int, kept: str) -> None:
        # Both go to Exception, so that one process can send it to another.
        super().__init__(number, kept)
        self.number, self.kept = number, kept

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}; {self.kept}"

    @property
    def state(self) -> RunState:
        """Return ``cancelled`` for Ctrl-C, else ``preempted``."""
        return RunState.CANCELLED if self.number == signal.SIGINT else RunState.PREEMPTED


class StopSignals:
    """Inside the block, notes the first signal that asks to stop in ``number``, instead of dying of it.

    A second Ctrl-C is a KeyboardInterrupt at once. Signals that were ignored (``nohup``) stay ignored.
    Outside the main thread, where signals cannot be taken, the block changes nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (*PREEMPTING, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number is None:
            self.number = number
            again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
            # Not print: the signal may have come in the middle of one.
            os.write(
                2, f"\nqhk: {signal.Signals(number).name}: stopping where the run can go on{again}\n".encode()
            )


class RunFailure(RuntimeError):
    """Training cannot go on; the message says where and why in one line."""


def failure_line(error: BaseException, *, directory: Path) -> str:
    """Return the cause in one line: what happened, where, and what to do about it where that is known."""
    said = " ".join(str(error).split())
    if isinstance(error, RunFailure):
        return said
    if isinstance(error, SystemExit):
        return f"exit was called with {error.code!r} {_place(error)}"
    if is_full_disk(error):
        return f"the disk is full: {said}; make room below {directory}, then the same command resumes"
    if is_out_of_memory(error):
        kind = "accelerator memory" if "CUDA" in said else "memory"
        return f"out of {kind}: {_first_sentence(said) or 'MemoryError'}; {LESS_MEMORY}"
    if isinstance(error, ValueError):
        return said
    return f"{type(error).__name__}: {said} {_place(error)}"


def is_known(error: BaseException) -> bool:
    """Return whether the line says all there is to say, so that the terminal need not show the traceback."""
    return isinstance(error, RunFailure) or is_full_disk(error) or is_out_of_memory(error)


def is_full_disk(error: BaseException) -> bool:
    """Return whether the error, or one that it came from, is a full disk or an exhausted quota."""
    return any(
        isinstance(cause, OSError)
        and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        or any(words in str(cause) for words in FULL)
        for cause in _causes(error)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error, or one that it came from, is a failed allocation, on the CPU or elsewhere."""
    import torch  # commands that only need ``RunStopped`` start without it

    return any(
        isinstance(cause, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(cause)
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from or while handling."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")


def _place(error: BaseException) -> str:
    """The innermost place, as ``(file.py line 12)``."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"({Path(frames[-1].filename).name} line {frames[-1].lineno})" if frames else ""
