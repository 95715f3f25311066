"""What runs would miss is told before they start: refused here, told where a cluster may see other disks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qhk.config.catalogue import Catalogue
from qhk.sweep import launch
from qhk.sweep.launch import missing_in, require_files
from qhk.sweep.plan import plan_multirun
from qhk.tracking.status import RunState
from tests.conftest import Qhk

WORDS = ("data=koniq", "paths.datasets=/nowhere", "seed=0,1")
LINE = "dataset.koniq.root: no folder /nowhere/koniq10k"


def test_a_sweep_on_this_machine_without_its_data_is_refused_before_anything_is_written(
    qhk: Qhk, tmp_path: Path
) -> None:
    code, out, err = qhk("train", "-m", *WORDS)
    assert (code, out) == (2, "") and err.startswith(f"qhk: {LINE}")
    assert err.count("\n") == 1
    assert "; put the set there, or set dataset.koniq.root or paths.datasets; expected layout: " in err
    assert not list(tmp_path.rglob("sweep.json")) and not list(tmp_path.rglob("code"))


def test_a_dry_run_fails_and_says_why_once_for_all_runs(qhk: Qhk) -> None:
    code, _, err = qhk("train", "-m", *WORDS, "dry_run=true")
    assert code == 2 and err.count(f"error: {LINE}") == 1
    code, _, err = qhk("train", "-m", *WORDS, "dry_run=true", "hydra/launcher=slurm")
    assert code == 0 and err.count(f"warning: {LINE}") == 1


def test_jobs_of_a_cluster_may_find_what_this_machine_lacks(
    catalogue: Catalogue, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_multirun([*WORDS, "hydra/launcher=slurm"], catalogue)
    checked = []
    missing_files = launch.missing_files
    monkeypatch.setattr(launch, "missing_files", lambda one: checked.append(one) or missing_files(one))
    require_files(plan.runs, plan.launcher)
    assert f"note: not on this machine, so jobs must find it: {LINE}" in capsys.readouterr().err
    assert len(checked) == 1, "runs that read the same are checked once"


def test_a_run_that_is_done_needs_no_data(catalogue: Catalogue) -> None:
    runs = plan_multirun(list(WORDS), catalogue).runs
    assert missing_in([replace(run, state=RunState.DONE) for run in runs]) == []
