"""Checkpoints: a folder in the Hugging Face layout plus what training needs to go on, written atomically."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from qhk.policy.load import Policy, save_policy

STATE_FILE, CONFIG_FILE = "training.pt", "qhk.yaml"
_NAME = re.compile(r"step_(\d{6,})")


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What a run needs besides the weights to continue as if it had never stopped.

    Schedules, sampling and data order are functions of (seed, step), so ``step`` is their whole state;
    ``torch_rng`` is kept for libraries that draw from the global generator. ``best`` is the best
    validation result so far as {step, value}, ``history`` the uncertainty's memory, ``wall_s`` the time
    spent so far by part.
    """

    step: int
    run_id: str
    optimizer: dict[str, Any] | None
    torch_rng: torch.Tensor
    best: dict[str, float] | None
    wall_s: dict[str, float]


class Checkpoints:
    """The checkpoint folders ``step_000120`` of one run, with the links ``last`` and ``best`` beside them.

    A folder appears under its final name only once complete. Kept are those in ``starts`` (where they are
    there: the policies that a stage of reinforcement started from), the last, the best, and every
    ``keep_every``-th.
    """

    def __init__(self, folder: Path, *, keep_every: int | None, starts: Sequence[int]) -> None:
        self.folder, self.keep_every, self.starts = folder, keep_every, starts

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / f"step_{step:06d}"

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def save(self, policy: Policy, state: TrainingState, config: dict[str, Any]) -> Path:
        """Writes the checkpoint of ``state.step`` and points ``last`` to it."""
        target = self.path(state.step)
        partial = self.folder / f".partial_{target.name}"
        for leftover in self.folder.glob(".partial_*"):
            shutil.rmtree(leftover)
        partial.mkdir(parents=True)
        save_policy(policy, partial)
        (partial / CONFIG_FILE).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        torch.save(vars(state), partial / STATE_FILE)
        for file in partial.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self._point("last", state.step)
        return target

    def mark_best(self, step: int) -> None:
        """Points ``best`` to the checkpoint of ``step``."""
        self._point("best", step)

    def prune(self, *, best: int | None) -> None:
        """Removes checkpoints that are neither a start, last, best nor a ``keep_every``-th."""
        for step in self.steps()[:-1]:
            periodic = self.keep_every is not None and step % self.keep_every == 0
            if step not in (*self.starts, best) and not periodic:
                shutil.rmtree(self.path(step))

    def load_state(self, step: int, *, run_id: str) -> TrainingState:
        """The training state of a checkpoint. Raises ValueError when another config wrote it."""
        path = self.path(step) / STATE_FILE
        state = TrainingState(**torch.load(path, map_location="cpu", weights_only=True))
        if state.run_id != run_id:
            raise ValueError(
                f"{path}: written by run {state.run_id}, this config is run {run_id}; "
                "use another name=..., or fresh=true to set the old directory aside"
            )
        return state

    def _point(self, name: str, step: int) -> None:
        link = self.folder / f".{name}_link"
        link.unlink(missing_ok=True)
        link.symlink_to(self.path(step).name)
        link.replace(self.folder / name)


def checkpoint_config(path: Path) -> dict[str, Any]:
    """The resolved config that wrote the checkpoint. Raises ValueError where there is none."""
    file = path / CONFIG_FILE
    if not file.is_file():
        raise ValueError(
            f"checkpoint: {path} holds no {CONFIG_FILE}; give a folder such as outputs/.../checkpoints/last"
        )
    config: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return config
