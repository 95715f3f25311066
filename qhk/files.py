"""Files at the edge of the program: written whole or not at all, and told in one line where they cannot be.

Whatever reads a file that another program, another version or a user may have written goes through a function
``read_...`` or inside ``reading``, and whatever writes through the functions here or inside ``writing``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from qhk.errors import UserError

Record = TypeVar("Record")

RESTORE = "put it back, or correct its permissions"

SHALLOW = 500
"""Columns and brackets of a YAML file that cannot be nested more deeply than the parser in C stands."""


class FileError(UserError, OSError):
    """Raised where the system refuses a file: the message names it and the reason in one line.

    It has the ``errno`` of the error that it was raised from.
    """

    def __init__(self, path: Path | str, what: str, cause: OSError, fix: str) -> None:
        super().__init__(f"{path}: cannot be {what} ({cause.strerror or cause}): {fix}")
        self.errno = cause.errno


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise ``FileError`` where the system refuses what is written inside, ``path`` or something below it."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        fix = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another place"
        raise FileError(error.filename or path, "written", error, fix) from error


def unwritable(folder: Path, *names: str) -> str:
    """Return why files of these names could not be made in ``folder``, in a few words; empty if they could.

    Nothing is made. ``folder`` and folders above it may be missing; the nearest one that is there decides.
    """
    there = folder.absolute()
    try:
        while not os.path.lexists(there):
            there = there.parent
        if not there.is_dir():
            return f"{there} is no folder"
        limit = os.pathconf(there, "PC_NAME_MAX")
        parts = [*folder.absolute().relative_to(there).parts, *names]
        long = next((part for part in parts if len(os.fsencode(part)) > limit), None)
        if long is not None:
            return f"the name {long[:20]}... has {len(os.fsencode(long))} bytes, the most is {limit}"
        if len(os.fsencode(folder.absolute())) + max(map(len, names), default=0) >= os.pathconf(
            there, "PC_PATH_MAX"
        ):
            return "the whole path is too long"
    except OSError as error:
        return f"{error.strerror or error}"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} is read-only"


@contextmanager
def reading(path: Path, what: str, fix: str) -> Iterator[None]:
    """Raise ``UserError`` naming ``path`` where it turns out inside not to be ``what``, or cannot be read.

    For whatever takes a foreign file's content apart: missing keys, other types, values that cannot be.
    """
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise FileError(path, "read", error, fix) from error
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as fault:
        said = " ".join(str(fault).removeprefix(f"{path}: ").split())
        raise UserError(f"{path} is not {what} ({said}): {fix}") from None


def typed(kind: type[Record], row: Any) -> Record:
    """Return the dataclass ``kind`` with the values of a plain JSON object, each of the declared type.

    Raises ``ValueError``, one line, for missing and unknown keys and for values of other types.
    """
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(row.keys() - known) if isinstance(row, dict) else []
    if unknown:
        raise ValueError(f"unknown key {unknown[0]}")
    try:
        record: Record = _adapter(kind).validate_json(json.dumps(row), strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"{where}: {first['msg'].lower()}, got {str(first['input'])[:60]}") from None
    return record


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def read_bytes(path: Path) -> bytes:
    """Return what a file holds. Raises ``UserError`` naming the file where that cannot be had."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(path, "read", error, RESTORE) from error


def file_digest(path: Path) -> str:
    """Return sha256 (hex) of a file's bytes. Raises ``UserError`` as ``read_bytes`` does."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(path, "read", error, RESTORE) from error


def read_log(path: Path, *, tail: int | None = None) -> list[str]:
    """Return the lines of a log, or the whole ones in its last ``tail`` bytes; empty where there is none.

    What is no UTF-8 is replaced. Raises ``UserError`` as ``read_bytes`` does.
    """
    if not path.exists():
        return []
    try:
        with path.open("rb") as file:
            start = max(0, path.stat().st_size - tail) if tail is not None else 0
            file.seek(start)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError as error:
        raise FileError(path, "read", error, RESTORE) from error
    return lines[1:] if start and len(lines) > 1 else lines


def read_text(path: Path) -> str:
    """Return the text (UTF-8) of a file, without a byte-order mark.

    Raises ``UserError`` naming the file for any that has none.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FileError(path, "read", error, RESTORE) from error
    except UnicodeDecodeError as error:
        found = f"{error.reason} at byte {error.start}"
        raise UserError(f"{path}: is not text in UTF-8 ({found}): save it as UTF-8") from None


