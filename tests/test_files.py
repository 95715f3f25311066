"""Files written whole or not at all, and line records that outlive a killed writer."""

from __future__ import annotations

from pathlib import Path

import pytest

from qhk import files


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
