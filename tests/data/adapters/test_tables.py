from __future__ import annotations

from pathlib import Path

import openpyxl
import pytest

from qhk.data.tables import number, read_csv, read_lines, read_workbook


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_csv_quirks(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.csv", b'\xef\xbb\xbf"name", mos ,prompt\r\n"a, b.jpg",1.5,"x, y"\r\n\r\n c.jpg ,2,\r\n'
    )
    assert read_csv(path, ["name", "mos"]) == [
        (2, {"name": "a, b.jpg", "mos": "1.5", "prompt": "x, y"}),
        (4, {"name": "c.jpg", "mos": "2", "prompt": ""}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,score\na,1\n", r"no column 'mos'; columns present: name, score"),
        (b"", "columns present: none"),
        (b"name,mos\na\n", "line 2: 1 cells, the header has 2"),
        (b"name,mos\n\xff\xfe,1\n", "not UTF-8 text"),
    ],
)
def test_csv_refusals(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_csv(written(tmp_path / "a.csv", content), ["name", "mos"])


def workbook(path: Path, rows: list[list[object]]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.worksheets[0].append(row)
    book.save(path)
    return path


def test_workbook_finds_its_header_and_keeps_whole_numbers_whole(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        [],
        [None, "notes"],
        [None, "image", "dmos"],
        [None, 1600, 0.25],
        [],
        [None, "elk", 1.0],
    ]
    path = workbook(tmp_path / "a.xlsx", rows)
    found = read_workbook(path, ["image", "dmos"])
    assert [(line, cells["image"], cells["dmos"]) for line, cells in found] == [
        (4, "1600", "0.25"),
        (6, "elk", "1"),
    ]


def test_workbook_refusals(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", [["image", "score"]])
    with pytest.raises(
        ValueError, match="no header with columns image, dmos; the first cells are image, score"
    ):
        read_workbook(path, ["image", "dmos"])
    with pytest.raises(ValueError, match="b.xlsx: not a readable workbook"):
        read_workbook(written(tmp_path / "b.xlsx", b"text"), ["image"])


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "", "3,5", "bad"])
def test_numbers_must_be_finite(text: str) -> None:
    with pytest.raises(ValueError, match="labels.csv line 3: mos is"):
        number(text, "labels.csv line 3", "mos")


def test_lines(tmp_path: Path) -> None:
    assert read_lines(written(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\n\r\n two \n")) == [
        (1, "one"),
        (3, "two"),
    ]
