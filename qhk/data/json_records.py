"""Reads records of JSON lists and JSON lines, field by field, with messages that name file, row and fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qhk.data.tables import Cells, plain_number
from qhk.errors import UserError
from qhk.files import parse_json, read_text
from qhk.plain import show_value


def read_json_records(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Yield ``(file and row, object)`` of a JSON list of objects, or of JSON lines; rows count from 1.

    Raises ``UserError`` naming file and line or row for anything else.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        rows = parse_json(text, path)
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = [parse_json(line, path, line=number) for number, line in lines if line.strip()]
    if not isinstance(rows, list):
        raise UserError(f"{path}: holds a JSON {type(rows).__name__}, expected a list of records")
    records: list[tuple[str, Mapping[str, Any]]] = []
    for place, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(
                f"{path} row {place}: expected an object with named fields, got {show_value(row)}"
            )
        records.append((f"{path} row {place}", row))
    return records


def read_json_rows(path: Path, fields: Sequence[str]) -> list[tuple[int, Cells]]:
    """Yield ``(row number, {field: text})``; only ``fields`` are read, and a JSON null becomes ``null``.

    Raises ``UserError`` naming file and row when a field is missing or neither text nor null.
    """
    return [
        (place, _cells(record, fields, where))
        for place, (where, record) in enumerate(read_json_records(path), start=1)
    ]


def text_field(record: Mapping[str, Any], field: str, where: str) -> str:
    """Return a field that must hold text. Raises ``UserError`` naming ``where``, the field and the fix."""
    value = record.get(field)
    if not isinstance(value, str) or not value:
        shown = show_value(value, none="missing")
        raise UserError(f"{where}: {field} is {shown}, expected text: complete the row")
    return value


def number_field(record: Mapping[str, Any], field: str, where: str) -> float:
    """Return a field that must hold a finite number, or text that is one (``plain_number``)."""
    value = record.get(field)
    found = plain_number(value)
    if found is None:
        shown = show_value(value, none="missing")
        raise UserError(f"{where}: {field} is {shown}, not a finite number: correct or remove the row")
    return found


def one_image(record: Mapping[str, Any], field: str, where: str) -> str:
    """Return the path in a field that holds a path or a list of exactly one."""
    value = record.get(field)
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or len(paths) != 1 or not isinstance(paths[0], str) or not paths[0]:
        shown = show_value(value, none="missing")
        raise UserError(f"{where}: {field} is {shown}, expected the path of one image")
    return paths[0]


def _cells(record: Mapping[str, Any], fields: Sequence[str], where: str) -> Cells:
    cells: Cells = {}
    for field in fields:
        if field not in record:
            present = ", ".join(map(str, record)) or "none"
            raise UserError(f"{where}: no field {field!r}; fields present: {present}")
        value = "null" if record[field] is None else record[field]
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{where}: {field} is {show_value(record[field])}: give it as text")
        cells[field] = value.strip()
    return cells
