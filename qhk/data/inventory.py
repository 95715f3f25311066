"""What the image files of a set hold: digest, size and health of each, read once and remembered.

A file is read again when anything the file system says of it has changed: size, time of change, time of
status change (which no program can set back) or inode. A file that was changed within the last moments
before it was read is not remembered at all, since a second change might bear the same times.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from qhk.data.image import MAX_PIXELS, check_size, decode, read_header
from qhk.errors import UserError
from qhk.files import read_bytes, read_json, write_atomically

Depth = Literal["header", "decode"]
Progress = Callable[[int, int], None]

SETTLED_S = 2.0
"""The coarsest time stamp of the file systems in use."""

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """One image file: sha256 (hex), size in bytes, (width, height) as stored, format, and what is wrong.

    ``problem`` is None for a readable picture, ``decoded`` says that every pixel of it was read. Where the
    header cannot be read, width and height are 0 and ``format`` is empty. ``perceptual_hash`` has
    16 hex digits, where it was asked for.
    """

    sha256: str
    num_bytes: int
    width: int
    height: int
    format: str
    problem: str | None
    decoded: bool
    perceptual_hash: str | None


_Signature = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class _Entry:
    signature: _Signature
    facts: FileFacts


def take_inventory(
    paths: Sequence[Path],
    *,
    memory: Path,
    depth: Depth,
    near_duplicates: bool,
    workers: int,
    progress: Progress,
) -> dict[Path, FileFacts]:
    """Return the facts of every file of ``paths``, in their order.

    ``memory`` is the file that remembers them.
    ``depth`` header reads all bytes and the header, decode also every pixel; ``near_duplicates`` adds the
    perceptual hash. Raises ``UserError`` for a path that is no file. Broken pictures do not raise: they have
    a problem.
    """
    remembered = _recall(memory)
    signatures = {path: _signature(path) for path in paths}
    facts: dict[Path, FileFacts] = {}
    kept: dict[str, _Entry] = {}
    stale: list[Path] = []
    for path, signature in signatures.items():
        entry = remembered.get(str(path))
        if entry is None or entry.signature != signature or _is_shallow(entry.facts, depth, near_duplicates):
            stale.append(path)
        else:
            facts[path], kept[str(path)] = entry.facts, entry
    if not stale:
        return {path: facts[path] for path in signatures}
    for done, (path, began_ns, found) in enumerate(
        _read_all(stale, depth, near_duplicates, workers), start=1
    ):
        facts[path] = found
        signature = _signature(path)
        # A file written to while, or just before, it is read may change again within its time stamp's
        # resolution, so only settled files are remembered.
        if signature == signatures[path] and signature[2] + SETTLED_S * 1e9 < began_ns:
            kept[str(path)] = _Entry(signature=signature, facts=found)
        progress(done, len(stale))
    _remember(memory, {**remembered, **kept}, set(map(str, stale)) - set(kept))
    return {path: facts[path] for path in signatures}


def memory_file(cache: Path, root: Path) -> Path:
    """Return the path of the file that remembers the inventory of the set at ``root``."""
    name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return cache / "inventory" / f"{name}.json"


def hash_distance(one: str, other: str) -> int:
    """Return in how many of 64 bits two perceptual hashes differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def inspect(path: Path, *, depth: Depth, near_duplicates: bool) -> FileFacts:
    """Return the facts of one file, which is read once from start to end."""
    content = read_bytes(path)
    digest = hashlib.sha256(content).hexdigest()
    size, kind, problem, decoded, perceptual_hash = (0, 0), "", None, False, None
    try:
        size, kind = read_header(path, content)
        check_size(path, size, min_side=1, max_pixels=MAX_PIXELS)
        if depth == "decode" or near_duplicates:
            picture = decode(path, content)
            decoded = True
            perceptual_hash = _perceptual_hash(picture) if near_duplicates else None
    except ValueError as error:
        problem = str(error)
    return FileFacts(
        sha256=digest,
        num_bytes=len(content),
        width=size[0],
        height=size[1],
        format=kind,
        problem=problem,
        decoded=decoded,
        perceptual_hash=perceptual_hash,
    )


def _read_all(
    paths: Sequence[Path], depth: Depth, near_duplicates: bool, workers: int
) -> Iterator[tuple[Path, int, FileFacts]]:
    """(path, time in ns before it was read, its facts) of every path, in order."""

    def read(path: Path) -> tuple[Path, int, FileFacts]:
        return path, time.time_ns(), inspect(path, depth=depth, near_duplicates=near_duplicates)

    if workers == 0:
        yield from map(read, paths)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(read, paths)


def _signature(path: Path) -> _Signature:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}): add the file or its permission"
        ) from None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _is_shallow(facts: FileFacts, depth: Depth, near_duplicates: bool) -> bool:
    """Whether more is asked for than these facts tell. A broken file stays broken until it changes."""
    if facts.problem is not None:
        return False
    return (depth == "decode" and not facts.decoded) or (near_duplicates and facts.perceptual_hash is None)


def _recall(memory: Path) -> dict[str, _Entry]:
    """What ``memory`` holds; nothing where it is missing, of another version, or damaged."""
    try:
        content = read_json(memory)
        if content["version"] != _VERSION:
            return {}
        return {path: _entry(record) for path, record in content["files"].items()}
    except (LookupError, TypeError, AttributeError, ValueError):
        return {}


def _entry(record: Sequence[Any]) -> _Entry:
    sha256, num_bytes, width, height, kind, problem, decoded, perceptual_hash = record[4:]
    facts = FileFacts(
        sha256=sha256,
        num_bytes=num_bytes,
        width=width,
        height=height,
        format=kind,
        problem=problem,
        decoded=decoded,
        perceptual_hash=perceptual_hash,
    )
    size, changed, status, inode = record[:4]
    return _Entry(signature=(size, changed, status, inode), facts=facts)


def _remember(memory: Path, entries: Mapping[str, _Entry], forgotten: set[str]) -> None:
    files = {
        path: [*entry.signature, *astuple(entry.facts)]
        for path, entry in sorted(entries.items())
        if path not in forgotten and os.path.exists(path)
    }
    text = json.dumps({"version": _VERSION, "files": files})
    write_atomically(memory, text)


def _perceptual_hash(picture: Image.Image) -> str:
    """Difference hash: whether each of 8 x 8 cells of the grey picture is darker than its left neighbour."""
    small = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = np.packbits(small[:, 1:] < small[:, :-1])
    return bits.tobytes().hex()
