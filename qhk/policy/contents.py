"""What a checkpoint's folder is to hold: every file with its size and digest, checked before it is used."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from qhk.errors import UserError
from qhk.files import file_digest, read_json, write_atomically

CONTENTS_FILE = "contents.json"
"""File name -> ``size`` in bytes and ``sha256``."""

SIZES_FILE = "sizes.json"
"""File name -> size in bytes: the list of earlier versions."""

THREADS = 4
"""Files that are read at once; digests are computed outside the interpreter's lock."""


def write_contents(folder: Path) -> None:
    """Write the list of all files in ``folder`` with their digests, and put everything on disk.

    Hidden files are nobody's of ours. A file is digested while another one is still on its way to the disk.
    """
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    with ThreadPoolExecutor(THREADS) as pool:
        contents = dict(zip([path.name for path in files], pool.map(_settle, files), strict=True))
    write_atomically(folder / CONTENTS_FILE, json.dumps(contents, indent=1) + "\n")


def has_contents(folder: Path) -> bool:
    """Return whether a folder is a checkpoint of ours, which says what it is to hold."""
    return (folder / CONTENTS_FILE).is_file() or (folder / SIZES_FILE).is_file()


def folder_fault(
    folder: Path, *, needed: Sequence[str] = (), left_out: Sequence[str] = ()
) -> tuple[str, bool]:
    """Return why the files in ``folder`` are not those that were written, and whether digests say that.

    The reason is a few words, empty where all is whole. The list must name all that is ``needed``;
    ``left_out`` files are not looked at. Each file is read once, at the speed of the disk or of SHA-256
    (about 1 GiB/s on one core), and is in the page cache when it is loaded after that.
    """
    try:
        listed = read_contents(folder)
    except UserError as error:
        return str(error).removeprefix(f"{folder}/"), False
    lacking = [name for name in needed if name not in listed]
    if lacking:
        return f"its list of files has no {lacking[0]}", False
    chosen = {name: entry for name, entry in listed.items() if name not in left_out}
    with ThreadPoolExecutor(THREADS) as pool:
        faults = pool.map(lambda item: _file_fault(folder / item[0], **item[1]), chosen.items())
        fault = next(filter(None, faults), "")
    return fault, all(entry["sha256"] is not None for entry in listed.values())


def read_contents(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the list of a checkpoint: by name ``size`` and ``sha256``, None in the list of earlier versions.

    Raises ``UserError`` where there is none, or another file in its place.
    """
    path = folder / CONTENTS_FILE
    if not path.exists() and (folder / SIZES_FILE).exists():
        path = folder / SIZES_FILE
    content = read_json(path)
    rows = content.items() if isinstance(content, dict) else [("", None)]
    listed = {name: row if isinstance(row, dict) else {"size": row, "sha256": None} for name, row in rows}
    if not all(set(row) == {"size", "sha256"} and type(row["size"]) is int for row in listed.values()):
        raise UserError(f"{path}: is no list of files")
    return listed


def _file_fault(path: Path, *, size: int, sha256: str | None) -> str:
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        return f"{path.name} is missing" if found is None else f"{path.name} has {found} of {size} bytes"
    try:
        same = _opens(path) if sha256 is None else file_digest(path) == sha256
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror or os.strerror(error.errno or 0)})"
    return "" if same else f"{path.name} is not what was written"


def _opens(path: Path) -> bool:
    """Return whether a file without a digest is of its kind, as far as its beginning says."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np"):
                return True
        if path.suffix == ".json":
            read_json(path)
    except (SafetensorError, UserError):
        return False
    return True


def _settle(path: Path) -> dict[str, Any]:
    """Returns a file's entry once it is on disk."""
    _sync(path)
    return {"size": path.stat().st_size, "sha256": file_digest(path)}


def _sync(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())
