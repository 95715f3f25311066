"""The list of a checkpoint's files."""

from __future__ import annotations

import json
from pathlib import Path

from qhk.policy.contents import CONTENTS_FILE, folder_fault, write_contents


def test_hidden_files_are_nobodys(tmp_path: Path) -> None:
    """What a file manager writes into the folder, before or after, changes nothing."""
    (tmp_path / "a").write_text("1")
    (tmp_path / ".DS_Store").write_text("1")
    write_contents(tmp_path)
    assert [*json.loads((tmp_path / CONTENTS_FILE).read_text())] == ["a"]
    (tmp_path / ".DS_Store").write_text("changed")
    assert folder_fault(tmp_path) == ("", True)


def test_a_file_that_is_left_out_is_not_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("1")
    write_contents(tmp_path)
    (tmp_path / "b").write_text("2")
    assert folder_fault(tmp_path, left_out=["b"]) == ("", True)
    assert folder_fault(tmp_path) == ("b is not what was written", True)
