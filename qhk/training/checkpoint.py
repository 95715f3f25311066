"""Checkpoints: a folder in the Hugging Face layout plus what training needs to go on, written atomically."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from qhk.errors import UserError
from qhk.files import read_text, read_yaml, sync_folder, writing
from qhk.policy.contents import folder_fault, write_contents
from qhk.policy.load import Policy, save_policy
from qhk.settings.parse import CHECKPOINT_CONFIG

STATE_FILE, CONFIG_FILE = "training.pt", CHECKPOINT_CONFIG
STAGE_FILE = "stage.txt"
_NAME = re.compile(r"step_(\d{6,})")
_LEFTOVER = re.compile(r"\.(?:partial|removed)_step_\d{6,}|\.(?:last|best)_link")


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What a run needs besides the weights to continue as if it had never stopped.

    Schedules, sampling and data order are functions of (seed, step), so ``step`` is their whole state;
    ``torch_rng`` is kept for libraries that draw from the global generator. ``best`` is the best
    validation result so far as {step, value}, ``history`` the uncertainty's memory as {image: variance},
    ``wall_s`` the time spent so far by part, ``rollbacks`` where this stage went back, as (at step, to step),
    ``missing`` the completions so far without a reward, by the reward's name.
    """

    step: int
    run_id: str
    optimizer: dict[str, Any] | None
    torch_rng: torch.Tensor
    best: dict[str, float] | None
    history: dict[str, float]
    wall_s: dict[str, float]
    rollbacks: Sequence[tuple[int, int]] = ()
    missing: Mapping[str, int] = field(default_factory=dict)


class Checkpoints:
    """The checkpoint folders ``step_000120`` of one run, with the links ``last`` and ``best`` beside them.

    A folder appears under its final name only once it is complete and on disk, and loses that name before
    it is removed, so that a process killed at any moment leaves whole checkpoints and leftovers that the
    next start clears. Kept are those in ``starts`` (where they are there: the policies that a stage of
    reinforcement started from), the last, the best, and every ``keep_every``-th.
    """

    def __init__(self, folder: Path, *, keep_every: int | None, starts: Sequence[int]) -> None:
        self.folder, self.keep_every, self.starts = folder, keep_every, starts

    def path(self, step: int) -> Path:
        """Return where the checkpoint of a step lies."""
        return self.folder / f"step_{step:06d}"

    def steps(self) -> list[int]:
        """Return steps with a complete checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self.folder.iterdir() if entry.is_dir())
        return sorted(int(match[1]) for match in matches if match)

    def save(
        self,
        policy: Policy,
        state: TrainingState,
        config: dict[str, Any],
        *,
        stage: str,
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> Path:
        """Write the checkpoint of ``state.step``, point ``last`` to it and return its path.

        ``weights`` by name are written where they are given, else the model's own.
        """
        target = self.path(state.step)
        partial = self.folder / f".partial_{target.name}"
        self.clear_leftovers()
        with writing(target):
            partial.mkdir(parents=True)
            try:
                _write(partial, policy, state, config, stage=stage, weights=weights)
            except BaseException:
                # A full disk gets its room back at once; the checkpoints before this one stand.
                _remove(partial)
                raise
            replaced = self._rename_away(target) if target.exists() else None
            partial.rename(target)
            sync_folder(self.folder)
            self._point("last", state.step)
        if replaced is not None:
            _remove(replaced)
        return target

    def clear_leftovers(self) -> None:
        """Remove what a killed process left half-written or half-removed, and nothing that is not ours."""
        for entry in self.folder.glob(".*") if self.folder.is_dir() else ():
            if _LEFTOVER.fullmatch(entry.name):
                _remove(entry)

    def fault(self, step: int) -> str:
        """Return why the checkpoint of ``step`` cannot be used, in a few words; empty where all is whole.

        Every file is read once, see ``folder_fault``. What is whole by its digests is trusted; of an earlier
        version's, which has none, the training state and the config are opened as well.
        """
        path = self.path(step)
        fault, proven = folder_fault(path, needed=(STATE_FILE, CONFIG_FILE))
        if fault or proven:
            return fault
        try:
            read_yaml(path / CONFIG_FILE)
            _read_state(path / STATE_FILE)
        except UserError as error:
            return str(error).removeprefix(f"{path}/")
        return ""

    def archive_unreadable(self, step: int) -> Path:
        """Rename the checkpoint of ``step``, so that no run resumes from it; return its new path.

        One of the same step that was set aside before stays: the new one has a number behind its name.
        """
        name = f"unreadable_{self.path(step).name}"
        names = (name if number == 1 else f"{name}.{number}" for number in itertools.count(1))
        archived = next(path for name in names if not os.path.lexists(path := self.folder / name))
        self.path(step).rename(archived)
        sync_folder(self.folder)
        return archived

    def mark_best(self, step: int | None) -> None:
        """Point ``best`` to the checkpoint of ``step``; remove it where nothing is best yet (None)."""
        if step is None:
            (self.folder / "best").unlink(missing_ok=True)
        else:
            self._point("best", step)

    def prune(self, *, best: int | None) -> None:
        """Remove checkpoints that are neither a start, last, best nor a ``keep_every``-th."""
        for step in self.steps()[:-1]:
            periodic = self.keep_every is not None and step % self.keep_every == 0
            if step not in (*self.starts, best) and not periodic:
                _remove(self._rename_away(self.path(step)))

    def load_state(self, step: int, *, run_id: str) -> TrainingState:
        """Return the training state of a checkpoint. Raises UserError when another config wrote it."""
        path = self.path(step) / STATE_FILE
        state = _read_state(path)
        if state.run_id != run_id:
            raise UserError(
                f"{path}: written by run {state.run_id}, this config is run {run_id}; "
                "use another name=..., or fresh=true to archive the old directory"
            )
        return state

    def _rename_away(self, path: Path) -> Path:
        """The folder under a name that no reader takes for a checkpoint."""
        return path.rename(self.folder / f".removed_{path.name}")

    def _point(self, name: str, step: int) -> None:
        link = self.folder / f".{name}_link"
        link.unlink(missing_ok=True)
        link.symlink_to(self.path(step).name)
        link.replace(self.folder / name)


def _remove(entry: Path) -> None:
    """Remove a leftover as far as that goes: what a network's file system holds on to goes the next time."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink()


