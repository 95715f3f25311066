"""``outputs/<study>/<name>/seed<k>/``: made, resumed, recognised as finished, or refused.

A directory belongs to one run id (its file ``run_id``). Nothing in it is ever overwritten by another
run, and ``fresh`` archives it instead of deleting it.
"""

from __future__ import annotations

import re
import secrets
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from qhk.errors import UserError
from qhk.files import is_temporary, read_text, unwritable, write_atomically, writing
from qhk.plain import plain_text
from qhk.settings.identity import run_id
from qhk.settings.parse import read_settings
from qhk.settings.paths import PathsSettings
from qhk.settings.root import VERSION, Settings
from qhk.tracking.archive import archive_folder
from qhk.tracking.code import CodePart, note_code, read_code_parts
from qhk.tracking.lock import DirectoryInUseError, RunLock, lock_path
from qhk.tracking.provenance import (
    Provenance,
    code_differences,
    data_differences,
    read_provenance,
    write_provenance,
)
from qhk.tracking.status import (
    STATUS_FILE,
    Heartbeat,
    RunState,
    Status,
    current_status,
    read_status,
    write_status,
)

CONFIG_FILE = "config.yaml"
LOG_FILE = "run.log"
FAILURE_FILE = "failure.txt"
"""Why a process of the run other than the first one failed; kept until the next start."""

FIX = "choose another name= or fresh=true"

PATIENCE_S = 2.0
"""How long a run waits for its directory, which a reader who records something may hold for a moment."""


class Opened(StrEnum):
    """What a run directory was found to be."""

    FRESH = "fresh"
    RESUME = "resume"
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class RunDirectory:
    """An open run directory. It is locked until ``close`` or the end of the process that opened it.

    ``previous`` is the status an earlier process left.
    """

    path: Path
    run_id: str
    opened: Opened
    previous: Status | None
    lock: RunLock | None
    heartbeat: Heartbeat | None

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def completions(self) -> Path:
        return self.path / "completions.jsonl"

    @property
    def log(self) -> Path:
        return self.path / LOG_FILE

    @property
    def wandb_id(self) -> str:
        """The id in W&B: of this directory, so that two runs of equal settings are two curves."""
        return read_text(self.path / "wandb_id").strip()

    @property
    def code_parts(self) -> list[CodePart]:
        """Which code computed what of the run so far."""
        return read_code_parts(self.path)

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def parameters(self) -> Path:
        """The numbers of parameters, trainable and in all, by block of the model."""
        return self.path / "parameters.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def report(
        self,
        *,
        step: int | None = None,
        total_steps: int | None = None,
        srcc: float | None = None,
        warning: str | None = None,
    ) -> None:
        """Update the status (None: as before), if this process keeps it."""
        if self.heartbeat is not None:
            self.heartbeat.report(step=step, total_steps=total_steps, srcc=srcc, warning=warning)

    def note_code(self, *, step: int) -> list[CodePart]:
        """Record that the present code goes on after ``step`` (-1: it begins); return which computed what."""
        return note_code(self.path, step=step)

    def end(self, state: RunState, *, cause: str) -> None:
        """Write how the run ended, if this process keeps the status."""
        if self.heartbeat is not None:
            self.heartbeat.end(state, cause=cause)

    def note_failure(self, cause: str, error: BaseException) -> None:
        """Record the failure of a process that keeps no status, for the one that does."""
        log_traceback(self.log, error)
        if not self.noted_failure():  # a later one is most often the end of the first one's peers
            write_atomically(self.path / FAILURE_FILE, " ".join(cause.split()))

    def noted_failure(self) -> str:
        """Return the cause that another process of this run has left; empty without one."""
        path = self.path / FAILURE_FILE
        return read_text(path) if path.exists() else ""

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
    """Return the directory of a run. Raises ``UserError`` unless study and name are plain folder names."""
    for key, value in (("study", study), ("name", name)):
        if not value or value.startswith(".") or "/" in value or "\0" in value:
            raise UserError(f"{key}={value!r} must be one folder name without '/' or a leading '.'")
    return outputs / study / name / f"seed{seed}"


