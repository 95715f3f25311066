"""Copies of runs' code: one for each code, whole or not there, and never taken for another's."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from qhk.errors import UserError
from qhk.files import file_digest
from qhk.tracking.code import PACKAGE, code_digest, code_files, files_digest
from qhk.tracking.code_store import LONG_AGO, read_code, store_files, stored_code

FILES = {"qhk/b.py": b"x = 1\n", "qhk/sub/a.yaml": b"k: \xff\n", "kit/__init__.py": b"", "kit/own.py": b"y\n"}


def test_a_copy_comes_back_and_is_kept_once(tmp_path: Path) -> None:
    digest = store_files(tmp_path, FILES)
    path = stored_code(tmp_path, digest)
    assert path == tmp_path / "code" / f"{digest}.zip"
    assert read_code(path) == FILES
    before = path.stat().st_mtime_ns, file_digest(path)
    assert store_files(tmp_path, dict(reversed(FILES.items()))) == digest
    assert (path.stat().st_mtime_ns, file_digest(path)) == before
    assert store_files(tmp_path, {**FILES, "kit/own.py": b"z\n"}) != digest
    assert len(list(path.parent.iterdir())) == 2
    with zipfile.ZipFile(path) as copy:  # two machines write the same bytes
        assert {file.date_time for file in copy.infolist()} == {LONG_AGO}


def test_a_copy_has_the_digest_of_the_code_it_is_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    files = code_files({"qhk": tmp_path / "qhk"}, ["kit.own"])
    assert files == FILES
    assert store_files(tmp_path, files) == code_digest({"qhk": tmp_path / "qhk"}, ["kit.own"])


def test_the_digest_stays_what_old_runs_have() -> None:
    """Trees by place, then modules by their dotted names."""
    labelled = [("qhk/b.py", "qhk/b.py"), ("qhk/sub/a.yaml", "qhk/sub/a.yaml")]
    labelled += [("module kit", "kit/__init__.py"), ("module kit.own", "kit/own.py")]
    hashed = b"".join(f"{label}\0{len(FILES[at])}\0".encode() + FILES[at] for label, at in labelled)
    assert files_digest(FILES, ["qhk"]) == hashlib.sha256(hashed).hexdigest()


@pytest.mark.parametrize("harm", ["cut", "another", "text", "missing", "large"])
def test_a_harmed_copy_is_refused_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    path = stored_code(tmp_path, store_files(tmp_path, FILES))
    whole = path.read_bytes()
    if harm == "missing":
        path.unlink()
    elif harm == "large":
        monkeypatch.setattr("qhk.tracking.code_store.MAX_BYTES", 5)
    elif harm == "another":
        other = store_files(tmp_path, {"qhk/b.py": b"x = 2\n"})
        path.write_bytes(stored_code(tmp_path, other).read_bytes())
    else:
        path.write_bytes(whole[: len(whole) // 2] if harm == "cut" else b"no zip")
    with pytest.raises(UserError, match=path.name):
        read_code(path)
    store_files(tmp_path, FILES)
    assert path.read_bytes() == whole


def test_every_flipped_byte_of_the_files_is_seen(tmp_path: Path) -> None:
    path = stored_code(tmp_path, store_files(tmp_path, {"qhk/b.py": b"x = 1\n"}))
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:  # times and the like may differ: the files may not
            assert read_code(path) == {"qhk/b.py": b"x = 1\n"}
        except UserError:
            continue


def test_this_package_is_far_below_the_limit() -> None:
    assert sum(map(len, code_files({PACKAGE.name: PACKAGE}).values())) < 8_000_000
