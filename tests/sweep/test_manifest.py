"""A sweep on disk says again what was put in, and holds on to it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qhk.settings.identity import run_id
from qhk.sweep.manifest import (
    code_folder,
    event,
    find_sweep,
    freeze_code,
    last_events,
    read_manifest,
    record_events,
)
from qhk.tracking.code import code_digest
from tests.sweep.builders import MakeSweep


def test_manifest_comes_back(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("a", "b", seeds=(0, 1))
    assert read_manifest(manifest.folder) == manifest
    assert (manifest.cells, manifest.seeds, manifest.name) == (["a", "b"], [0, 1], "s")


def test_frozen_settings_are_the_same_run_at_a_fixed_place(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("a")
    run = manifest.runs[0]
    settings = manifest.settings(run)
    assert run_id(settings) == run.run_id
    assert Path(settings.paths.cache).is_absolute()
    assert (settings.study, settings.name) == run.directory.parts[-3:-1]


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


def test_own_modules_are_copied_with_what_they_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = tmp_path / "live"
    live.mkdir()
    (live / "frozen_rewards.py").write_text("from frozen_helper import VALUE\n")
    (live / "frozen_helper.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(live)
    monkeypatch.setenv("PYTHONPATH", f"{live}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    folder = tmp_path / "sweep"
    alone, digest = freeze_code(folder, package), freeze_code(folder, package, ["frozen_rewards"])
    copy = code_folder(folder, digest)
    assert alone != digest
    assert not (code_folder(folder, alone) / "frozen_rewards.py").exists()
    (live / "frozen_helper.py").write_text("VALUE = 2\n")
    assert (copy / "frozen_helper.py").read_text() == "VALUE = 1\n"
    assert freeze_code(folder, package, ["frozen_rewards"]) != digest


def test_a_copy_that_lacks_what_a_module_needs_is_refused_before_anything_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wordy_rewards.py").write_text(
        "from pathlib import Path\nWORDS = Path(__file__).with_name('words.txt').read_text()\n"
    )
    (tmp_path / "words.txt").write_text("good")
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    with pytest.raises(ValueError, match=r"wordy_rewards cannot be imported .*words\.txt"):
        freeze_code(tmp_path / "sweep", package, ["wordy_rewards"])
    assert not list((tmp_path / "sweep/code").glob("[!.]*"))


def test_a_sweep_of_an_earlier_version_is_read(make_sweep: MakeSweep) -> None:
    """It had one code for all of its runs."""
    manifest = make_sweep("a")
    file = manifest.folder / "sweep.json"
    content = json.loads(file.read_text())
    for run in content["runs"]:
        del run["code"], run["modules"]
    file.write_text(json.dumps({**content, "code": "any"}))
    assert read_manifest(manifest.folder) == manifest


def test_the_last_event_of_a_run_counts(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("a")
    for kind, job in (("submitted", "1_0"), ("cancelled", "1_0"), ("submitted", "2_0")):
        record_events(manifest, [event(kind, "a/seed0", job=job)])  # type: ignore[arg-type]
    assert {label: (last.kind, last.job) for label, last in last_events(manifest).items()} == {
        "a/seed0": ("submitted", "2_0")
    }


def test_an_unknown_sweep_names_those_there_are(make_sweep: MakeSweep, tmp_path: Path) -> None:
    folder = make_sweep("a").folder
    assert find_sweep(tmp_path / "outputs", "s") == folder == find_sweep(Path("x"), str(folder))
    with pytest.raises(ValueError, match="t: no such sweep; known: s"):
        find_sweep(tmp_path / "outputs", "t")
