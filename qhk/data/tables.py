"""Reads label tables (CSV, workbooks) and single numbers, with messages that name file, row and fix."""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import ParseError
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from openpyxl.reader.excel import load_workbook
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from qhk.errors import UserError

Cells = dict[str, str]

_HEADER_SEARCH_ROWS = 20


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[int, Cells]]:
    """Yield ``(line number, {column: text})`` of each data row of a CSV with a header.

    Accepts a byte-order mark, LF and CRLF, quoted and unquoted cells, blanks around header cells;
    blank lines are skipped. Raises ``UserError`` when ``columns`` are not all there (the columns
    present are listed), on a short row and on text that is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [cell.strip() for cell in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}): save it as UTF-8") from None
    _require_columns(path, header, columns)
    for line, row in rows:
        if len(row) < len(header):
            raise UserError(
                f"{path} line {line}: {len(row)} cells, the header has {len(header)}: complete the row"
            )
    return [(line, dict(zip(header, (cell.strip() for cell in row), strict=False))) for line, row in rows]


def read_workbook(path: Path, columns: Sequence[str]) -> list[tuple[int, Cells]]:
    """Yield ``(row number, {column: text})`` of the first sheet with ``columns`` in one of its first rows.

    The header need not be in the first row or column; blank rows are skipped; whole numbers come back
    without a decimal point. Raises ``UserError`` when no sheet has the columns or the file is broken.
    """
    seen: list[str] = []
    for rows in _sheets(path):
        for index, header in enumerate(rows[:_HEADER_SEARCH_ROWS]):
            if set(columns) <= set(header):
                body = enumerate(rows[index + 1 :], start=index + 2)
                return [(number, dict(zip(header, row, strict=True))) for number, row in body if any(row)]
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

    Raises ``UserError`` naming the file when it is broken, of version 7.3, or without that variable.
    """
    try:
        content = loadmat(path)
    except NotImplementedError:
        raise UserError(f"{path}: a MATLAB 7.3 file: save it with -v7, or download the original") from None
    except (MatReadError, ValueError, TypeError, OSError) as error:
        raise UserError(f"{path}: not a readable MATLAB file ({error}): download it again") from None
    if variable not in content:
        present = ", ".join(name for name in content if not name.startswith("__"))
        raise UserError(f"{path}: no variable {variable!r}; variables present: {present}")
    return np.asarray(content[variable]).ravel()


def label_word(value: str, words: Sequence[str], where: str, column: str) -> str:
    """Return ``value``, which must be one of ``words`` to the letter.

    Raises ``UserError`` naming row, value and words otherwise.
    """
    if value not in words:
        raise UserError(f"{where}: {column} is {value!r}, expected one of {', '.join(words)}")
    return value


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return ``(line number, text)`` of lines that are not blank; accepts byte-order mark and CRLF."""
    lines = read_text(path).splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file without byte-order mark.

    Raises ``UserError`` naming the file where it is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}): save it as UTF-8") from None


def number(text: str, where: str, column: str) -> float:
    """Return the finite number in ``text``.

    Raises ``UserError`` naming ``where`` and ``column`` otherwise.
    """
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{where}: {column} is {text!r}, not a number: correct or remove the row") from None
    if not math.isfinite(value):
        raise UserError(f"{where}: {column} is {text!r}: remove the row or give a finite score")
    return value


def _sheets(path: Path) -> list[list[list[str]]]:
    """The texts of every cell, by sheet and row."""
    try:
        book = load_workbook(path, read_only=True, data_only=True)  # type: ignore[no-untyped-call]
        return [
            [[_cell_text(value) for value in row] for row in sheet.iter_rows(values_only=True)]
            for sheet in book.worksheets
        ]
    except (BadZipFile, KeyError, OSError, zlib.error, ParseError) as error:
        raise UserError(f"{path}: not a readable workbook ({error}): download it again") from None


def _require_columns(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    lacking = [column for column in columns if column not in header]
    if lacking:
        present = ", ".join(cell for cell in header if cell) or "none"
        raise UserError(f"{path}: no column {lacking[0]!r}; columns present: {present}")


def _cell_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
