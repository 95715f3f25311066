"""The code that runs were computed by, and what differs between it, where a copy of it is still there."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from qhk.errors import UserError
from qhk.files import read_bytes
from qhk.report.memory import Memory
from qhk.report.runs import RunRecord, Runs
from qhk.sweep.manifest import FOLDER as SWEEPS
from qhk.sweep.manifest import code_folder
from qhk.tracking.code import CODE_SUFFIXES, PACKAGE, SHOWN, code_text, files_digest, read_code_parts
from qhk.tracking.code_store import read_code, stored_code
from qhk.tracking.provenance import read_provenance

MAX_DIFF = 60_000
"""Characters of one difference."""


def code_of(record: RunRecord) -> tuple[str, str]:
    """Return the digest of the code that a run was last computed by, and all its codes as text."""
    try:
        provenance = read_provenance(record.directory / "provenance.json")
        parts = read_code_parts(record.directory)
    except UserError:
        return "", ""
    if provenance is None:
        return "", ""
    return provenance.code_digest, code_text(parts) if len(parts) > 1 else provenance.code_digest[:SHOWN]


def code_differences(runs: Runs) -> list[dict[str, Any]]:
    """Return the codes of the runs, the most used first: digest, runs, difference from that first one.

    ``gone`` are the codes of both of which no whole copy is left: what differs is not known where it has any.
    """
    users: dict[str, list[RunRecord]] = {}
    for record in runs.records:
        digest, _ = code_of(record)
        if digest:
            users.setdefault(digest, []).append(record)
    ranked = sorted(users, key=lambda digest: -len(users[digest]))
    copies = {digest: _copy(digest, users[digest], runs.memory) for digest in ranked} if ranked[1:] else {}
    found = []
    for digest in ranked:
        old, new = (copies.get(code, {}) for code in (ranked[0], digest))
        gone = [code[:SHOWN] for code in dict.fromkeys([ranked[0], digest]) if copies.get(code, {}) is None]
        diff = "" if old is None or new is None else _diff(old, new)
        runs_of = [record.label for record in users[digest]]
        found.append({"code": digest[:SHOWN], "runs": runs_of, "diff": diff, "gone": gone})
    return found


def _copy(digest: str, records: list[RunRecord], memory: Memory) -> Mapping[str, bytes] | None:
    """Return the ``code_files`` with a digest: of the store, of a sweep beside the runs, or of this package.

    None where none of these has them as they were.
    """
    # outputs/<study>/<name>/seed<k> beside outputs/code and outputs/sweeps/<name>
    places = dict.fromkeys(record.directory.parents[2] for record in records)
    for outputs in places:
        with suppress(UserError, OSError):
            return memory.read(stored_code(outputs, digest), read_code)
    sweeps = [sweep for outputs in places for sweep in sorted(outputs.glob(f"{SWEEPS}/*"))]
    for folder, part in (
        *((code_folder(sweep, digest), "") for sweep in sweeps),
        (PACKAGE.parent, PACKAGE.name),
    ):
        with suppress(UserError):
            files = dict(_files(folder, part))
            if files_digest(files, [PACKAGE.name]) == digest:
                return files
    return None


def _files(folder: Path, part: str) -> Iterator[tuple[str, bytes]]:
    for path in (folder / part).rglob("*"):
        if path.suffix in CODE_SUFFIXES and path.is_file():
            yield path.relative_to(folder).as_posix(), read_bytes(path)


def _diff(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> str:
    """Return a unified difference of two sets of files, cut at ``MAX_DIFF`` characters."""
    lines: list[str] = []
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            before, after = (
                files.get(name, b"").decode(errors="replace").splitlines() for files in (old, new)
            )
            lines += difflib.unified_diff(before, after, f"a/{name}", f"b/{name}", lineterm="", n=2)
    text = "\n".join(lines)
    return text if len(text) <= MAX_DIFF else f"{text[:MAX_DIFF]}\n... {len(text) - MAX_DIFF} characters more"
