"""Checkpoints: a folder in the Hugging Face layout plus what training needs to go on, written atomically."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from qhk.errors import UserError
from qhk.files import sync_folder
from qhk.policy.load import Policy, save_policy

STATE_FILE, CONFIG_FILE, SIZES_FILE = "training.pt", "qhk.yaml", "sizes.json"
STAGE_FILE = "stage.txt"
_NAME = re.compile(r"step_(\d{6,})")


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What a run needs besides the weights to continue as if it had never stopped.

    Schedules, sampling and data order are functions of (seed, step), so ``step`` is their whole state;
    ``torch_rng`` is kept for libraries that draw from the global generator. ``best`` is the best
    validation result so far as {step, value}, ``history`` the uncertainty's memory as {image: variance},
    ``wall_s`` the time spent so far by part.
    """

    step: int
    run_id: str
    optimizer: dict[str, Any] | None
    torch_rng: torch.Tensor
    best: dict[str, float] | None
    history: dict[str, float]
    wall_s: dict[str, float]


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
        matches = (_NAME.fullmatch(entry.name) for entry in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def save(self, policy: Policy, state: TrainingState, config: dict[str, Any], *, stage: str) -> Path:
        """Write the checkpoint of ``state.step``, point ``last`` to it and return its path."""
        target = self.path(state.step)
        partial = self.folder / f".partial_{target.name}"
        self.clear_leftovers()
        partial.mkdir(parents=True)
        try:
            _write(partial, policy, state, config, stage=stage)
        except BaseException:
            # A full disk gets its room back at once; the checkpoints before this one stand.
            shutil.rmtree(partial, ignore_errors=True)
            raise
        replaced = self._rename_away(target) if target.exists() else None
        partial.rename(target)
        sync_folder(self.folder)
        self._point("last", state.step)
        if replaced is not None:
            shutil.rmtree(replaced)
        return target

    def clear_leftovers(self) -> None:
        """Remove what a killed process left half-written or half-removed."""
        for entry in self.folder.glob(".*") if self.folder.is_dir() else ():
            if entry.is_symlink():
                entry.unlink()
            else:
                shutil.rmtree(entry)

    def fault(self, step: int) -> str:
        """Return why the checkpoint of ``step`` cannot be read, in a few words; empty where all is whole."""
        path = self.path(step)
        try:
            sizes: dict[str, int] = json.loads((path / SIZES_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return f"{SIZES_FILE} is missing or cut short"
        for name, size in sizes.items():
            found = (path / name).stat().st_size if (path / name).is_file() else None
            if found != size:
                return f"{name} is missing" if found is None else f"{name} has {found} of {size} bytes"
        return ""

    def archive_unreadable(self, step: int) -> Path:
        """Rename the checkpoint of ``step``, so that no run resumes from it; return its new path."""
        archived = self.folder / f"unreadable_{self.path(step).name}"
        if archived.exists():
            shutil.rmtree(archived)
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
                shutil.rmtree(self._rename_away(self.path(step)))

    def load_state(self, step: int, *, run_id: str) -> TrainingState:
        """Return the training state of a checkpoint. Raises UserError when another config wrote it."""
        path = self.path(step) / STATE_FILE
        stored = torch.load(path, map_location="cpu", weights_only=True)
        if stored["run_id"] != run_id:
            raise UserError(
                f"{path}: written by run {stored['run_id']}, this config is run {run_id}; "
                "use another name=..., or fresh=true to archive the old directory"
            )
        return TrainingState(**stored)

    def _rename_away(self, path: Path) -> Path:
        """The folder under a name that no reader takes for a checkpoint."""
        return path.rename(self.folder / f".removed_{path.name}")

    def _point(self, name: str, step: int) -> None:
        link = self.folder / f".{name}_link"
        link.unlink(missing_ok=True)
        link.symlink_to(self.path(step).name)
        link.replace(self.folder / name)


def _write(folder: Path, policy: Policy, state: TrainingState, config: dict[str, Any], *, stage: str) -> None:
    """Writes all files, the list of their sizes last, and puts them on disk."""
    save_policy(policy, folder)
    (folder / CONFIG_FILE).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    (folder / STAGE_FILE).write_text(f"{stage}\n", encoding="utf-8")
    with (folder / STATE_FILE).open("wb") as file:
        # Through a file of Python's own: it keeps the reason where the disk is full.
        torch.save(vars(state), file)
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    (folder / SIZES_FILE).write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        with path.open("rb") as written:
            os.fsync(written.fileno())
    sync_folder(folder)


def checkpoint_config(path: Path) -> dict[str, Any]:
    """Return the resolved config that wrote the checkpoint. Raises UserError where there is none."""
    file = path / CONFIG_FILE
    if not file.is_file():
        raise UserError(
            f"checkpoint: {path} holds no {CONFIG_FILE}; give a folder such as outputs/.../checkpoints/last"
        )
    config: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return config


def checkpoint_step(path: Path) -> int | None:
    """Return the training step of a checkpoint by its folder's own name, None where that does not say."""
    match = _NAME.fullmatch(path.resolve().name)
    return int(match[1]) if match else None


def checkpoint_stage(path: Path) -> str | None:
    """Return the stage in which a checkpoint was reached ("" in a run of one), None where it does not say."""
    file = path / STAGE_FILE
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None
