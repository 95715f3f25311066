"""Reads label tables (CSV, workbooks) and single numbers, with messages that name file, row and fix."""

from __future__ import annotations

import csv
import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from openpyxl.reader.excel import load_workbook

from qhk.errors import UserError
from qhk.files import read_text
from qhk.plain import show_value

Cells = dict[str, str]

_HEADER_SEARCH_ROWS = 20
_PLAIN = re.compile(r"[+-]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?")
_LINE_END = re.compile(r"\r\n|\n|\r")


def read_csv(path: Path, columns: Sequence[str], *, optional: Sequence[str] = ()) -> list[tuple[int, Cells]]:
    """Yield ``(line number, {column: text})`` of each data row of a CSV with a header; tabs part a ``.tsv``.

    Accepts a byte-order mark, LF and CRLF, quoted and unquoted cells, blanks around header cells; blank lines
    are skipped, and so are empty cells beyond the header. Raises ``UserError`` when ``columns`` are not all
    there (the columns present are listed), when one of them or of ``optional`` is there twice, on a row of
    fewer or of more cells than the header, on a line break inside a cell (an unclosed quote would swallow
    rows), and on text that is not UTF-8.
    """
    text = io.StringIO(read_text(path), newline="")
    reader = csv.reader(text, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for cells in reader:
            rows.append((line, [cell.strip() for cell in cells]))
            if reader.line_num > line and any("\n" in cell or "\r" in cell for cell in cells):
                raise csv.Error(f"a cell goes on to line {reader.line_num}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f'{path} line {line}: {error}: close or remove its quotes ("), and keep each row on one line'
        ) from None
    header = rows[0][1] if rows else []
    _require_columns(path, header, columns, optional)
    found = [(line, row) for line, row in rows[1:] if any(row)]
    for line, row in found:
        if len(row) < len(header):
            raise UserError(
                f"{path} line {line}: {len(row)} cells, the header has {len(header)}: complete the row"
            )
        if any(row[len(header) :]):
            raise UserError(
                f"{path} line {line}: {len(row)} cells, the header has {len(header)}: quote cells that hold "
                "commas, and write numbers with a decimal point"
            )
    return [(line, dict(zip(header, row, strict=False))) for line, row in found]


def read_workbook(path: Path, columns: Sequence[str]) -> list[tuple[int, Cells]]:
    """Yield ``(row number, {column: text})`` of the first sheet with ``columns`` in one of its first rows.

    The header need not be in the first row or column; blank rows are skipped; whole numbers come back
    without a decimal point. What the file says of its own size is not believed. Raises ``UserError`` when no
    sheet has the columns, when one of them is there twice, or the file is broken.
    """
    seen: list[str] = []
    for rows in _sheets(path):
        for index, header in enumerate(rows[:_HEADER_SEARCH_ROWS]):
            if set(columns) <= set(header):
                _require_columns(path, header, columns)
                body = enumerate(rows[index + 1 :], start=index + 2)
                return [
                    (line, dict(zip_longest(header, row[: len(header)], fillvalue="")))
                    for line, row in body
                    if any(row)
                ]
        seen += [cell for row in rows[:_HEADER_SEARCH_ROWS] for cell in row if cell][:12]
    raise UserError(
        f"{path}: no header with columns {', '.join(columns)}; the first cells are {', '.join(seen[:12])}"
    )


def read_sheet(path: Path) -> list[tuple[int, list[str]]]:
    """Yield ``(row number, texts of its cells)`` of the first sheet, blank rows left out.

    For tables whose columns go by place. Raises ``UserError`` when the file is broken.
    """
    return [(number, row) for number, row in enumerate(_sheets(path)[0], start=1) if any(row)]


