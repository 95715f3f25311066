"""The repository's own config, composed in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qhk.cli.catalogue import Catalogue, config_root, read_catalogue
from qhk.cli.compose import compose_config, plain_config
from qhk.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return read_catalogue(config_root())


@pytest.fixture(scope="session")
def compose_plain(catalogue: Catalogue) -> Callable[..., dict[str, Any]]:
    """The resolved plain config of a command and its overrides."""

    def compose(*overrides: str, command: str = "train") -> dict[str, Any]:
        return plain_config(compose_config(command, overrides, catalogue))

    return compose


@pytest.fixture
def qhk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in an empty directory: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run
