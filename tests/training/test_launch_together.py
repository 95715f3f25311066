"""A run of two processes ends as one, whichever of them meets the cause."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qhk.tracking.status import RunState, read_status
from tests.training.ending_reward import PER_STEP, ending_words
from tests.training.kill import environment


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "state", "cause"),
    [
        ("SIGTERM", RunState.PREEMPTED, "stopped by SIGTERM; checkpointed at step 2 of 4"),
        ("raise", RunState.FAILED, "process 1: reward.terms.mine: raised KeyError: 'length' for example "),
        ("exit", RunState.FAILED, "process 1: reward.terms.mine: raised SystemExit: 0 for example "),
    ],
)
def test_the_second_process_ends_the_run(tmp_path: Path, how: str, state: RunState, cause: str) -> None:
    words = ending_words(how, at=PER_STEP // 2 + 2, cache=tmp_path / "cache")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command = [*torchrun, "-m", "qhk.cli.main", "train", *words, "distributed=ddp"]
    ended = subprocess.run(
        command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode != 0
    directory = tmp_path / "outputs" / "default" / "run" / "seed0"
    status = read_status(directory / "status.json")
    assert status is not None and (status.state, status.step) == (state, 2 if how == "SIGTERM" else 1)
    assert status.cause.startswith(cause)
    if state is RunState.FAILED:
        assert "ending_reward.py" in (directory / "run.log").read_text()
