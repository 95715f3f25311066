"""A sweep on disk says again what was put in, and holds on to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qhk.settings import run_id
from qhk.sweep.manifest import (
    event,
    find_sweep,
    freeze_code,
    last_events,
    merge_runs,
    read_manifest,
    record_events,
)
from qhk.tracking.provenance import code_digest
from tests.sweep.conftest import Build


def test_manifest_comes_back(build: Build) -> None:
    manifest = build("a", "b", seeds=(0, 1))
    assert read_manifest(manifest.folder) == manifest
    assert (manifest.cells, manifest.seeds, manifest.name) == (["a", "b"], [0, 1], "s")


def test_frozen_settings_are_the_same_run_at_a_fixed_place(build: Build) -> None:
    manifest = build("a")
    run = manifest.runs[0]
    settings = manifest.settings(run)
    assert run_id(settings) == run.run_id
    assert Path(settings.paths.cache).is_absolute()
    assert (settings.study, settings.name) == run.directory.parts[-3:-1]


def test_a_run_that_would_compute_something_else_is_refused(build: Build) -> None:
    runs = build("a", "b").runs
    other = replace(runs[0], run_id="0" * 12)
    with pytest.raises(ValueError, match="a/seed0 is run id .* choose another study"):
        merge_runs(runs, [other])
    more = replace(runs[0], seed=1)
    assert [run.label for run in merge_runs(runs, [more])] == ["a/seed0", "b/seed0", "a/seed1"]


def test_code_is_copied_once_and_keeps_its_digest(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "__pycache__").mkdir(parents=True)
    (package / "module.py").write_text("x = 1\n")
    digest = freeze_code(tmp_path / "sweep", package)
    copy = tmp_path / "sweep" / "code" / digest[:16] / "package"
    (package / "module.py").write_text("x = 2\n")
    assert code_digest({"package": copy}) == digest
    assert not (copy / "__pycache__").exists()
    assert freeze_code(tmp_path / "sweep", package) != digest
    assert (copy / "module.py").read_text() == "x = 1\n"


def test_the_last_event_of_a_run_counts(build: Build) -> None:
    manifest = build("a")
    for kind, job in (("submitted", "1_0"), ("cancelled", "1_0"), ("submitted", "2_0")):
        record_events(manifest, [event(kind, "a/seed0", job=job, pid=1, host="h")])  # type: ignore[arg-type]
    assert {label: (last.kind, last.job) for label, last in last_events(manifest).items()} == {
        "a/seed0": ("submitted", "2_0")
    }


def test_an_unknown_sweep_names_those_there_are(build: Build, tmp_path: Path) -> None:
    folder = build("a").folder
    assert find_sweep(tmp_path / "outputs", "s") == folder == find_sweep(Path("x"), str(folder))
    with pytest.raises(ValueError, match="t: no such sweep; known: s"):
        find_sweep(tmp_path / "outputs", "t")
