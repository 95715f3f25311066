"""A disk that runs full, on a small file system of its own: the run fails, says so, and can go on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qhk.tracking.status import RunState, Status, read_status
from qhk.training.checkpoint import Checkpoints
from tests.conftest import Qhk as Run
from tests.training import ending_reward
from tests.training.ending_reward import PER_STEP, ending_words
from tests.training.kill import leftovers, outcome


def mount(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The folder ``outputs`` on a disk of 15 MiB: room for step 0 of 4 MB, not for another of 13 MB."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("NOT TESTED: a full disk needs root and mount")
    mounted = mount("-t", "tmpfs", "-o", "size=15M", "qhk-test", str(folder))
    if mounted.returncode != 0:
        pytest.skip(f"NOT TESTED: a full disk needs a small file system ({mounted.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def failed(directory: Path) -> Status:
    """The status of a run that met a full disk."""
    status = read_status(directory / "status.json")
    assert status is not None and status.state is RunState.FAILED
    assert status.cause.startswith("the disk is full: ")
    assert f"make room below outputs/{directory.relative_to(directory.parents[2])}" in status.cause
    return status


def test_a_full_disk_costs_no_checkpoint(qhk: Run, miniature_cache: Path, disk: Path) -> None:
    directory = disk / "default" / "run" / "seed0"
    words = ending_words("fill", at=PER_STEP + 2, cache=miniature_cache)
    ending_reward.calls.clear()
    code, _, err = qhk("train", *words, "training.checkpoint_every=1")
    # no room for the checkpoint of step 1: that of step 0 stands, and nothing of the other is left
    assert (code, failed(directory).step) == (1, 1)
    assert err.splitlines()[-1].startswith("qhk: training failed: the disk is full: ")
    checkpoints = Checkpoints(directory / "checkpoints", keep_every=None, starts=[0])
    assert checkpoints.steps() == [0] and checkpoints.fault(0) == ""
    assert not leftovers(directory)
    # room for more, until the second step fills the disk to its last block
    assert mount("-o", "remount,size=60M", str(disk)).returncode == 0
    ending_reward.calls.clear()
    assert qhk("train", *words, "training.checkpoint_every=1")[0] != 0
    assert failed(directory).step == 1
    assert checkpoints.steps() == [0, 1] and checkpoints.fault(1) == ""
    (disk / "ballast").unlink()
    assert qhk("train", *words, "training.checkpoint_every=1")[0] == 0
    whole = outcome(directory)
    directory.rename(disk / "first")
    shutil.rmtree(disk / "first" / "checkpoints")
    ending_reward.calls.extend("x" * PER_STEP * 4)
    assert qhk("train", *words, "training.checkpoint_every=1")[0] == 0
    assert outcome(directory) == whole
