"""The code that runs were computed by, and what differs between it, where a copy of it is still there."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qhk.errors import UserError
from qhk.files import read_text
from qhk.report.runs import RunRecord, Runs
from qhk.sweep.manifest import code_folder
from qhk.tracking.code import CODE_SUFFIXES, PACKAGE, SHOWN, code_digest, code_text, read_code_parts
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

    A sweep keeps a copy of its code, and the package that makes the report is another; ``diff`` is None where
    one of both copies is gone, so that all that is known is that they differ.
    """
    users: dict[str, list[RunRecord]] = {}
    for record in runs.records:
        digest, _ = code_of(record)
        if digest:
            users.setdefault(digest, []).append(record)
    ranked = sorted(users, key=lambda digest: -len(users[digest]))
    if len(ranked) < 2:
        return [{"code": code[:SHOWN], "runs": _labels(users[code]), "diff": ""} for code in ranked]
    copies = {digest: _copy(digest, users[digest]) for digest in ranked}
    base = copies[ranked[0]]
    return [
        {
            "code": digest[:SHOWN],
            "runs": _labels(users[digest]),
            "diff": None if base is None or copies[digest] is None else _diff(base, copies[digest] or {}),
        }
        for digest in ranked
    ]


def _labels(records: list[RunRecord]) -> list[str]:
    return [record.label for record in records]


def _copy(digest: str, records: list[RunRecord]) -> Mapping[str, str] | None:
    """Return the files of a code by name, from a sweep beside the runs or from this package; else None."""
    # outputs/<study>/<name>/seed<k> beside outputs/sweeps/<name>
    sweeps = [sweep for record in records for sweep in sorted(record.directory.parents[2].glob("sweeps/*"))]
    kept = next((folder for sweep in sweeps if (folder := code_folder(sweep, digest)).is_dir()), None)
    try:
        if kept is not None:
            return dict(_texts(kept))
        if code_digest({PACKAGE.name: PACKAGE}) == digest:
            return {f"{PACKAGE.name}/{name}": text for name, text in _texts(PACKAGE)}
    except UserError:  # a copy that cannot be read is as good as none
        return None
    return None


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in CODE_SUFFIXES and path.is_file():
            yield path.relative_to(folder).as_posix(), read_text(path)


def _diff(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Return a unified difference of two sets of files, cut at ``MAX_DIFF`` characters."""
    lines: list[str] = []
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            before, after = (texts.get(name, "").splitlines() for texts in (old, new))
            lines += difflib.unified_diff(before, after, f"a/{name}", f"b/{name}", lineterm="", n=2)
    text = "\n".join(lines)
    return text if len(text) <= MAX_DIFF else f"{text[:MAX_DIFF]}\n... {len(text) - MAX_DIFF} characters more"
