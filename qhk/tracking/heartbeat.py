"""The status of the running process, kept fresh by a thread while the process does long work."""

from __future__ import annotations

import threading
from pathlib import Path

from qhk.tracking.status import RunState, present_status, write_status

HEARTBEAT_S = 15.0
"""The period of the heartbeat; readers wait several of them before they call it old."""


class Heartbeat:
    """Writes ``status.json``: at every ``report``, every ``HEARTBEAT_S`` seconds, and at the ``end``."""

    def __init__(self, path: Path, *, step: int, srcc: float | None = None) -> None:
        """Says ``running`` at ``step`` and begins to beat."""
        self._path, self._step, self._srcc = path, step, srcc
        self._total_steps: int | None = None
        self._mutex, self._over = threading.Lock(), threading.Event()
        self._write(RunState.RUNNING, "")
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def report(
        self, *, step: int | None = None, total_steps: int | None = None, srcc: float | None = None
    ) -> None:
        """Takes what is new (None: as before) and writes it."""
        self._step = self._step if step is None else step
        self._total_steps = self._total_steps if total_steps is None else total_steps
        self._srcc = self._srcc if srcc is None else srcc
        self._write(RunState.RUNNING, "")

    def end(self, state: RunState, *, cause: str) -> None:
        """The last word: how the run ended; nothing is written after it."""
        self.stop()
        self._write(state, cause)

    def stop(self) -> None:
        """Ends the beating; harmless when repeated."""
        self._over.set()
        self._thread.join()

    def _write(self, state: RunState, cause: str) -> None:
        with self._mutex:
            status = present_status(
                state=state, step=self._step, cause=cause, total_steps=self._total_steps, srcc=self._srcc
            )
            write_status(self._path, status)

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            try:
                self._write(RunState.RUNNING, "")
            except OSError:
                # A full or absent disk must not end the run from here; readers see the age of the last beat.
                continue
