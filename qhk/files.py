"""Text files that survive a killed process: whole-file writes and line-by-line records."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qhk.errors import UserError


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` (UTF-8); a reader sees the old file or the new one, never a part.

    The text goes to a hidden file in the same folder, is synced, and is renamed. Missing parent
    folders are made. The temporary name carries the process id, so two processes never share it.
    """
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` as ``write_atomically`` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def is_temporary(path: Path) -> bool:
    """Return whether the name is one that ``write_atomically`` uses while it writes."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def sync_folder(folder: Path) -> None:
    """Put the folder's entries, such as a file's new name, on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def json_line(row: Mapping[str, Any]) -> str:
    """Return one line of strict JSON with its newline, which UTF-8 can hold: half a surrogate is escaped.

    Raises ``ValueError`` for NaN and infinities.
    """
    text = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace").decode()  # its escapes are those of JSON


def parse_json(text: str, path: Path, *, line: int = 1) -> Any:
    """Return what a JSON text of the file ``path``, from its line ``line`` on, says.

    Raises ``UserError`` naming file and line for what is no JSON, a key that one object has twice (of which
    the last would win), and nesting or numbers beyond what is read.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        raise UserError(f"{path} line {line}: not JSON ({error.msg}): repair the file") from None
    except RecursionError:
        raise UserError(f"{path} line {line}: brackets are nested too deeply: repair the file") from None
    except ValueError as error:
        raise UserError(f"{path} line {line}: {error}: repair the file") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"key {repeated!r} is twice in one object, {str(pairs)[:80]}")
    return found


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file in order; empty where the file does not exist.

    A last line without its newline was torn by a killed writer and is left out. Any other line that
    is not a JSON object raises ``UserError`` naming file and line.
    """
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    rows = []
    for number, line in enumerate(whole.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{path} line {number} is not a JSON object: repair or remove that line")
        rows.append(row)
    return rows


def drop_torn_line(path: Path) -> None:
    """Cut a last line without newline off ``path``, so that the next append starts on a line of its own."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def append_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append ``rows`` to ``path`` in one write and sync it; folders are made. See ``drop_torn_line``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json_line(row) for row in rows))
        file.flush()
        os.fsync(file.fileno())
