"""Command lines, run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qhk.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def qhk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in an empty directory: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run
