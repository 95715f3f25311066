"""Reads label tables (CSV, workbooks) and single numbers, with messages that name file, row and fix."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

from openpyxl.reader.excel import load_workbook

Cells = dict[str, str]

_HEADER_SEARCH_ROWS = 20


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[int, Cells]]:
    """``(line number, {column: text})`` of each data row of a CSV with a header.

    Accepts a byte-order mark, LF and CRLF, quoted and unquoted cells, blanks around header cells;
    blank lines are skipped. Raises ``ValueError`` when ``columns`` are not all there (the columns
    present are listed), on a short row and on text that is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [cell.strip() for cell in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}): save it as UTF-8") from None
    _require_columns(path, header, columns)
    for line, row in rows:
        if len(row) < len(header):
            raise ValueError(
                f"{path} line {line}: {len(row)} cells, the header has {len(header)}: complete the row"
            )
    return [(line, dict(zip(header, (cell.strip() for cell in row), strict=False))) for line, row in rows]


def read_workbook(path: Path, columns: Sequence[str]) -> list[tuple[int, Cells]]:
    """``(row number, {column: text})`` of the first sheet that has ``columns`` in one of its first rows.

    The header need not be in the first row or column; blank rows are skipped; whole numbers come back
    without a decimal point. Raises ``ValueError`` when no sheet has the columns or the file is broken.
    """
    try:
        book = load_workbook(path, read_only=True, data_only=True)  # type: ignore[no-untyped-call]
    except (BadZipFile, KeyError, OSError) as error:
        raise ValueError(f"{path}: not a readable workbook ({error}): download it again") from None
    seen: list[str] = []
    for sheet in book.worksheets:
        rows = [[_cell_text(value) for value in row] for row in sheet.iter_rows(values_only=True)]
        for index, header in enumerate(rows[:_HEADER_SEARCH_ROWS]):
            if set(columns) <= set(header):
                body = enumerate(rows[index + 1 :], start=index + 2)
                return [(number, dict(zip(header, row, strict=True))) for number, row in body if any(row)]
        seen += [cell for row in rows[:_HEADER_SEARCH_ROWS] for cell in row if cell][:12]
    raise ValueError(
        f"{path}: no header with columns {', '.join(columns)}; the first cells are {', '.join(seen[:12])}"
    )


def read_json_rows(path: Path, fields: Sequence[str]) -> list[tuple[int, Cells]]:
    """``(row number, {field: text})`` of a JSON list of objects, or of JSON Lines; rows count from 1.

    Only ``fields`` are read. A JSON null comes back as ``null``. Raises ``ValueError`` naming file and row
    when the text is not JSON, a row is no object, or a field is missing or neither text nor null.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = json.loads(text) if text.lstrip().startswith("[") else _json_lines(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}): save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} line {error.lineno}: not JSON ({error.msg}): repair the file") from None
    return [
        (place, _json_cells(row, fields, f"{path} row {place}")) for place, row in enumerate(rows, start=1)
    ]


def _json_lines(text: str) -> list[object]:
    rows = []
    for line, row in enumerate(text.splitlines(), start=1):
        try:
            rows += [json.loads(row)] if row.strip() else []
        except json.JSONDecodeError as error:
            raise json.JSONDecodeError(error.msg, "\n" * (line - 1), line - 1) from None
    return rows


def _json_cells(row: object, fields: Sequence[str], where: str) -> Cells:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object with {', '.join(fields)}, got {str(row)[:60]}")
    cells: Cells = {}
    for field in fields:
        if field not in row:
            present = ", ".join(map(str, row)) or "none"
            raise ValueError(f"{where}: no field {field!r}; fields present: {present}")
        value = "null" if row[field] is None else row[field]
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{where}: {field} is {row[field]!r}: give it as text")
        cells[field] = value.strip()
    return cells


def label_word(value: str, words: Sequence[str], where: str, column: str) -> str:
    """``value``, one of ``words`` to the letter; ``ValueError`` naming row, value and words otherwise."""
    if value not in words:
        raise ValueError(f"{where}: {column} is {value!r}, expected one of {', '.join(words)}")
    return value


def read_lines(path: Path) -> list[tuple[int, str]]:
    """``(line number, text)`` of the lines that are not blank; byte-order mark and CRLF are accepted."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def number(text: str, where: str, column: str) -> float:
    """The finite number written in ``text``; ``ValueError`` naming ``where`` and ``column`` otherwise."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{where}: {column} is {text!r}, not a number: correct or remove the row") from None
    if not math.isfinite(value):
        raise ValueError(f"{where}: {column} is {text!r}: remove the row or give a finite score")
    return value


def _require_columns(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    lacking = [column for column in columns if column not in header]
    if lacking:
        present = ", ".join(cell for cell in header if cell) or "none"
        raise ValueError(f"{path}: no column {lacking[0]!r}; columns present: {present}")


def _cell_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
