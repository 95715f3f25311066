"""``run.log``: what a run said, and the tracebacks of how it failed."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from pathlib import Path


def log_line(path: Path, text: str) -> None:
    """Appends a line with the present time (UTC)."""
    _append(path, f"{text}\n")


def log_traceback(path: Path, error: BaseException) -> None:
    """Appends the whole traceback of ``error``, those of its causes included."""
    _append(path, "".join(traceback.format_exception(error)))


def _append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')}  {text}")
