"""One real SLURM for all tests of this folder, started on first use and stopped at the end."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, ClusterError, install, some_port
from tests.sweep.conftest import make_sweep, settings

__all__ = ["make_sweep", "settings"]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of nodes with four and two processors. Skips, and says so loudly, where none can run."""
    folder = Path(tempfile.mkdtemp(prefix="qs", dir="/tmp"))
    made = Cluster(folder=folder, cpus=4, port=some_port())
    try:
        install()
        made.start()
    except ClusterError as error:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
        warnings.warn(f"SLURM TESTS DID NOT RUN: {error}", stacklevel=1)
        pytest.skip(f"SLURM TESTS DID NOT RUN: {error}")
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def slurm(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, as this process and those that it starts see it."""
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster.environment[name])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return cluster
