"""Files written whole or not at all, and line records that outlive a killed writer."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qhk import files
from qhk.errors import UserError


def test_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "status.json"
    files.write_atomically(path, "a longer first text")
    files.write_atomically(path, "é")
    assert path.read_text(encoding="utf-8") == "é"
    assert [entry.name for entry in path.parent.iterdir()] == ["status.json"]


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    files.write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_torn_last_line_is_left_out_and_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}')
    assert files.read_json_lines(path) == [{"a": 1}]
    files.drop_torn_line(path)
    files.append_json_lines(path, [{"a": 3}, {"a": 4}])
    assert files.read_json_lines(path) == [{"a": 1}, {"a": 3}, {"a": 4}]


def test_file_of_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a"')
    files.drop_torn_line(path)
    assert path.read_bytes() == b""
    assert files.read_json_lines(path) == []


@pytest.mark.parametrize("bad", ["{", "[1]", "3"])
def test_broken_line_in_the_middle_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": 1}}\n{bad}\n{{"a": 2}}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl line 2 "):
        files.read_json_lines(path)


def test_missing_file_has_no_rows(tmp_path: Path) -> None:
    assert files.read_json_lines(tmp_path / "none.jsonl") == []
    files.drop_torn_line(tmp_path / "none.jsonl")


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        files.append_json_lines(tmp_path / "rows.jsonl", [{"a": float("nan")}])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, r"cannot be read \(No such file or directory\)"),
        (b"\xff\xfe", "not text in UTF-8"),
        (b"{", "not (JSON|YAML)"),
        (b"[" * 100_000, "(brackets are nested too deeply|not YAML)"),
        (b"- " * 100_000, "not (JSON|YAML)"),
        (b"a: &a [*a, *b]", "not (JSON|YAML)"),
    ],
)
def test_a_file_of_another_kind_is_one_line(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "foreign"
    if content is not None:
        path.write_bytes(content)
    for read in (files.read_json, files.read_yaml):
        with pytest.raises(UserError, match=rf"foreign( line 1)?: (is )?{reason}") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: cannot be read"):
        files.read_text(tmp_path / "folder")
    with pytest.raises(UserError, match="folder: cannot be read"):
        files.read_json_lines(tmp_path / "folder")


def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(UserError, match=r"list\.yaml: holds list where a mapping of keys is due"):
        files.read_yaml(tmp_path / "list.yaml")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A record with every kind of value."""

    number: float
    names: tuple[str, ...]
    maybe: int | None = None


def test_a_record_has_the_declared_types() -> None:
    assert files.typed(Sample, {"number": 1, "names": ["a"]}) == Sample(number=1.0, names=("a",))
    for row, reason in (
        ({"number": "1", "names": []}, "number: input should be a valid number, got 1"),
        ({"number": 1, "names": [2]}, r"names\.0: input should be a valid string, got 2"),
        ({"number": 1, "names": [], "more": 1}, "unknown key more"),
        ({"number": 1}, "names: field required"),
        ([1], "the whole: input should be "),
    ):
        with pytest.raises(ValueError, match=reason):
            files.typed(Sample, row)


@pytest.mark.parametrize("fault", [KeyError("x"), TypeError("x"), OverflowError("x"), RecursionError("x")])
def test_a_foreign_record_is_one_line(fault: Exception) -> None:
    expected = pytest.raises(UserError, match=r"^a/b is not a record \('?x'?\): remove it$")
    with expected, files.reading(Path("a/b"), "a record", "remove it"):
        raise fault


@pytest.mark.parametrize(
    "row", ['{"step": "1"}', '{"step": true}', '{"step": 1.5}', '{"other": 1}', "[" * 100_000]
)
def test_rows_of_other_types_are_named(tmp_path: Path, row: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"step": 1}}\n{row}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl line 2 (has|is not) "):
        files.read_json_lines(path, step=int)


def test_no_row_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    files.append_json_lines(path, [{"a": number} for number in range(4)])
    files.keep_rows(path, lambda row: row["a"] < 3)
    files.keep_rows(path, lambda row: row["a"] < 3)
    files.keep_rows(path, lambda row: row["a"] == 0)
    assert files.read_json_lines(path) == [{"a": 0}]
    assert files.read_json_lines(tmp_path / "rows.dropped.jsonl") == [{"a": 3}, {"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "write", [files.write_atomically, lambda path, text: files.append_json_lines(path, [])]
)
@pytest.mark.parametrize(
    ("place", "reason"), [("file/x", "File exists"), ("n" * 300, "File name too long"), (".", "")]
)
def test_what_cannot_be_written_is_one_line(tmp_path: Path, write: Any, place: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(files.FileError, match=rf"cannot be written \({reason}") as caught:
        write(tmp_path / place, "text")
    assert isinstance(caught.value, UserError) and isinstance(caught.value, OSError) and caught.value.errno
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limits on the size of files")
def test_a_limit_on_sizes_is_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    path, before = tmp_path / "file", resource.getrlimit(resource.RLIMIT_FSIZE)
    files.write_atomically(path, "old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written \(File too large\): "):
            files.write_atomically(path, "x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_places_that_cannot_be_are_known_without_trying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    assert files.unwritable(tmp_path / "a" / "b", "c") == ""
    assert files.unwritable(tmp_path / "file" / "b").endswith("file is no folder")
    assert "has 300 bytes, the most is " in files.unwritable(tmp_path / ("n" * 300) / "b")
    assert "has 300 bytes, the most is " in files.unwritable(tmp_path, "n" * 300)
    assert files.unwritable(tmp_path / "/".join(["n" * 100] * 50)) == "the whole path is too long"
    (tmp_path / "loop").symlink_to("loop")
    assert files.unwritable(tmp_path / "loop" / "b") != ""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert files.unwritable(tmp_path / "a").endswith(" is read-only")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["file", "loop"]
