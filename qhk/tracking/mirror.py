"""Mirrors of ``metrics.jsonl`` in other tools: what they are told of a run, and the guard around each.

A mirror is one file: ``wandb_offline``, ``wandb_online``, ``trackio_mirror``. Local ones are rebuilt from the
record when a run is over, so that a run that was interrupted and resumed is one curve without repeated or
lost steps. That happens in a child process with an environment of its own: no account, no prompt, no
network, nothing on the console.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from qhk.errors import UserError
from qhk.files import typed
from qhk.plain import counted
from qhk.tracking.names import COLLAPSE_SIGNS
from qhk.tracking.recorder import MetricSection
from qhk.tracking.status import RunState

CHILD_TIMEOUT_S = 600


@dataclass(frozen=True, kw_only=True)
class MirrorRun:
    """What identifies a run, and where its record ``metrics`` and its files lie.

    ``group`` joins the runs of a study or sweep, ``job_type`` is ``train`` or ``evaluate``. ``directory`` is
    the run's own, ``outputs`` that of all runs.
    """

    project: str
    entity: str | None
    group: str
    name: str
    job_type: str
    run_id: str
    tags: tuple[str, ...]
    notes: str | None
    config: Mapping[str, Any]
    directory: Path
    outputs: Path
    metrics: Path


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text and numbers under columns; a cell without a value is None."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]


@dataclass(frozen=True, kw_only=True)
class MirrorContent:
    """What a mirror shows beside the curves: numbers, tables, and files by kind and by their name in it."""

    summary: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    artifacts: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a run ended; ``cause`` is empty where it is done."""

    state: RunState
    cause: str

    @property
    def is_stop(self) -> bool:
        """Return whether the run was asked to stop, and so has little time left and may be resumed."""
        return self.state in (RunState.PREEMPTED, RunState.CANCELLED)


class CollapseAlerts:
    """Says of the rows of a run, in order, where signs of collapse are news."""

    TITLE = "signs of collapse"

    def __init__(self) -> None:
        self._signs = 0.0

    def text(self, step: int, metrics: Mapping[str, float]) -> str:
        """Return what to tell of the next row: one line where it has more signs than the last; else empty."""
        before, self._signs = self._signs, metrics.get(COLLAPSE_SIGNS, self._signs)
        if not self._signs > before:
            return ""
        return (
            f"step {step}: {counted(int(self._signs), 'sign')} of collapse; run.log and status.json say which"
        )


class Mirror(Protocol):
    """Takes rows as the recorder does, and the rest when the run is over."""

    def record(self, *, step: int, section: MetricSection, metrics: Mapping[str, float]) -> None: ...

    def close(self, content: MirrorContent, ending: Ending) -> str:
        """Finish, and return a line that says where the mirror is; empty where there is none."""


Rebuild = Callable[[MirrorRun, MirrorContent, Ending], str]


class LocalMirror:
    """A mirror that ``rebuild`` writes anew from the record. A run that was asked to stop leaves that to its
    resumption."""

    def __init__(self, run: MirrorRun, rebuild: Rebuild) -> None:
        self._run, self._rebuild = run, rebuild

    def record(self, *, step: int, section: MetricSection, metrics: Mapping[str, float]) -> None:
        """Do nothing: the record has the row."""

    def close(self, content: MirrorContent, ending: Ending) -> str:
        """Rebuild, and return where the mirror is."""
        return "" if ending.is_stop else self._rebuild(self._run, content, ending)


class GuardedMirror:
    """A mirror whose failure is told once, by ``warn``, and never ends the run; nothing more is sent then."""

    def __init__(self, name: str, opened: Callable[[], Mirror], *, warn: Callable[[str], None]) -> None:
        """Open the mirror. Raises ``UserError`` for a mistake of the user's, such as no account."""
        self._name, self._warn = name, warn
        self._mirror: Mirror | None = None
        try:
            self._mirror = opened()
        except UserError:
            raise
        except Exception as error:
            self._give_up(error)

    def record(self, *, step: int, section: MetricSection, metrics: Mapping[str, float]) -> None:
        """Pass the row on."""
        if self._mirror is None:
            return
        try:
            self._mirror.record(step=step, section=section, metrics=metrics)
        except Exception as error:
            self._give_up(error)

    def close(self, gather: Callable[[], MirrorContent], ending: Ending) -> str:
        """Finish with what ``gather`` returns, and return where the mirror is; empty where there is none."""
        if self._mirror is None:
            return ""
        try:
            return self._mirror.close(gather(), ending)
        except Exception as error:
            self._give_up(error)
            return ""

    def _give_up(self, error: Exception) -> None:
        self._mirror = None
        words = " ".join(str(error).split()) or type(error).__name__
        self._warn(f"the {self._name} mirror was not written ({words}); metrics.jsonl holds everything")


def rebuild_in_child(
    module: str, run: MirrorRun, content: MirrorContent, ending: Ending, *, environment: Mapping[str, str]
) -> None:
    """Run ``module`` as a program that reads its request with ``read_request``.

    ``environment`` is added to the user's, from which every variable of the tools is left out: what a user
    has set for other work must not redirect the mirror. Raises ``RuntimeError`` with the last line of the
    child's errors where it fails.
    """
    request = {"run": asdict(run), "content": asdict(content), "ending": asdict(ending)}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "TRACKIO_"))}
    modules = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    child = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(request, default=str),
        capture_output=True,
        text=True,
        env={**kept, **environment, "PYTHONPATH": modules},
        timeout=CHILD_TIMEOUT_S,
        check=False,
    )
    if child.returncode != 0:
        words = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
        raise RuntimeError(words[-1])


def read_request() -> tuple[MirrorRun, MirrorContent, Ending]:
    """Return what ``rebuild_in_child`` wrote to standard input."""
    request = json.load(sys.stdin)
    return (
        typed(MirrorRun, request["run"]),
        typed(MirrorContent, request["content"]),
        typed(Ending, request["ending"]),
    )


def column_rows(table: Table) -> list[dict[str, Any]]:
    """Return the rows of a table as mappings."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def one_line_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names without repetition, each at most 64 characters, which is what W&B takes as a tag."""
    return tuple(dict.fromkeys(name[:64] for name in names if name))