def output_problems(settings: Settings) -> list[str]:
    """Return a line for each place where the run could not write, as far as that is known without trying."""
    path = _own_directory(settings)
    lines = [
        _place_problem(RUN_KEYS, path, *_first_files(path)),
        _place_problem("paths.cache", Path(settings.paths.cache)),
    ]
    return [line for line in lines if line]


def refuse_outputs(settings: Settings) -> None:
    """Raise ``UserError`` where the run's own directory cannot be written, or a cache that it needs."""
    path = _own_directory(settings)
    refuse_place(RUN_KEYS, path, *_first_files(path))
    refuse_cache(settings.paths)


def refuse_place(key: str, path: Path, *names: str) -> None:
    """Raise ``UserError`` naming ``key`` where ``path``, or a file in it, could not be written."""
    if line := _place_problem(key, path, *names):
        raise UserError(line)


def refuse_cache(paths: PathsSettings) -> None:
    """Raise ``UserError`` where there is no cache and none can be made; one that is there may hold all."""
    if not Path(paths.cache).is_dir():
        refuse_place("paths.cache", Path(paths.cache))


RUN_KEYS = "paths.outputs, study or name"


def _own_directory(settings: Settings) -> Path:
    assert settings.name is not None
    outputs = Path(settings.paths.outputs)
    return run_path(outputs, study=settings.study, name=settings.name, seed=settings.seed)


def _first_files(path: Path) -> tuple[str, str]:
    return lock_path(path).name, "metrics.dropped.jsonl"


def _place_problem(key: str, path: Path, *names: str) -> str:
    fault = unwritable(path, *names)
    return f"{path}: cannot be written ({fault}): change {key}" if fault else ""


def known_run_id(path: Path, settings: Settings) -> str:
    """Return the id under which ``path`` holds a run of these settings.

    It is ``run_id`` of the settings, but a run that an earlier version of stored configs began keeps its id.
    Its config, read as one of this version, tells whether it is the same run.
    """
    begun, own = path / "run_id", run_id(settings)
    if not begun.is_file() or not _is_of_other_version(path / CONFIG_FILE):
        return own
    same = run_id(read_settings(path / CONFIG_FILE)) == own
    return read_text(begun).strip() if same else own


def _is_of_other_version(config: Path) -> bool:
    """Return whether a run's config is there, as another version wrote it."""
    text = read_text(config) if config.is_file() else f"version: {VERSION}"
    return re.search(rf"^version: {VERSION}$", text, re.MULTILINE) is None


def find_state(path: Path, *, run_id: str, provenance: Provenance) -> Opened:
    """Return what opening ``path`` for this run would find; nothing is written.

    Raises ``UserError`` (one line: directory, difference, fix) where the directory belongs to another
    run id or to nobody, where the run is finished but code or data have changed since, or where an
    unfinished run would resume on other data. Changed code alone does not stop a resume.
    """
    if not path.exists() or (path.is_dir() and all(entry.name.startswith(".") for entry in path.iterdir())):
        return Opened.FRESH
    id_file = path / "run_id"
    if not id_file.exists():
        raise UserError(f"{path} holds files but no run_id, so it is not a run directory: {FIX}")
    found = read_text(id_file).strip()
    if found != run_id:
        raise UserError(f"{path} belongs to run id {found}, this configuration is {run_id}: {FIX}")
    status = read_status(path / STATUS_FILE)
    finished = status is not None and status.state is RunState.DONE
    before = read_provenance(path / "provenance.json")
    if before is not None:
        differences = data_differences(before, provenance)
        if finished:
            differences = code_differences(before, provenance) + differences
        if differences:
            state, shown = ("finished", f"qhk report {path} shows it; ") if finished else ("unfinished", "")
            raise UserError(
                f"{path} is {state}, but {', '.join(differences)} changed since: {shown}to train anew, "
                f"{FIX}, which archives it"
            )
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
    """Return the locked directory of this run, made, resumed or finished.

    Writes ``run_id``, ``config.yaml``, ``provenance.json`` and the status ``running``, which is kept fresh
    until the directory is closed, but touches nothing in a finished run. ``fresh`` first moves what is there
    to ``seed<k>.replaced-<n>``. Raises ``UserError`` as ``find_state`` does, and where another process
    holds the directory.
    """
    path = run_path(outputs, study=study, name=name, seed=seed)
    lock, heartbeat = RunLock(lock_path(path), directory=path, patience_s=PATIENCE_S), None
    try:
        if fresh:
            archive_folder(path)
        opened = find_state(path, run_id=run_id, provenance=provenance)
        previous = read_status(path / STATUS_FILE)
        if opened is not Opened.FINISHED:
            _remove_leftovers(path)
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
        lock=lock,
        heartbeat=heartbeat,
    )


