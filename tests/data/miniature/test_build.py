from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from qhk.data.miniature import MARKER, SETS, ensure_miniature_set, miniature_folder
from qhk.files import new_folder


def no_progress(done: int, total: int) -> None:
    pass


def digest(folder: Path) -> str:
    """Over names and bytes of all files but workbooks and .mat, which carry the time they were written."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in (".xlsx", ".mat"):
            total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def test_same_seed_same_files_in_another_process(tmp_path: Path) -> None:
    here = ensure_miniature_set("csiq", tmp_path / "a", seed=5, size=32, progress=no_progress)
    code = (
        "import sys; from pathlib import Path; import numpy; numpy.random.seed(9)\n"
        "from qhk.data.miniature import ensure_miniature_set\n"
        "ensure_miniature_set('csiq', Path(sys.argv[1]), seed=5, size=32, progress=lambda a, b: None)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "b")], check=True)
    there = miniature_folder(tmp_path / "b", seed=5, size=32) / "csiq"
    other = ensure_miniature_set("csiq", tmp_path / "a", seed=6, size=32, progress=no_progress)
    assert digest(here) == digest(there)
    assert digest(here) != digest(other)


def test_cached_set_is_not_built_again(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    first = ensure_miniature_set("csiq", tmp_path, seed=0, size=32, progress=lambda *call: calls.append(call))
    assert calls == [(done, 116) for done in range(1, 117)]
    again = ensure_miniature_set(
        "csiq", tmp_path, seed=0, size=32, progress=lambda *call: pytest.fail("built")
    )
    assert first == again


def test_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_miniature_set("csiq", tmp_path, seed=0, size=32, progress=stop)
    assert list(miniature_folder(tmp_path, seed=0, size=32).iterdir()) == []


def test_the_second_of_two_builders_keeps_the_first_result(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with new_folder(target) as work:
        (work / "late").touch()
        target.mkdir()
        (target / "kept").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "kept"]


def test_marker_says_synthetic(miniature_cache: Path) -> None:
    root = miniature_folder(miniature_cache, seed=0, size=64)
    assert sorted(path.name for path in root.iterdir()) == sorted(SETS)
    for name in SETS:
        note = json.loads((root / name / MARKER).read_text())
        assert note["note"].startswith("Synthetic.")
        assert (note["set"], note["seed"], note["size"]) == (name, 0, 64)


@pytest.mark.parametrize(
    ("size", "seed", "message"), [(60, 0, "multiple of 8"), (24, 0, "at least 32"), (64, -1, ">= 0")]
)
def test_refusals(tmp_path: Path, size: int, seed: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        miniature_folder(tmp_path, seed=seed, size=size)


def test_unknown_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no miniature set is called 'flive'"):
        ensure_miniature_set("flive", tmp_path, seed=0, size=64, progress=no_progress)
