"""What SLURM's commands say about jobs: where they stand, and why they ended."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable

from qhk.tracking.status import Ending, RunState

TIMEOUT_S = 60

QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SUSPENDED")
RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING")

ENDINGS = {
    "CANCELLED": Ending(state=RunState.CANCELLED, cause="cancelled (scancel)"),
    "TIMEOUT": Ending(state=RunState.FAILED, cause="out of time: the job reached its limit"),
    "DEADLINE": Ending(state=RunState.FAILED, cause="out of time: the job reached its deadline"),
    "OUT_OF_MEMORY": Ending(state=RunState.FAILED, cause="out of memory: SLURM ended the job"),
    "NODE_FAIL": Ending(state=RunState.FAILED, cause="node lost"),
    "BOOT_FAIL": Ending(state=RunState.FAILED, cause="node lost: it did not boot"),
    "PREEMPTED": Ending(state=RunState.PREEMPTED, cause="preempted by another job"),
    "COMPLETED": Ending(state=RunState.FAILED, cause="the job ended without a word (exit code 0)"),
}
"""SLURM's last word about a job, for a run that did not say itself how it ended."""


def ask_slurm(jobs: Iterable[str]) -> dict[str, Ending]:
    """Job id ("12" or "12_3") -> how it stands; without those SLURM does not know, and empty without SLURM.

    The queue comes first: a requeued job has ended once in the accounts and waits in the queue. There it is
    ``preempted`` if it waits and ``running`` if it runs.
    """
    wanted = sorted(set(filter(None, jobs)))
    if not wanted or shutil.which("squeue") is None:
        return {}
    known = _from_accounts(wanted) | _from_queue()
    lately = {job: _from_controller(job) for job in wanted if job not in known}
    known |= {job: ending for job, ending in lately.items() if ending is not None}
    return {job: known[job] for job in wanted if job in known}


def _from_queue() -> dict[str, Ending]:
    found = {}
    for line in _output(["squeue", "--me", "-h", "-r", "-o", "%i|%T|%r"]).splitlines():
        job, state, reason = line.split("|", 2)
        if state in QUEUED:
            found[job] = Ending(state=RunState.PENDING, cause=f"in the queue ({reason})")
        elif state in RUNNING:
            found[job] = Ending(state=RunState.RUNNING, cause="")
    return found


def _from_accounts(jobs: list[str]) -> dict[str, Ending]:
    if shutil.which("sacct") is None:
        return {}
    words = ["sacct", "-X", "-n", "-P", "-o", "JobID,State,ExitCode", "-j", ",".join(jobs)]
    found = {}
    for line in _output(words).splitlines():
        job, state, code = line.split("|", 2)
        ending = explain_state(state, code)
        if ending is not None:
            found[job] = ending
    return found


def _from_controller(job: str) -> Ending | None:
    """The controller's own word about a job that has just ended, which the accounts do not have yet."""
    found = re.search(r"JobState=(\S+).*?ExitCode=(\S+)", _output(["scontrol", "-o", "show", "job", job]))
    return None if found is None else explain_state(found[1], found[2])


def explain_state(state: str, code: str) -> Ending | None:
    """How a job ended by sacct's State ("CANCELLED by 0") and ExitCode ("137:0"); None while it has not."""
    word = state.split()[0] if state else ""
    if word == "FAILED":
        return Ending(state=RunState.FAILED, cause=f"the job failed ({_explain_code(code)})")
    return ENDINGS.get(word)


def _explain_code(code: str) -> str:
    found = re.fullmatch(r"(\d+):(\d+)", code)
    if found is None:
        return f"exit code {code}"
    exit_code, number = int(found[1]), int(found[2])
    if number or exit_code > 128:
        return f"ended by signal {number or exit_code - 128}"
    return f"exit code {exit_code}"


def _output(words: list[str]) -> str:
    """A command's output; empty where it fails, as for a cluster that does not answer."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.returncode == 0 else ""