def join_run_directory(
    outputs: Path, *, study: str, name: str, seed: int, run_id: str, opened: Opened
) -> RunDirectory:
    """Return the directory that the run's first process has opened, without a lock, for the other ones."""
    path = run_path(outputs, study=study, name=name, seed=seed)
    return RunDirectory(path=path, run_id=run_id, opened=opened, previous=None, lock=None, heartbeat=None)


def _write_identity(path: Path, *, run_id: str, config: Mapping[str, Any], provenance: Provenance) -> None:
    """Write the id first, so that a directory with any file of a run also names the run."""
    write_atomically(path / "run_id", run_id + "\n")
    if not (path / "wandb_id").exists():
        write_atomically(path / "wandb_id", f"{run_id}-{secrets.token_hex(4)}\n")
    if not _is_of_other_version(path / CONFIG_FILE):  # else it says why the id is not that of the settings
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=110)
        write_atomically(path / CONFIG_FILE, text)
    write_provenance(path / "provenance.json", provenance)


def _remove_leftovers(path: Path) -> None:
    """Remove half-written files of killed processes; the lock guarantees that none of them lives."""
    for entry in path.iterdir() if path.is_dir() else ():
        if entry.is_file() and (is_temporary(entry) or entry.name == FAILURE_FILE):
            entry.unlink()


def leave_failure(
    outputs: Path, *, study: str, name: str, seed: int, run_id: str, cause: str, error: BaseException
) -> None:
    """Record in a run's directory why the run failed before it could open it: status, traceback, id.

    Leaves alone a directory that another process holds, that is finished, or that is not this run's.
    """
    path = run_path(outputs, study=study, name=name, seed=seed)
    try:
        lock = RunLock(lock_path(path), directory=path)
    except DirectoryInUseError:
        return
    try:
        id_file = path / "run_id"
        if path.exists() and (not id_file.exists() or read_text(id_file).strip() != run_id):
            return
        before = read_status(path / STATUS_FILE)
        if before is not None and before.state is RunState.DONE:
            return
        write_atomically(id_file, run_id + "\n")
        step, total_steps = (before.step, before.total_steps) if before is not None else (0, None)
        failed = current_status(state=RunState.FAILED, step=step, total_steps=total_steps, cause=cause)
        write_status(path / STATUS_FILE, failed)
        log_traceback(path / LOG_FILE, error)
    finally:
        lock.release()


def log_line(path: Path, text: str) -> None:
    """Append a line with the present time (UTC)."""
    _append(path, f"{text}\n")


def log_traceback(path: Path, error: BaseException) -> None:
    """Append the whole traceback of ``error``, those of its causes included."""
    _append(path, "".join(traceback.format_exception(error)))


def _append(path: Path, text: str) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')}  {plain_text(text)}")
