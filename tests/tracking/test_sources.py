"""Which files of a user's own modules make up a reward: all it imports, but nothing that is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qhk.tracking.sources import own_sources


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def _places(*modules: str) -> list[str]:
    return [source.place for source in own_sources(modules, apart=["qhk"])]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_module_and_all_it_imports_in_turn(here: Path) -> None:
    _write(
        here,
        {
            "src_top.py": "import json\nimport numpy\nimport src_helper\nfrom qhk.types import Example\n",
            "src_helper.py": "def f():\n    from src_late import x\n    return x\n",
            "src_late.py": "import src_top\nx = 1\n",
            "src_unused.py": "",
        },
    )
    assert _places("src_top") == ["src_helper.py", "src_late.py", "src_top.py"]
    assert own_sources(["src_late"], apart=["qhk"])[0].path == here / "src_helper.py"


def test_packages_come_with_their_parents_and_relative_imports(here: Path) -> None:
    _write(
        here,
        {
            "src_kit/__init__.py": "from .base import BASE\n",
            "src_kit/base.py": "BASE = 1\n",
            "src_kit/inner/__init__.py": "",
            "src_kit/inner/rewards.py": "from ..other import a\nfrom . import near\nimport src_kit.base\n",
            "src_kit/inner/near.py": "",
            "src_kit/other.py": "a = 1\n",
            "src_kit/unused.py": "",
        },
    )
    assert _places("src_kit.inner.rewards") == [
        "src_kit/__init__.py",
        "src_kit/base.py",
        "src_kit/inner/__init__.py",
        "src_kit/inner/near.py",
        "src_kit/inner/rewards.py",
        "src_kit/other.py",
    ]


def test_a_folder_without_init_is_a_package_too(here: Path) -> None:
    _write(
        here, {"src_folder/mine.py": "from src_folder.deep.more import x\n", "src_folder/deep/more.py": ""}
    )
    assert _places("src_folder.mine") == ["src_folder/deep/more.py", "src_folder/mine.py"]


def test_what_is_installed_built_in_or_nowhere_is_left_out(here: Path) -> None:
    installed = here / "lib/site-packages"
    _write(installed, {"src_installed/__init__.py": "", "src_installed/rewards.py": ""})
    sys.path.insert(0, str(installed))
    try:
        assert _places("src_installed.rewards", "json.decoder", "builtins", "torch.nn", "src_nowhere.x") == []
    finally:
        sys.path.remove(str(installed))


def test_nothing_is_executed_and_a_module_that_does_not_parse_is_still_seen(here: Path) -> None:
    _write(here, {"src_loud.py": "raise RuntimeError\n", "src_broken.py": "import src_loud\ndef (\n"})
    assert _places("src_broken", "src_loud") == ["src_broken.py", "src_loud.py"]
    assert "src_loud" not in sys.modules
