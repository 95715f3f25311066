"""The states of SLURM jobs, and why they ended, as squeue and sacct report them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qhk.tracking.status import JobState, RunState

TIMEOUT_S = 30.0
"""How long a command may take; SLURM's own give up after 18 s without a controller."""

RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING")

OUT_OF_TIME = "out of time"
"""How the causes of time-outs begin."""

OUT_OF_MEMORY = JobState(state=RunState.FAILED, cause="out of memory: SLURM ended the job")

ENDINGS = {
    "CANCELLED": JobState(state=RunState.CANCELLED, cause="by scancel"),
    "TIMEOUT": JobState(state=RunState.FAILED, cause=f"{OUT_OF_TIME}: the job reached its limit"),
    "DEADLINE": JobState(state=RunState.FAILED, cause=f"{OUT_OF_TIME}: the job reached its deadline"),
    "OUT_OF_MEMORY": OUT_OF_MEMORY,
    "NODE_FAIL": JobState(state=RunState.FAILED, cause="node lost"),
    "BOOT_FAIL": JobState(state=RunState.FAILED, cause="node lost: it did not boot"),
    "PREEMPTED": JobState(state=RunState.PREEMPTED, cause="by another job"),
    "COMPLETED": JobState(state=RunState.FAILED, cause="the job ended without a word (exit code 0)"),
}
"""State and cause by SLURM's state of a job, for a run that did not record its own end."""


@dataclass(frozen=True, kw_only=True)
class SlurmAnswer:
    """The states of the jobs that SLURM knows, by their ids ("12" or "12_3").

    ``unreachable`` says why SLURM could not be asked, "" where it answered: only then does a job's absence
    mean that SLURM no longer knows it.
    """

    endings: Mapping[str, JobState]
    unreachable: str


def ask_slurm(jobs: Mapping[str, str]) -> SlurmAnswer:
    """Return the states of jobs, given as id -> name, "" where any name will do.

    A job of another name is not ours: ids begin again where a controller has lost its state. The controller
    is asked once about all jobs, then the accounts about those that it does not know. The controller comes
    first since a requeued job has ended in the accounts, but is ``pending`` or ``running`` in the queue.
    """
    wanted = {job: name for job, name in jobs.items() if job}
    if not wanted:
        return SlurmAnswer(endings={}, unreachable="")
    if shutil.which("squeue") is None:
        return SlurmAnswer(endings={}, unreachable="SLURM's commands are not on this machine")
    known = _from_controller(wanted)
    if known is None:
        return SlurmAnswer(endings={}, unreachable="SLURM's controller does not answer")
    unknown = {job: name for job, name in wanted.items() if job not in known}
    return SlurmAnswer(endings=_from_accounts(unknown) | known, unreachable="")


def cluster_name() -> str:
    """Return the name of the cluster that this machine's SLURM commands ask; "" where it is unknown."""
    found = re.search(
        r"^ClusterName\s*=\s*(\S+)", _output(["scontrol", "show", "config"]) or "", re.MULTILINE
    )
    return "" if found is None else found[1]


def _from_controller(wanted: Mapping[str, str]) -> dict[str, JobState] | None:
    """Return the jobs that wait, run, or have ended lately; None where the controller does not answer."""
    fields = ",".join(f"{field}:|" for field in ("JobArrayID", "State", "exit_code", "Reason", "Name"))
    words = ["squeue", "-h", "-a", "-r", "-t", "all", "-j", _arrays(wanted), "-O", fields]
    output = _output(words, unless="Invalid job id")
    if output is None:
        return None
    found = {}
    for line in output.splitlines():
        job, state, status, reason, name = line.strip().split("|", 4)
        if job in wanted and _same_name(wanted[job], name):
            found[job] = _explain_record(state, status, reason)
    return found


def _explain_record(state: str, status: str, reason: str) -> JobState:
    """Return a job's state by its line in squeue; ``status`` is that of wait(2)."""
    if state in RUNNING:
        return JobState(state=RunState.RUNNING, cause="")
    number = int(status) if status.isdigit() else 0
    ending = explain_state(state, f"{number >> 8}:{number & 127}")
    return ending or JobState(state=RunState.PENDING, cause=f"in the queue ({reason})")


def _from_accounts(wanted: Mapping[str, str]) -> dict[str, JobState]:
    if not wanted or shutil.which("sacct") is None:
        return {}
    words = ["sacct", "-X", "-n", "-P", "-o", "JobID,State,ExitCode,JobName", "-j", ",".join(sorted(wanted))]
    found = {}
    for line in (_output(words) or "").splitlines():
        job, state, code, name = line.split("|", 3)
        ending = explain_state(state, code)
        if ending is not None and job in wanted and _same_name(wanted[job], name):
            found[job] = ending
    return found


def _arrays(jobs: Iterable[str]) -> str:
    """Return the ids without the number in their array, which squeue does not always accept."""
    return ",".join(sorted({job.partition("_")[0] for job in jobs}))


def _same_name(one: str, other: str) -> bool:
    """Return whether names agree in letters and digits; submitit and SLURM replace other characters."""
    return not one or re.sub(r"[\W_]", "", one) == re.sub(r"[\W_]", "", other)


def explain_state(state: str, code: str) -> JobState | None:
    """Return how a job ended by sacct's State ("CANCELLED by 0") and ExitCode ("137:0"); None before."""
    word = state.split()[0] if state else ""
    if word == "FAILED":
        return JobState(state=RunState.FAILED, cause=f"the job failed ({_explain_code(code)})")
    return ENDINGS.get(word)


def _explain_code(code: str) -> str:
    found = re.fullmatch(r"(\d+):(\d+)", code)
    if found is None:
        return f"exit code {code}"
    exit_code, number = int(found[1]), int(found[2])
    if number or exit_code > 128:
        return f"ended by signal {number or exit_code - 128}"
    return f"exit code {exit_code}"


def _output(words: list[str], *, unless: str = "") -> str | None:
    """Return a command's output; None where it fails, takes too long, or is not on this machine.

    A failure whose message holds ``unless`` is an answer like any other.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    answered = done.returncode == 0 or bool(unless) and unless in done.stderr
    return done.stdout if answered else None
