"""Being asked to stop: signals are noted, and a run stops where it can go on later."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from qhk.tracking.status import RunState

PREEMPTING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""What schedulers send before they kill, and what a closed terminal sends; SIGINT, Ctrl-C, cancels."""


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
        """``cancelled`` by Ctrl-C, else ``preempted``."""
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