def read_json(path: Path) -> Any:
    """Return the value of a JSON file. Raises ``UserError`` naming the file for any other."""
    return parse_json(read_text(path), path)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file. Raises ``UserError`` naming the file for any other."""
    text = read_text(path)
    try:
        content = yaml.load(text, yaml.CSafeLoader if fast_yaml(text) else yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {type(content).__name__} where a mapping of keys is due")
    return content


def fast_yaml(text: str) -> bool:
    """Return whether PyYAML's parser in C can have this text, which is ten times as fast as the other one.

    Nesting without bound ends the whole process there, and is a ``RecursionError`` in the one in Python.
    """
    shallow = text.count("[") + text.count("{") < SHALLOW and all(
        len(line) < SHALLOW for line in text.splitlines()
    )
    return bool(yaml.__with_libyaml__ and shallow)


_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` (UTF-8); a reader sees the old file or the new one, never a part.

    The text goes to a hidden file in the same folder, is synced, and is renamed. Missing parent
    folders are made. The temporary name is drawn, so that two processes, even of two machines, do not
    share it.
    """
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` as ``write_atomically`` does."""
    temporary = path.with_name(f".{path.name}.{secrets.randbelow(10**9)}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder beside ``target`` that takes its name once it is filled; removed where filling fails.

    Where another process has finished first, the folder is that one's.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            yield work
            work.chmod(0o755)
            try:
                work.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)


def is_temporary(path: Path) -> bool:
    """Return whether the name is one that ``write_atomically`` uses while it writes."""
    return _TEMPORARY.fullmatch(path.name) is not None


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


def parse_json(text: str | bytes, path: Path | None = None, *, line: int = 1) -> Any:
    """Return what a JSON text says, which is that of ``path`` from its line ``line`` on, if it is of a file.

    Raises ``UserError``, which names file and line, for what is no JSON, a key that one object has twice (of
    which the last would win), and nesting or numbers beyond what is read.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        fault = f"not JSON ({error.msg})"
    except RecursionError:
        fault = "brackets are nested too deeply"
    except ValueError as error:
        fault = str(error)
    raise UserError(f"{path} line {line}: {fault}: repair the file" if path is not None else fault)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"key {repeated!r} is twice in one object, {str(pairs)[:80]}")
    return found


def read_json_lines(path: Path, **keys: type) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file in order; empty where the file does not exist.

    A last line without its newline was torn by a killed writer and is left out. Any other line that
    is not a JSON object, or does not have the named ``keys`` with values of their types, raises
    ``UserError`` naming file and line.
    """
    if not os.path.lexists(path):
        return []
    try:
        whole = path.read_bytes().rpartition(b"\n")[0]
    except OSError as error:
        raise FileError(path, "read", error, "correct its permissions, or move it away") from error
    rows = []
    for number, line in enumerate(whole.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row, why = parse_json(line), ""
        except UserError as error:
            row, why = None, f" ({error})"
        if not isinstance(row, dict):
            raise UserError(f"{path} line {number} is not a JSON object{why}: repair or remove that line")
        wrong = next((key for key, kind in keys.items() if type(row.get(key)) is not kind), None)
        if wrong is not None:
            what = f"{wrong} {row[wrong]!r}" if wrong in row else f"no {wrong}"
            raise UserError(f"{path} line {number} has {what[:80]}: repair or remove that line")
        rows.append(row)
    return rows


def keep_rows(path: Path, keep: Callable[[dict[str, Any]], bool], **keys: type) -> None:
    """Keep only some rows of a JSON-lines file; the others go to ``<name>.dropped.jsonl`` beside it.

    They are written there before the file is replaced, so that no row is ever lost. Nothing is touched where
    all are kept. ``keys`` as in ``read_json_lines``.
    """
    rows = read_json_lines(path, **keys)
    dropped = [row for row in rows if not keep(row)]
    if dropped:
        append_json_lines(path.with_name(f"{path.stem}.dropped.jsonl"), dropped)
        write_atomically(path, "".join(json_line(row) for row in rows if keep(row)))


def drop_torn_line(path: Path) -> None:
    """Cut a last line without newline off ``path``, so that the next append starts on a line of its own."""
    if not path.exists():
        return
    with writing(path):
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)


def append_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append ``rows`` to ``path`` in one write and sync it; folders are made. See ``drop_torn_line``."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(json_line(row) for row in rows))
            file.flush()
            os.fsync(file.fileno())
