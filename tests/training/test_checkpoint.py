"""Checkpoints are whole or not there, whatever kills the process that writes or removes them."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from qhk.errors import UserError
from qhk.policy.load import Policy
from qhk.training import checkpoint
from qhk.training.checkpoint import Checkpoints, TrainingState


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoints:
    """Checkpoints of a model of a hundred numbers."""

    def save(policy: Any, folder: Path, *, weights: Any) -> None:
        save_file({"weight": np.arange(100)}, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")

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


@pytest.mark.parametrize("dies_in", ["save_policy", "torch.save", "write_contents", "Path.rename"])
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

    def half(path: Path, **keys: Any) -> None:
        (path / "model.safetensors").unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        with pytest.raises(Killed):
            checkpoints.prune(best=2)
    assert checkpoints.steps() == [2, 3]
    checkpoints.clear_leftovers()
    assert names(checkpoints) == {"step_000002", "step_000003", "last"}


def without_digests(folder: Path) -> None:
    """Make the checkpoint one of an earlier version: a list of sizes."""
    listed = json.loads((folder / "contents.json").read_text())
    (folder / "sizes.json").write_text(json.dumps({name: entry["size"] for name, entry in listed.items()}))
    (folder / "contents.json").unlink()


def flip(path: Path, place: int) -> None:
    """Flip a bit of the byte at ``place``; the size stays."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


LIST = "contents.json"
HARMS: list[tuple[str, Callable[[Path], Any], str]] = [
    ("short", lambda path: path.write_bytes(b"x"), r"{} has 1 of \d+ bytes"),
    ("gone", lambda path: path.unlink(), "{} is missing"),
    ("a flipped bit", lambda path: flip(path, -9), "{} is not what was written"),
]


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt", "qhk.yaml", "config.json", "stage.txt"])
def test_any_harm_to_any_file_is_found(checkpoints: Checkpoints, name: str) -> None:
    folder = save(checkpoints, 1)
    content = (folder / name).read_bytes()
    for _, harm, fault in HARMS if len(content) > 9 else HARMS[1:2]:
        harm(folder / name)
        assert re.fullmatch(fault.format(re.escape(name)), checkpoints.fault(1)), name
        (folder / name).write_bytes(content)
    assert checkpoints.fault(1) == ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, r"contents\.json: cannot be read \(No such file or directory\): .*"),
        ("{", r"contents\.json line 1: not JSON .*"),
        ("[" * 100_000, r"contents\.json line 1: brackets are nested too deeply.*"),
        ("[1]", r"contents\.json: is no list of files"),
        ('{"training.pt": {"size": "1", "sha256": ""}}', r"contents\.json: is no list of files"),
        ('{"training.pt": {"size": 1}}', r"contents\.json: is no list of files"),
        ("{}", r"its list of files has no training\.pt"),
    ],
)
def test_harm_to_the_list_is_found(checkpoints: Checkpoints, text: str | None, fault: str) -> None:
    path = save(checkpoints, 1) / LIST
    path.unlink() if text is None else path.write_text(text)
    assert re.fullmatch(fault, checkpoints.fault(1)), checkpoints.fault(1)


@pytest.mark.parametrize(
    ("name", "place", "fault"),
    [
        ("model.safetensors", 0, "model.safetensors is not what was written"),
        ("config.json", 0, "config.json is not what was written"),
        ("training.pt", 0, "training.pt: is no training state"),
        ("qhk.yaml", 4, "qhk.yaml: "),
    ],
)
def test_a_checkpoint_without_digests_is_opened(
    checkpoints: Checkpoints, name: str, place: int, fault: str
) -> None:
    """One of an earlier version: it can be used, and what shows without digests is found."""
    folder = save(checkpoints, 1)
    without_digests(folder)
    assert checkpoints.fault(1) == ""
    flip(folder / name, place)
    assert checkpoints.fault(1).startswith(fault), checkpoints.fault(1)


def test_what_is_unusable_is_set_aside(checkpoints: Checkpoints) -> None:
    """Nothing that was set aside is lost, be it of the same step; links that lead nowhere count."""
    names = [f"unreadable_step_000001{end}" for end in ("", ".2", ".3", ".4")]
    checkpoints.folder.mkdir(exist_ok=True, parents=True)
    (checkpoints.folder / names[2]).symlink_to("nowhere")
    for name in (names[0], names[1], names[3]):
        (save(checkpoints, 1) / "mine.txt").write_text(name)
        archived = checkpoints.archive_unreadable(1)
        assert archived.name == name and checkpoints.steps() == []
    assert [(checkpoints.folder / name / "mine.txt").read_text() for name in (names[0], names[1])] == names[
        :2
    ]


def test_foreign_files_are_left_alone(checkpoints: Checkpoints) -> None:
    """What file systems and file managers leave among the checkpoints stops nothing and stays."""
    save(checkpoints, 1)
    (checkpoints.folder / ".DS_Store").write_text("x")
    (checkpoints.folder / ".nfs000123").mkdir()
    (checkpoints.folder / "step_000009").write_text("no folder")
    for step in (2, 3):
        save(checkpoints, step)
        (checkpoints.path(step) / ".DS_Store").write_text("x")
    checkpoints.prune(best=None)
    assert checkpoints.steps() == [3] and checkpoints.fault(3) == ""
    assert names(checkpoints) == {"step_000003", "last", ".DS_Store", ".nfs000123", "step_000009"}


def test_a_removal_that_the_file_system_holds_up_ends_nothing(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is open elsewhere stays as ``.nfs…`` on a network's file system, and so does its folder."""
    real = os.rmdir

    def busy(path: Any, **keys: Any) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty", path)

    for step in (1, 2):
        save(checkpoints, step)
    monkeypatch.setattr(os, "rmdir", busy)
    checkpoints.prune(best=None)
    assert checkpoints.steps() == [2] and ".removed_step_000001" in names(checkpoints)
    monkeypatch.setattr(os, "rmdir", real)
    checkpoints.clear_leftovers()
    assert names(checkpoints) == {"step_000002", "last"}


def test_all_files_follow_the_umask(checkpoints: Checkpoints) -> None:
    before = os.umask(0o027)
    try:
        folder = save(checkpoints, 1)
    finally:
        os.umask(before)
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {
        path.name: "0o640" for path in folder.iterdir()
    }


def test_a_place_that_takes_no_checkpoint_is_one_line(tmp_path: Path, checkpoints: Checkpoints) -> None:
    checkpoints.folder = tmp_path / "file" / "checkpoints"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/checkpoints.*: cannot be written \(Not a directory\): "):
        save(checkpoints, 1)


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
