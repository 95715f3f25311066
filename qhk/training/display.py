"""What a run shows while it works: bars for the work in hand, lines that stay."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from qhk.plain import plain_text
from qhk.tracking.run_directory import log_line

Progress = Callable[[int, int], None]
"""Called with (done, in all)."""

QUIET_S = 15.0
"""Where there is no terminal, a long task says how far it is this often."""


class Display(Protocol):
    """A place for lines and progress bars."""

    def task(self, label: str) -> AbstractContextManager[Progress]:
        """Return a progress bar for one piece of work; gone when the work is."""
        ...

    def line(self, text: str) -> None:
        """Print a line that stays."""
        ...


class ConsoleDisplay:
    """Bars through rich on a terminal; elsewhere a plain line when a task begins and every few seconds."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr, highlight=False)

    @contextmanager
    def task(self, label: str) -> Iterator[Progress]:
        """A progress report for one piece of work."""
        if not self.console.is_terminal:
            yield self._plain_report(label)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self.console, transient=True) as bars:
            bar = bars.add_task(plain_text(label), total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)

    def line(self, text: str) -> None:
        """A line above the bars."""
        self.console.print(plain_text(text), markup=False, soft_wrap=True)

    def _plain_report(self, label: str) -> Progress:
        last = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= QUIET_S:
                last = time.monotonic()
                self.line(f"{label}: {done}/{total}")

        return report


class LoggedDisplay:
    """Another display whose lines also go to ``run.log``."""

    def __init__(self, display: Display, log: Path) -> None:
        self._display, self._log = display, log

    def task(self, label: str) -> AbstractContextManager[Progress]:
        """The other display's report."""
        return self._display.task(label)

    def line(self, text: str) -> None:
        """A line on both."""
        self._display.line(text)
        log_line(self._log, text)


class SilentDisplay:
    """Shows nothing: what processes other than the first one see."""

    @contextmanager
    def task(self, label: str) -> Iterator[Progress]:
        """A report that goes nowhere."""
        yield lambda done, total: None

    def line(self, text: str) -> None:
        """Nothing."""
