from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from scipy.io import savemat

from qhk.data.tables import matlab_text, number, read_csv, read_lines, read_matlab, read_sheet, read_workbook


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
        (b"name,mos\n\xff\xfe,1\n", "is not text in UTF-8"),
        (b"name,mos\na,4\nb,3,5\n", "line 3: 3 cells, the header has 2: .*decimal point"),
        (b"mos,name,mos\n1,a,2\n", "2 columns are called 'mos': rename all but one"),
        (b'name,mos,note\na,1,"x\nb,2,y\nc,3,"z\nd,4,\n', "line 2: .*close or remove its quotes"),
        (b'name,mos,note\na,1,\nb,2,"y\nc,3,z"\n', "line 3: a cell goes on to line 4: close"),
        (b'name,mos,note\na,1,"x\rb,2,"\n', "line 2: a cell goes on to line 3: close"),
        (b'name,mos,note\na,1,"x\nb,2,y\n', "line 2: unexpected end of data: close"),
        (b"name,mos,note\na,1," + b"x" * 131073 + b"\n", r"line 2: field larger than field limit"),
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
    twice = workbook(tmp_path / "c.xlsx", [["image", "mos", "mos"], ["a", 1, 2]])
    with pytest.raises(ValueError, match="c.xlsx: 2 columns are called 'mos'"):
        read_workbook(twice, ["image", "mos"])


def changed(path: Path, member: str, change: Callable[[bytes], bytes]) -> Path:
    """The workbook with one part of it rewritten."""
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    assert change(parts[member]) != parts[member]
    with zipfile.ZipFile(path, "w") as book:
        for name, content in parts.items():
            book.writestr(name, change(content) if name == member else content)
    return path


@pytest.mark.parametrize("claimed", [b"A1", b"A1:B3"])
def test_what_a_workbook_says_of_its_size_is_not_believed(tmp_path: Path, claimed: bytes) -> None:
    rows: list[list[object]] = [["note", "image", "mos"], *([None, f"{n}.png", n] for n in range(9)), ["end"]]
    path = workbook(tmp_path / "a.xlsx", rows)
    changed(
        path, "xl/worksheets/sheet1.xml", lambda xml: re.sub(rb'ref="A1:C11"', b'ref="%s"' % claimed, xml)
    )
    found = read_workbook(path, ["image", "mos"])
    assert [(cells["image"], cells["mos"]) for _, cells in found[:-1]] == [
        (f"{n}.png", f"{n}") for n in range(9)
    ]
    assert found[-1] == (11, {"note": "end", "image": "", "mos": ""})
    assert len(read_sheet(path)) == 11


def test_a_workbook_that_its_reader_stumbles_over_is_one_line(tmp_path: Path) -> None:
    path = changed(
        workbook(tmp_path / "a.xlsx", [["image"]]),
        "xl/styles.xml",
        lambda xml: re.sub(rb"<fill>.*?</fill>", b"<fill />", xml, count=1),
    )
    with pytest.raises(ValueError, match="a.xlsx: not a readable workbook") as caught:
        read_workbook(path, ["image"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("3", 3.0),
        (" -0.5 ", -0.5),
        (".5", 0.5),
        ("3.", 3.0),
        ("+1e-3", 0.001),
        (7, 7.0),
        (np.float32(0.5), 0.5),
    ],
)
def test_plain_decimals_are_numbers(cell: object, value: float) -> None:
    assert number(cell, "row", "mos") == value


@pytest.mark.parametrize(
    "cell",
    ["nan", "inf", "-Infinity", "", "3,5", "bad", "3_5", "３", "٣", "1e999", "0x10", "1.2.3", "- 1", "3 5"]
    + [True, None, np.True_, 3j, float("nan"), 10**400, np.array([3.0]), "9" * 400],
)
def test_cells_that_are_no_plain_finite_number(cell: object) -> None:
    with pytest.raises(ValueError, match="labels.csv line 3: mos is .{0,70}, not a number"):
        number(cell, "labels.csv line 3", "mos")


def test_matlab_files_are_read_as_numbers_and_texts_or_refused(tmp_path: Path) -> None:
    names = np.empty((1, 2), dtype=object)
    names[0] = ["a.bmp", np.array([])]
    savemat(tmp_path / "a.mat", {"mos": np.array(["3_5", "3.5"]), "names": names})
    text, plain = read_matlab(tmp_path / "a.mat", "mos")
    with pytest.raises(ValueError, match="row: mos is '3_5', not a number"):
        number(str(text), "row", "mos")
    assert number(str(plain), "row", "mos") == 3.5
    first, empty = read_matlab(tmp_path / "a.mat", "names")
    assert matlab_text(first, "row", "names") == "a.bmp"
    with pytest.raises(ValueError, match="row: names is .*, expected one text"):
        matlab_text(empty, "row", "names")
    one, other = (savemat(file := io.BytesIO(), {"mos": np.ones(n)}) or file.getvalue() for n in (1, 2))
    with pytest.raises(ValueError, match=r"b\.mat: not a readable MATLAB file \(Duplicate variable name"):
        read_matlab(written(tmp_path / "b.mat", one + other[128:]), "mos")
    with pytest.raises(ValueError, match=r"c\.mat: not a readable MATLAB file"):
        read_matlab(written(tmp_path / "c.mat", one[:160]), "mos")


def test_tabs_part_the_cells_of_a_tsv(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", b"name\tmos\na, b.png\t3,5\n")
    assert read_csv(path, ["name", "mos"]) == [(2, {"name": "a, b.png", "mos": "3,5"})]


def test_lines(tmp_path: Path) -> None:
    other = written(tmp_path / "b.txt", "one\u2028part\x85\x0b 1\rtwo".encode())
    assert read_lines(other) == [(1, "one\u2028part\x85\x0b 1"), (2, "two")]
    assert read_lines(written(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\n\r\n two \n")) == [
        (1, "one"),
        (3, "two"),
    ]


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_cells_that_are_parted_by_another_mark_get_a_hint(tmp_path: Path, mark: str) -> None:
    path = written(tmp_path / "a.csv", f"name{mark}mos\na.png{mark}3.5\n".encode())
    with pytest.raises(ValueError, match=r"no column 'name'; .*parted by .*: save it with commas"):
        read_csv(path, ["name", "mos"])
    with pytest.raises(ValueError, match="columns present: name, mos$"):
        read_csv(written(tmp_path / "b.csv", b"name,mos\n"), ["score"])
