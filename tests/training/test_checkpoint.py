"""Checkpoints are whole or not there, whatever kills the process that writes or removes them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from qhk.policy.load import Policy
from qhk.training import checkpoint
from qhk.training.checkpoint import Checkpoints, TrainingState


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoints:
    """Checkpoints whose weights are a file of the step's number."""

    def save(policy: Any, folder: Path) -> None:
        (folder / "model.safetensors").write_text("weights " * 100)

    monkeypatch.setattr(checkpoint, "save_policy", save)
    return Checkpoints(tmp_path / "checkpoints", keep_every=None, starts=[0])


def save(checkpoints: Checkpoints, step: int) -> Path:
    state = TrainingState(
        step=step,
        run_id="abc",
        optimizer=None,
        torch_rng=torch.zeros(2),
        best=None,
        history={},
        wall_s={},
    )
    policy: Policy = None  # type: ignore[assignment]
    return checkpoints.save(policy, state, {"seed": 0}, stage="")


def names(checkpoints: Checkpoints) -> set[str]:
    return {entry.name for entry in checkpoints.folder.iterdir()}


@pytest.mark.parametrize("dies_in", ["save_policy", "torch.save", "os.fsync", "sync_folder", "Path.rename"])
def test_a_writer_that_dies_leaves_the_earlier_checkpoint(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    save(checkpoints, 1)

    def die(*args: Any, **kwargs: Any) -> None:
        raise Killed

    owner, _, name = dies_in.rpartition(".")
    with monkeypatch.context() as patch:
        patch.setattr(vars(checkpoint)[owner] if owner else checkpoint, name, die)
        # a killed process does not clean up behind itself
        patch.setattr(checkpoint.shutil, "rmtree", die)
        with pytest.raises(Killed):
            save(checkpoints, 2)
    assert checkpoints.steps() == [1] and checkpoints.fault(1) == ""
    assert ".partial_step_000002" in names(checkpoints)
    checkpoints.clear_leftovers()
    assert names(checkpoints) == {"step_000001", "last"}
    save(checkpoints, 2)
    assert checkpoints.steps() == [1, 2] and checkpoints.fault(2) == ""


def test_a_writer_that_fails_gives_its_room_back(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(checkpoints, 1)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        save(checkpoints, 2)
    assert names(checkpoints) == {"step_000001", "last"}


def test_a_removal_that_dies_half_way_leaves_no_half_checkpoint(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        save(checkpoints, step)

    def half(path: Path) -> None:
        (path / "model.safetensors").unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        with pytest.raises(Killed):
            checkpoints.prune(best=2)
    assert checkpoints.steps() == [2, 3]
    checkpoints.clear_leftovers()
    assert names(checkpoints) == {"step_000002", "step_000003", "last"}


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (lambda folder: (folder / "training.pt").write_bytes(b"x"), r"training\.pt has 1 of \d+ bytes"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors is missing"),
        (lambda folder: (folder / "sizes.json").unlink(), r"sizes\.json is missing or cut short"),
        (lambda folder: (folder / "sizes.json").write_text("{"), r"sizes\.json is missing or cut short"),
    ],
)
def test_faults_are_found_and_archived(checkpoints: Checkpoints, harm: Any, fault: str) -> None:
    import re

    harm(save(checkpoints, 1))
    assert re.fullmatch(fault, checkpoints.fault(1))
    for _ in range(2):
        archived = checkpoints.archive_unreadable(1)
        assert archived.name == "unreadable_step_000001" and checkpoints.steps() == []
        save(checkpoints, 1)
    assert checkpoints.fault(1) == ""


def test_what_is_kept(tmp_path: Path, checkpoints: Checkpoints) -> None:
    checkpoints.keep_every = 4
    for step in range(11):
        save(checkpoints, step)
        checkpoints.prune(best=min(step, 5))
    assert checkpoints.steps() == [0, 4, 5, 8, 10]


def test_best_never_points_to_what_is_gone(checkpoints: Checkpoints) -> None:
    """A later stage has no best at first, and the best of the one before it may be removed."""
    for step in range(1, 4):
        save(checkpoints, step)
        checkpoints.mark_best(1 if step < 3 else None)
        checkpoints.prune(best=1 if step < 3 else None)
    assert checkpoints.steps() == [3] and names(checkpoints) == {"step_000003", "last"}