def read_matlab(path: Path, variable: str) -> NDArray[np.generic]:
    """Return a variable of a MATLAB v5 file as a flat array; cells come as objects.

    Raises ``UserError`` naming the file when it is broken, of version 7.3, without that variable, or has
    one of its variables twice.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadWarning

    with _readable(path, "MATLAB file"), warnings.catch_warnings():
        warnings.simplefilter("error", MatReadWarning)  # of a repeated variable, the last would win
        try:
            content = loadmat(path)
        except NotImplementedError:
            raise UserError(
                f"{path}: a MATLAB 7.3 file: save it with -v7, or download the original"
            ) from None
    if variable not in content:
        present = ", ".join(name for name in content if not name.startswith("__"))
        raise UserError(f"{path}: no variable {variable!r}; variables present: {present}")
    return np.asarray(content[variable]).ravel()


def matlab_text(value: object, where: str, variable: str) -> str:
    """Return the text in one cell of a cell array, which nests it in arrays of its own.

    Raises ``UserError`` naming ``where`` and ``variable`` for a cell of anything else.
    """
    cell = np.ravel(np.asarray(value, dtype=object))
    while cell.size == 1 and isinstance(cell[0], np.ndarray):
        cell = np.ravel(cell[0])
    if cell.size != 1 or not isinstance(cell[0], str) or not cell[0].strip():
        shown = show_value(value, none="missing")
        raise UserError(f"{where}: {variable} is {shown}, expected one text: download the file again")
    return str(cell[0]).strip()


def label_word(value: str, words: Sequence[str], where: str, column: str) -> str:
    """Return ``value``, which must be one of ``words`` to the letter.

    Raises ``UserError`` naming row, value and words otherwise.
    """
    if value not in words:
        raise UserError(f"{where}: {column} is {value!r}, expected one of {', '.join(words)}")
    return value


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return ``(line number, text)`` of lines that are not blank; accepts byte-order mark and CRLF."""
    lines = _LINE_END.split(read_text(path))
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def number(value: object, where: str, column: str) -> float:
    """Return the finite number in a cell. Raises ``UserError`` naming ``where`` and ``column`` otherwise."""
    found = plain_number(value)
    if found is None:
        shown = show_value(value, none="missing")
        raise UserError(f"{where}: {column} is {shown}, not a number: correct or remove the row")
    return found


def plain_number(value: object) -> float | None:
    """Return the finite number that a cell holds, as a number or as text; None for anything else.

    Text must be a plain decimal in ASCII, such as ``3``, ``-0.5``, ``.5`` or ``1e-3``: other ways to write
    numbers (``3,5``, ``3_5``, other digits, ``nan``, true) mean something else to some reader.
    """
    if isinstance(value, str):
        found = float(value) if _PLAIN.fullmatch(value := value.strip()) else math.nan
    elif isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
    else:
        found = math.nan
    return found if math.isfinite(found) else None


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    """Make one line of whatever a library raises over a broken file; they document no list of it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: not a readable {kind} ({reason[:200]}): save it again, or download it again"
        ) from None


def _sheets(path: Path) -> list[list[list[str]]]:
    """The texts of every cell, by sheet and row."""
    with _readable(path, "workbook"):
        book = load_workbook(path, read_only=True, data_only=True)  # type: ignore[no-untyped-call]
        sheets = []
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # what the sheet says of its size would cut rows and columns off
            sheets.append([[_cell_text(value) for value in row] for row in sheet.iter_rows(values_only=True)])
        book.close()
        return sheets


def _require_columns(
    path: Path, header: Sequence[str], columns: Sequence[str], optional: Sequence[str] = ()
) -> None:
    lacking = [column for column in columns if column not in header]
    if lacking:
        present = ", ".join(cell for cell in header if cell) or "none"
        parted = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), "")
        hint = f"; its cells are parted by {parted!r}: save it with commas" if parted else ""
        raise UserError(f"{path}: no column {lacking[0]!r}; columns present: {present}{hint}")
    repeated = [column for column in (*columns, *optional) if header.count(column) > 1]
    if repeated:
        raise UserError(
            f"{path}: {header.count(repeated[0])} columns are called {repeated[0]!r}: rename all but one"
        )


def _cell_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
