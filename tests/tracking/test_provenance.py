"""What made a run: digests that see content only, and comparisons."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from qhk.tracking import provenance
from qhk.tracking.provenance import Provenance


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def made(**changes: object) -> Provenance:
    base = Provenance(
        code_digest="a" * 64,
        data_fingerprints={"koniq": "1", "spaq": "2"},
        packages={"torch": "2.13"},
        python="3.11",
        hardware={"cores": 2},
        accelerators=[],
        threads=2,
    )
    return replace(base, **changes)


def test_digest_sees_content_and_names_not_place_or_time(tmp_path: Path) -> None:
    files = {"a.py": "x = 1\n", "sub/b.yaml": "k: 1\n"}
    one, two = tree(tmp_path / "one", files), tree(tmp_path / "two", files)
    os.utime(two / "a.py", (0, 0))
    tree(two, {"__pycache__/a.cpython-311.pyc": "bytes", "notes.txt": "x"})
    digest = provenance.code_digest({"qhk": one})
    assert digest == provenance.code_digest({"qhk": two})
    assert digest != provenance.code_digest({"conf": one})
    tree(two, {"a.py": "x = 2\n"})
    assert digest != provenance.code_digest({"qhk": two})


def test_digest_tells_a_moved_line_and_a_renamed_file(tmp_path: Path) -> None:
    variants = [
        {"a.py": "1\n2\n", "b.py": ""},
        {"a.py": "1\n", "b.py": "2\n"},
        {"a.py": "1\n2\n", "c.py": ""},
    ]
    digests = {
        provenance.code_digest({"qhk": tree(tmp_path / str(place), files)})
        for place, files in enumerate(variants)
    }
    assert len(digests) == 3


def test_digest_sees_the_modules_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "code", {"a.py": ""})
    tree(tmp_path, {"my_rewards.py": "x = 1\n", "kit/__init__.py": "", "kit/rewards.py": "x = 1\n"})
    monkeypatch.syspath_prepend(tmp_path)
    alone = provenance.code_digest({"qhk": root})
    seen = {alone}
    for name, file in (("my_rewards", "my_rewards.py"), ("kit.rewards", "kit/rewards.py")):
        for text in ("x = 1\n", "x = 2\n"):
            tree(tmp_path, {file: text})
            seen.add(provenance.code_digest({"qhk": root}, [name]))
    assert len(seen) == 5
    assert provenance.code_digest({"qhk": root}, ["builtins"]) == alone


def test_empty_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="code tree conf at .* holds no"):
        provenance.code_digest({"conf": tmp_path})


def test_gathered_provenance_survives_the_disk(tmp_path: Path) -> None:
    gathered = provenance.gather_provenance(
        code="c" * 64, data_fingerprints={"koniq": "f"}, accelerators=["H200"], threads=2
    )
    path = tmp_path / "provenance.json"
    provenance.write_provenance(path, gathered)
    assert provenance.read_provenance(path) == gathered
    assert gathered.packages["numpy"] and gathered.hardware["cores"] >= 1


def test_rewriting_keeps_what_differed(tmp_path: Path) -> None:
    path = tmp_path / "provenance.json"
    for item in (made(), made(), made(code_digest="b" * 64), made(code_digest="c" * 64)):
        provenance.write_provenance(path, item)
    content = json.loads(path.read_text())
    assert content["code_digest"] == "c" * 64
    assert [item["code_digest"][0] for item in content["earlier"]] == ["a", "b"]


def test_differences_name_what_changed() -> None:
    new = made(code_digest="b" * 64, data_fingerprints={"koniq": "1", "spaq": "3", "csiq": "4"})
    assert provenance.code_differences(made(), new) == ["code (aaaaaaaaaaaa, now bbbbbbbbbbbb)"]
    assert provenance.data_differences(made(), new) == ["data csiq", "data spaq"]
    assert provenance.code_differences(made(), made()) == provenance.data_differences(made(), made()) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"x": 1}'])
def test_foreign_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "provenance.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"provenance\.json is not a provenance file"):
        provenance.read_provenance(path)
