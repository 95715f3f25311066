"""SLURM's words about jobs, as its commands print them."""

from __future__ import annotations

from pathlib import Path

import pytest

from qhk.sweep.scheduler import ask_slurm, explain_state
from qhk.tracking.status import RunState


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("CANCELLED by 1000", "0:15", (RunState.CANCELLED, "cancelled (scancel)")),
        ("TIMEOUT", "0:0", (RunState.FAILED, "out of time: the job reached its limit")),
        ("OUT_OF_MEMORY", "0:125", (RunState.FAILED, "out of memory: SLURM ended the job")),
        ("NODE_FAIL", "0:0", (RunState.FAILED, "node lost")),
        ("PREEMPTED", "0:0", (RunState.PREEMPTED, "preempted by another job")),
        ("FAILED", "137:0", (RunState.FAILED, "the job failed (ended by signal 9)")),
        ("FAILED", "0:9", (RunState.FAILED, "the job failed (ended by signal 9)")),
        ("FAILED", "2:0", (RunState.FAILED, "the job failed (exit code 2)")),
        ("COMPLETED", "0:0", (RunState.FAILED, "the job ended without a word (exit code 0)")),
        ("RUNNING", "0:0", None),
    ],
)
def test_what_sacct_says(state: str, code: str, expected: tuple[RunState, str] | None) -> None:
    ending = explain_state(state, code)
    assert (None if ending is None else (ending.state, ending.cause)) == expected


def _command(folder: Path, name: str, output: str, *, code: int = 0) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\nprintf '{output}'\nexit {code}\n")
    path.chmod(0o755)


def test_the_queue_beats_the_accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _command(tmp_path, "squeue", "7_0|PENDING|Resources\\n7_1|RUNNING|None\\n9|RUNNING|None\\n")
    _command(tmp_path, "sacct", "7_0|PREEMPTED|0:0\\n7_2|TIMEOUT|0:0\\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = ask_slurm(["7_0", "7_1", "7_2", "7_3", ""])
    assert {job: (ending.state, ending.cause) for job, ending in found.items()} == {
        "7_0": (RunState.PENDING, "in the queue (Resources)"),
        "7_1": (RunState.RUNNING, ""),
        "7_2": (RunState.FAILED, "out of time: the job reached its limit"),
    }


def test_no_slurm_or_a_broken_one_knows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_slurm(["7_0"]) == {}
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    _command(tmp_path, "squeue", "", code=1)
    _command(tmp_path, "sacct", "", code=1)
    assert ask_slurm(["7_0"]) == {}
