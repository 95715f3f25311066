"""SLURM's words about jobs, as its commands print them; the lines of squeue and sacct were recorded."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from qhk.sweep import scheduler
from qhk.sweep.scheduler import ask_slurm, cluster_name, explain_state
from qhk.tracking.status import RunState


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("CANCELLED by 1000", "0:15", (RunState.CANCELLED, "by scancel")),
        ("TIMEOUT", "0:0", (RunState.FAILED, "out of time: the job reached its limit")),
        ("OUT_OF_MEMORY", "0:125", (RunState.FAILED, "out of memory: SLURM ended the job")),
        ("NODE_FAIL", "0:0", (RunState.FAILED, "node lost")),
        ("PREEMPTED", "0:0", (RunState.PREEMPTED, "by another job")),
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


def _command(
    folder: Path, name: str, output: str, *, code: int = 0, error: str = "", first: str = ""
) -> None:
    """A command that prints, and appends its arguments to a file of its name."""
    path = folder / name
    path.write_text(
        f'#!/bin/sh\n{first}\necho "$@" >> {folder}/{name}.asked\n'
        f"printf '{output}'\nprintf '{error}' >&2\nexit {code}\n"
    )
    path.chmod(0o755)


def _asked(folder: Path, name: str) -> list[str]:
    path = folder / f"{name}.asked"
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands that are found lie."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(scheduler, "TIMEOUT_S", 5.0)
    return tmp_path


def _known(jobs: dict[str, str]) -> dict[str, tuple[RunState, str]]:
    answer = ask_slurm(jobs)
    assert answer.unreachable == ""
    return {job: (ending.state, ending.cause) for job, ending in answer.endings.items()}


def test_one_question_for_all_jobs_and_the_controller_beats_the_accounts(commands: Path) -> None:
    lines = [
        "7_0|PENDING|0|Resources|s|",
        "7_1|RUNNING|0|None|s|",
        "7_4|FAILED|768|NonZeroExitCode|s|",
        "7_5|FAILED|9|JobLaunchFailure|s|",
        "7_9|RUNNING|0|None|s|",
    ]
    _command(commands, "squeue", "\\n".join(lines) + "\\n")
    _command(commands, "sacct", "7_0|PREEMPTED|0:0|s\\n7_2|TIMEOUT|0:0|s\\n7_3|COMPLETED|0:0|s\\n")
    assert _known({"7_0": "s", "7_1": "s", "7_2": "s", "7_4": "s", "7_5": "", "8": "s", "": "s"}) == {
        "7_0": (RunState.PENDING, "in the queue (Resources)"),
        "7_1": (RunState.RUNNING, ""),
        "7_2": (RunState.FAILED, "out of time: the job reached its limit"),
        "7_4": (RunState.FAILED, "the job failed (exit code 3)"),
        "7_5": (RunState.FAILED, "the job failed (ended by signal 9)"),
    }
    (question,), (account,) = _asked(commands, "squeue"), _asked(commands, "sacct")
    assert "-j 7,8 " in question and account.endswith("-j 7_2,8")


def test_a_job_of_another_name_is_anothers(commands: Path) -> None:
    """As where a controller has lost its state and counts from one again."""
    _command(commands, "squeue", "7|RUNNING|0|None|other|\\n8|RUNNING|0|None|other|\\n")
    _command(commands, "sacct", "7|TIMEOUT|0:0|my sweep\\n")
    assert _known({"7": "my sweep", "8": ""}) == {
        "7": (RunState.FAILED, "out of time: the job reached its limit"),
        "8": (RunState.RUNNING, ""),
    }


def test_a_job_that_the_controller_does_not_know_is_an_answer(commands: Path) -> None:
    _command(commands, "squeue", "", code=1, error="slurm_load_jobs error: Invalid job id specified\\n")
    _command(commands, "sacct", "", code=1, error="Slurm accounting storage is disabled\\n")
    assert _known({"7": ""}) == {}


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_a_controller_that_does_not_answer_is_asked_once(
    commands: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(scheduler, "TIMEOUT_S", 1.0)
    error = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\\n"
    _command(commands, "squeue", "", code=1, error=error, first="exec sleep 60" if how == "hangs" else "")
    for name in ("sacct", "scontrol"):
        _command(commands, name, "7_0|TIMEOUT|0:0|s\\n")
    began = time.monotonic()
    answer = ask_slurm({f"7_{number}": "s" for number in range(40)})
    assert (dict(answer.endings), answer.unreachable) == ({}, "SLURM's controller does not answer")
    assert len(_asked(commands, "squeue")) == (how == "refuses")
    assert not _asked(commands, "sacct") and not _asked(commands, "scontrol")
    assert time.monotonic() - began < 30


def test_without_slurm_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_slurm({"7_0": ""}).unreachable == "SLURM's commands are not on this machine"
    assert ask_slurm({"": ""}).unreachable == ""


def test_the_cluster_has_a_name(commands: Path) -> None:
    assert cluster_name() == ""
    _command(commands, "scontrol", "Configuration data as of now\\nClusterName             = big\\nX = 1\\n")
    assert cluster_name() == "big"
