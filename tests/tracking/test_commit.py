"""The commit of a source tree in each of the layouts that git writes, by its documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from qhk.tracking.commit import source_commit

ONE, TWO, OTHER = "1" * 40, "2" * 64, "3" * 40
PACKED = f"# pack-refs with: peeled\n{OTHER} refs/heads/mainly\n{ONE} refs/heads/main\n^{OTHER}\n"
ON_MAIN = {".git/HEAD": "ref: refs/heads/main\n"}
LINKED = {".git": "gitdir: repo/.git/worktrees/w\n", "repo/.git/worktrees/w/HEAD": "ref: refs/heads/main\n"}


@pytest.mark.parametrize(
    ("files", "commit"),
    [
        ({}, ""),
        ({".git/HEAD": f"{ONE}\n"}, ONE),
        ({**ON_MAIN, ".git/refs/heads/main": f"{TWO}\n"}, TWO),
        ({**ON_MAIN, ".git/packed-refs": PACKED}, ONE),
        ({**ON_MAIN, ".git/refs/heads/main": f"{TWO}\n", ".git/packed-refs": PACKED}, TWO),
        (ON_MAIN, ""),
        (
            {**LINKED, "repo/.git/worktrees/w/commondir": "../..\n", "repo/.git/refs/heads/main": f"{ONE}\n"},
            ONE,
        ),
        ({**LINKED, "repo/.git/worktrees/w/commondir": "../..\n", "repo/.git/packed-refs": PACKED}, ONE),
        ({".git": "gitdir: gone\n"}, ""),
        ({".git/HEAD": "1234 <script>\n"}, ""),
        ({"commit": f"{ONE}\n"}, ONE),
        ({"commit": "\n"}, ""),
    ],
)
def test_commit_of_a_tree(tmp_path: Path, files: dict[str, str], commit: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert source_commit(tmp_path) == commit


def test_what_is_no_text_is_no_commit(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_bytes(b"\xff\xfe")
    assert source_commit(tmp_path) == ""
