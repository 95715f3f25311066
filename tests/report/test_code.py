"""What differs between the code of runs, from whichever whole copy of it is left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qhk.report import code as module
from qhk.report.code import code_differences
from qhk.report.runs import read_runs
from qhk.sweep.manifest import code_folder, sweep_folder
from qhk.tracking.code import PACKAGE, code_files, files_digest
from qhk.tracking.code_store import store_files, stored_code
from tests.report.builders import write_run

FULL = {"qhk/loss.py": b"beta = 1\n", "my_rewards.py": b"same\n"}
PLAIN = {"qhk/loss.py": b"beta = 2\n", "my_rewards.py": b"same\n"}


def provenance(run: Path, code: str) -> None:
    """A file of a version that had no ``commit``."""
    content: dict[str, Any] = {"code_digest": code, "data_fingerprints": {}, "packages": {}, "python": "3"}
    content |= {"hardware": {}, "accelerators": [], "threads": 1}
    (run / "provenance.json").write_text(json.dumps(content))


def differences(outputs: Path, *codes: str) -> list[dict[str, Any]]:
    """Return the differences of runs of ``codes``, in which the first one has two."""
    for seed, code in enumerate([codes[0], *codes]):
        run = outputs / "study" / "m" / f"seed{seed}"
        if not run.exists():
            write_run(outputs, "m", seed, noise=0.5, config={}, state="failed")
        provenance(run, code)
    return code_differences(read_runs(outputs / "study"))


def freeze(folder: Path, files: Mapping[str, bytes]) -> None:
    for place, content in files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)


def test_plain_runs_and_those_of_sweeps(tmp_path: Path) -> None:
    """The store first, then a sweep's copy; each only while it is what its digest says."""
    first = store_files(tmp_path, FULL)
    second = files_digest(PLAIN, [PACKAGE.name])
    kept = code_folder(sweep_folder(tmp_path, "s"), second)
    freeze(kept, {**PLAIN, "qhk/page.js": b"not of the digest"})
    one, two = differences(tmp_path, first, second)
    assert (one["code"], one["diff"], one["gone"], len(one["runs"])) == (first[:12], "", [], 2)
    assert (two["code"], two["gone"], len(two["runs"])) == (second[:12], [], 1)
    assert "-beta = 1\n+beta = 2" in two["diff"] and "my_rewards" not in two["diff"]

    (kept / "qhk" / "loss.py").write_text("beta = 3\n")
    assert [(row["diff"], row["gone"]) for row in differences(tmp_path, first, second)] == [
        ("", []), ("", [second[:12]]),
    ]  # fmt: skip
    assert store_files(tmp_path, PLAIN) == second
    assert differences(tmp_path, first, second) == [one, two]
    stored_code(tmp_path, first).write_bytes(b"damaged")
    stored_code(tmp_path, second).unlink()
    assert [row["gone"] for row in differences(tmp_path, first, second)] == [
        [first[:12]], [first[:12], second[:12]],
    ]  # fmt: skip
    assert [row["gone"] for row in differences(tmp_path, first, first)] == [[]]  # nothing to be held against


def test_the_package_itself_is_a_copy_of_its_code(tmp_path: Path, monkeypatch: Any) -> None:
    package = tmp_path / "source" / PACKAGE.name
    freeze(package.parent, {"qhk/loss.py": b"beta = 2\n", "beside.py": b"no part of it\n"})
    monkeypatch.setattr(module, "PACKAGE", package)
    own = files_digest(code_files({package.name: package}), [package.name])
    _, row = differences(tmp_path, store_files(tmp_path, FULL), own)
    assert "+beta = 2" in row["diff"] and "-same" in row["diff"] and "no part" not in row["diff"]
