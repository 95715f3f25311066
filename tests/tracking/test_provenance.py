"""What made a run: digests that see content only, and comparisons."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qhk.tracking import provenance
from qhk.tracking.provenance import Provenance


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
