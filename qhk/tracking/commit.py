"""Which commit a source tree is of, read from git's own files: no program is needed, and none is run."""

from __future__ import annotations

import re
from pathlib import Path

from qhk.errors import UserError
from qhk.files import read_text

COMMIT_FILE = "commit"
"""In a sweep's copy of the code, which git does not know."""

HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def source_commit(tree: Path) -> str:
    """Return the hash of the commit that is checked out in ``tree``; "" where there is none, or no git.

    ``tree`` is the folder that holds ``.git``, or a sweep's copy of one. Branches are found as files and as
    lines of ``packed-refs``, of a linked worktree in the repository that it belongs to.
    """
    if (tree / COMMIT_FILE).is_file():
        return _hash(_text(tree / COMMIT_FILE))
    git = tree / ".git"
    if git.is_file():
        git = tree / _text(git).removeprefix("gitdir:").strip()
    head = _text(git / "HEAD")
    if not head.startswith("ref:"):
        return _hash(head)
    branch = head.removeprefix("ref:").strip()
    shared = git / (_text(git / "commondir") or ".")
    packed = (line.partition(" ") for line in _text(shared / "packed-refs").splitlines())
    return _hash(_text(shared / branch) or next((found for found, _, name in packed if name == branch), ""))


def _text(path: Path) -> str:
    """Return what is in a file; "" where it cannot be read, for what git has is no condition of a run."""
    try:
        return read_text(path).strip()
    except UserError:
        return ""


def _hash(text: str) -> str:
    return text if HASH.fullmatch(text) else ""
