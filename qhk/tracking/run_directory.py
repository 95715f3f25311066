"""``outputs/<study>/<name>/seed<k>/``: made, resumed, recognised as finished, or refused.

A directory belongs to one run id (its file ``run_id``). Nothing in it is ever overwritten by another
run, and ``fresh`` moves it aside instead of deleting it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from qhk.files import write_atomically
from qhk.tracking.heartbeat import Heartbeat
from qhk.tracking.lock import RunLock, lock_path
from qhk.tracking.provenance import (
    Provenance,
    code_differences,
    data_differences,
    read_provenance,
    write_provenance,
)
from qhk.tracking.status import STATUS_FILE, RunState, Status, read_status

FIX = "choose another name= or fresh=true"


class Opened(StrEnum):
    """What a run directory was found to be."""

    FRESH = "fresh"
    RESUME = "resume"
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class RunDirectory:
    """An open run directory. It is locked until ``close`` or the end of the process that opened it.

    ``previous`` is the status an earlier process left. ``code_changed`` says in a few words how the
    code of a resumed run differs from what began it, and is empty otherwise.
    """

    path: Path
    run_id: str
    opened: Opened
    previous: Status | None
    code_changed: str
    lock: RunLock | None
    heartbeat: Heartbeat | None

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def completions(self) -> Path:
        return self.path / "completions.jsonl"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def report(
        self, *, step: int | None = None, total_steps: int | None = None, srcc: float | None = None
    ) -> None:
        """Say where the run stands (None: as before), where this process keeps the status."""
        if self.heartbeat is not None:
            self.heartbeat.report(step=step, total_steps=total_steps, srcc=srcc)

    def end(self, state: RunState, *, cause: str) -> None:
        """Say how the run ended, where this process keeps the status."""
        if self.heartbeat is not None:
            self.heartbeat.end(state, cause=cause)

    def close(self) -> None:
        """End the heartbeat and give the lock up, where this process holds them."""
        if self.heartbeat is not None:
            self.heartbeat.stop()
        if self.lock is not None:
            self.lock.release()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_path(outputs: Path, *, study: str, name: str, seed: int) -> Path:
    """The directory of a run; raises ``ValueError`` where study or name is not one plain folder name."""
    for key, value in (("study", study), ("name", name)):
        if not value or value.startswith(".") or "/" in value or "\0" in value:
            raise ValueError(f"{key}={value!r} must be one folder name without '/' or a leading '.'")
    return outputs / study / name / f"seed{seed}"


def find_state(path: Path, *, run_id: str, provenance: Provenance) -> Opened:
    """What opening ``path`` for this run would find; reads only.

    Raises ``ValueError`` (one line: directory, difference, fix) where the directory belongs to another
    run id or to nobody, where the run is finished but code or data have changed since, or where an
    unfinished run would resume on other data. Changed code alone does not stop a resume.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return Opened.FRESH
    id_file = path / "run_id"
    if not id_file.exists():
        raise ValueError(f"{path} holds files but no run_id, so it is not a run directory: {FIX}")
    found = id_file.read_text(encoding="utf-8").strip()
    if found != run_id:
        raise ValueError(f"{path} belongs to run id {found}, this configuration is {run_id}: {FIX}")
    status = read_status(path / STATUS_FILE)
    finished = status is not None and status.state is RunState.DONE
    before = read_provenance(path / "provenance.json")
    if before is not None:
        differences = data_differences(before, provenance)
        if finished:
            differences = code_differences(before, provenance) + differences
        if differences:
            state = "finished" if finished else "unfinished"
            raise ValueError(f"{path} is {state}, but {', '.join(differences)} changed since: use fresh=true")
    return Opened.FINISHED if finished else Opened.RESUME


def open_run_directory(
    outputs: Path,
    *,
    study: str,
    name: str,
    seed: int,
    run_id: str,
    config: Mapping[str, Any],
    provenance: Provenance,
    fresh: bool,
) -> RunDirectory:
    """The locked directory of this run, made, resumed or finished.

    Writes ``run_id``, ``config.yaml``, ``provenance.json`` and the status ``running``, which is kept fresh
    until the directory is closed, but touches nothing in a finished run. ``fresh`` first moves what is there
    to ``seed<k>.replaced-<n>``. Raises ``ValueError`` as ``find_state`` does, and where another process
    holds the directory.
    """
    path = run_path(outputs, study=study, name=name, seed=seed)
    lock, heartbeat = RunLock(lock_path(path), directory=path), None
    try:
        if fresh:
            move_aside(path)
        opened = find_state(path, run_id=run_id, provenance=provenance)
        previous = read_status(path / STATUS_FILE)
        before = read_provenance(path / "provenance.json")
        if opened is not Opened.FINISHED:
            _write_identity(path, run_id=run_id, config=config, provenance=provenance)
            step, srcc = (previous.step, previous.srcc) if previous is not None else (0, None)
            heartbeat = Heartbeat(path / STATUS_FILE, step=step, srcc=srcc)
    except BaseException:
        lock.release()
        raise
    return RunDirectory(
        path=path,
        run_id=run_id,
        opened=opened,
        previous=previous,
        code_changed=", ".join(code_differences(before, provenance)) if before is not None else "",
        lock=lock,
        heartbeat=heartbeat,
    )


def join_run_directory(
    outputs: Path, *, study: str, name: str, seed: int, run_id: str, opened: Opened
) -> RunDirectory:
    """The directory that the run's first process has ``opened``, for its other processes: without a lock."""
    path = run_path(outputs, study=study, name=name, seed=seed)
    return RunDirectory(
        path=path, run_id=run_id, opened=opened, previous=None, code_changed="", lock=None, heartbeat=None
    )


def _write_identity(path: Path, *, run_id: str, config: Mapping[str, Any], provenance: Provenance) -> None:
    """The id comes first: a directory that holds anything of ours then always says whose it is."""
    write_atomically(path / "run_id", run_id + "\n")
    write_atomically(
        path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=110)
    )
    write_provenance(path / "provenance.json", provenance)


def move_aside(path: Path) -> None:
    """Renames the folder to ``<name>.replaced-<n>``, where there is one; nothing is deleted."""
    if not path.exists():
        return
    number = 1
    while (aside := path.with_name(f"{path.name}.replaced-{number}")).exists():
        number += 1
    path.rename(aside)