def _read_state(path: Path) -> TrainingState:
    """Return the training state in a file. Raises ``UserError`` naming it for any other."""
    try:
        return TrainingState(**torch.load(path, map_location="cpu", weights_only=True))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged archive makes of the unpickler
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: is no training state ({type(error).__name__}: {reason})") from error


def _write(
    folder: Path,
    policy: Policy,
    state: TrainingState,
    config: dict[str, Any],
    *,
    stage: str,
    weights: Mapping[str, torch.Tensor] | None,
) -> None:
    """Writes all files, the list of their sizes and digests last, and puts them on disk."""
    save_policy(policy, folder, weights=weights)
    (folder / CONFIG_FILE).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    (folder / STAGE_FILE).write_text(f"{stage}\n", encoding="utf-8")
    with (folder / STATE_FILE).open("wb") as file:
        # Through a file of Python's own: it keeps the reason where the disk is full.
        torch.save(vars(state), file)
    mode = (folder / CONFIG_FILE).stat().st_mode
    for path in folder.iterdir():
        # The writer of safetensors lets nobody else read what it makes; the other files follow the umask.
        path.chmod(mode)
    write_contents(folder)


def checkpoint_config(path: Path) -> Path:
    """Return the file of the config that wrote the checkpoint. Raises UserError where there is none."""
    file = path / CONFIG_FILE
    if not file.is_file():
        raise UserError(
            f"checkpoint: {path} holds no {CONFIG_FILE}; give a folder such as outputs/.../checkpoints/last"
        )
    return file


def checkpoint_step(path: Path) -> int | None:
    """Return the training step of a checkpoint by its folder's own name, None where that does not say."""
    match = _NAME.fullmatch(path.resolve().name)
    return int(match[1]) if match else None


def checkpoint_stage(path: Path) -> str | None:
    """Return the stage in which a checkpoint was reached ("" in a run of one), None where it does not say."""
    file = path / STAGE_FILE
    return read_text(file).strip() if file.is_file() else None
