"""``status.json``: where a run stands, with a heartbeat, in one vocabulary."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from qhk.files import write_atomically


class RunState(StrEnum):
    """The states of a run. Running with an old heartbeat means that its process died without a word."""

    PENDING = "pending"
    RUNNING = "running"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Status:
    """``cause`` says in one line why a run failed or stopped, else empty. ``heartbeat``: UTC, ISO 8601."""

    state: RunState
    cause: str
    step: int
    heartbeat: str
    pid: int
    host: str


def read_status(path: Path) -> Status | None:
    """The status in ``path``, None without one; raises ``ValueError`` naming a file that is no status."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Status(**{**content, "state": RunState(content["state"])})
    except (KeyError, TypeError, ValueError) as fault:
        raise ValueError(f"{path} is not a status file ({fault}): remove it") from None


def write_status(path: Path, *, state: RunState, step: int, cause: str) -> Status:
    """The status of this process, written atomically with the present time as its heartbeat."""
    status = Status(
        state=state,
        cause=" ".join(cause.split()),
        step=step,
        heartbeat=datetime.now(UTC).isoformat(timespec="seconds"),
        pid=os.getpid(),
        host=platform.node(),
    )
    write_atomically(path, json.dumps(asdict(status), indent=1) + "\n")
    return status
