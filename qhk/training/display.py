"""What a run shows while it works; the command line decides how."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

Progress = Callable[[int, int], None]
"""Called with (done, in all)."""


class Display(Protocol):
    """A place for lines and progress bars."""

    def task(self, label: str) -> AbstractContextManager[Progress]:
        """Return a progress bar for one piece of work; gone when the work is."""
        ...

    def line(self, text: str) -> None:
        """Print a line that stays."""
        ...
