"""A SLURM job succeeds where its run says that it is done, not where a process has ended with code 0."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from qhk.tracking.status import STATUS_FILE, RunState, current_status, read_status, write_status

slurm_job = pytest.importorskip("qhk.sweep.slurm_job", reason="needs the extra slurm")


@pytest.fixture(autouse=True)
def _one_task(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    place = SimpleNamespace(rank=0, local_rank=0, world_size=1, master_addr="localhost", master_port=1)
    monkeypatch.setattr(slurm_job, "TorchDistributedEnvironment", lambda: place)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.DONE])
def test_code_0_alone_is_no_success(tmp_path: Path, state: RunState) -> None:
    write_status(tmp_path / STATUS_FILE, current_status(state=state, step=1, cause=""))
    job = slurm_job.CellJob(
        command=[sys.executable, "-c", "pass"],
        environment={},
        directory=tmp_path,
        log=tmp_path / "console.log",
        cwd=tmp_path,
        patience_s=1.0,
    )
    if state is RunState.DONE:
        job()
        return
    with pytest.raises(slurm_job.CellEndedError, match="exit code 0"):
        job()
    status = read_status(tmp_path / STATUS_FILE)
    assert status is not None and (status.state, status.cause) == (RunState.FAILED, "exit code 0")
