"""The code that a run depends on: a user's own modules, and which code computed which steps."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from qhk.tracking.code import CODE_FILE, code_digest, code_text, note_code, own_sources, read_code_parts
from qhk.tracking.provenance import gather_provenance, write_provenance


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


def _start(directory: Path, code: str, *, behind: int) -> list[tuple[int, str]]:
    """The parts after a start by ``code`` that went on behind a step."""
    provenance = gather_provenance(code=code, data_fingerprints={}, accelerators=[], threads=1)
    write_provenance(directory / "provenance.json", provenance)
    parts = note_code(directory, step=behind)
    assert parts == read_code_parts(directory)
    return [(part.after_step, part.code) for part in parts]


def test_a_run_of_one_code_is_one_part_however_often_it_resumes(tmp_path: Path) -> None:
    assert read_code_parts(tmp_path) == []
    for behind in (-1, 0, 4, 8, 8):
        assert _start(tmp_path, "a", behind=behind) == [(-1, "a")]


def test_each_change_is_a_part(tmp_path: Path) -> None:
    _start(tmp_path, "a", behind=-1)
    assert _start(tmp_path, "b", behind=4) == [(-1, "a"), (4, "b")]
    assert _start(tmp_path, "b", behind=6) == [(-1, "a"), (4, "b")]
    assert _start(tmp_path, "a", behind=9) == [(-1, "a"), (4, "b"), (9, "a")]
    assert code_text(read_code_parts(tmp_path)) == "a, behind step 4 b, behind step 9 a"


def test_steps_that_are_taken_again_belong_to_who_takes_them(tmp_path: Path) -> None:
    _start(tmp_path, "a", behind=-1)
    _start(tmp_path, "b", behind=4)
    assert _start(tmp_path, "c", behind=4) == [(-1, "a"), (4, "c")]
    assert _start(tmp_path, "a", behind=2) == [(-1, "a")]
    assert _start(tmp_path, "b", behind=0) == [(-1, "a"), (0, "b")], "the cold start stays a's"
    assert _start(tmp_path, "c", behind=-1) == [(-1, "c")]


def test_a_run_of_an_earlier_version_has_no_record(tmp_path: Path) -> None:
    _start(tmp_path, "a", behind=-1)
    (tmp_path / CODE_FILE).unlink()
    assert _start(tmp_path, "b", behind=4) == [(-1, "a"), (4, "b")]


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_digest_sees_content_and_names_not_place_or_time(tmp_path: Path) -> None:
    files = {"a.py": "x = 1\n", "sub/b.yaml": "k: 1\n"}
    one, two = tree(tmp_path / "one", files), tree(tmp_path / "two", files)
    os.utime(two / "a.py", (0, 0))
    tree(two, {"__pycache__/a.cpython-311.pyc": "bytes", "notes.txt": "x"})
    digest = code_digest({"qhk": one})
    assert digest == code_digest({"qhk": two})
    assert digest != code_digest({"conf": one})
    tree(two, {"a.py": "x = 2\n"})
    assert digest != code_digest({"qhk": two})


def test_digest_tells_a_moved_line_and_a_renamed_file(tmp_path: Path) -> None:
    variants = [
        {"a.py": "1\n2\n", "b.py": ""},
        {"a.py": "1\n", "b.py": "2\n"},
        {"a.py": "1\n2\n", "c.py": ""},
    ]
    digests = {
        code_digest({"qhk": tree(tmp_path / str(place), files)}) for place, files in enumerate(variants)
    }
    assert len(digests) == 3


def test_digest_sees_the_modules_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "code", {"a.py": ""})
    tree(tmp_path, {"my_rewards.py": "x = 1\n", "kit/__init__.py": "", "kit/rewards.py": "x = 1\n"})
    monkeypatch.syspath_prepend(tmp_path)
    alone = code_digest({"qhk": root})
    seen = {alone}
    for name, file in (("my_rewards", "my_rewards.py"), ("kit.rewards", "kit/rewards.py")):
        for text in ("x = 1\n", "x = 2\n"):
            tree(tmp_path, {file: text})
            seen.add(code_digest({"qhk": root}, [name]))
    assert len(seen) == 5
    assert code_digest({"qhk": root}, ["builtins"]) == alone


def test_empty_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="code tree conf at .* holds no"):
        code_digest({"conf": tmp_path})
