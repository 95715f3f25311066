"""``qhk evaluate`` with scorers that are no policy, and their place in ``qhk runs compare``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qhk.config import check
from tests.conftest import Qhk

SET = "benchmark={miniature_koniq:{limit:12}}"


@pytest.fixture
def cache(tmp_path: Path, miniature_cache: Path) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "cache").symlink_to(miniature_cache)


@pytest.mark.usefixtures("cache")
def test_a_measure_and_a_table_are_evaluated_and_compared(qhk: Qhk, tmp_path: Path) -> None:
    code, out, err = qhk("evaluate", "scorer=piqe", SET)
    assert code == 0 and "read-out value" in out, err
    folder = Path(out.splitlines()[-1].removeprefix("results: "))
    (row,) = json.loads((folder / "results.json").read_text())["rows"]
    assert (row["n"], row["readout"], row["moment"], row["seen"]) == (12, "value", "after", False)
    again = qhk("evaluate", "scorer=piqe", SET)[1]
    assert again == out
    lines = (folder / "predictions/step_000000/value/miniature_koniq.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    table = tmp_path / "their.csv"
    table.write_text("name,score\n" + "".join(f"{item['id']},{item['mos']}\n" for item in found))
    words = ["scorer=table", f"scorer.path={table}", "scorer.trained_on=[miniature_koniq]", SET]
    code, out, err = qhk("evaluate", *words)
    assert code == 0, err
    theirs = Path(out.splitlines()[-1].removeprefix("results: "))
    (row,) = json.loads((theirs / "results.json").read_text())["rows"]
    assert row["metrics"]["srcc"]["value"] == pytest.approx(1.0) and row["seen"] is True
    code, out, err = qhk("runs", "compare", "evaluations")
    assert code == 0 and "piqe" in out and "their" in out, err


def test_corruptions_without_their_library_are_refused_first(
    qhk: Qhk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    for command in ("train", "evaluate"):
        code, _, err = qhk(command, "perturbation=corruptions", "checkpoint=null")
        expected = "perturbation.corruptions: needs imagecorruptions; pip install 'qhk[robustness]'"
        assert code == 2 and expected in err and err.count("\n") == 1


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scorer=table", SET], "scorer.path: missing, got null; give a CSV"),
        (["scorer=table", "scorer.path=nowhere.csv", SET], "nowhere.csv: cannot be read"),
        (["scorer=niqe", SET], "is 64x64, and niqe needs 193 pixels"),
        (["scorer=piqe", "checkpoint=x", SET], "checkpoint=x: has no effect on scorer=piqe"),
        (["scorer=piqe", "stage=x", SET], "stage=x: has no effect on scorer=piqe"),
        (["scorer=piqe", "benchmark=[]"], "benchmark: is empty"),
        (
            ["scorer=table", "scorer.path=x.csv", "perturbation=degradations"],
            "a table has no scores of perturbed copies",
        ),
        (["scorer=piqe", "mixture=degradation"], "task degradation is answered in words"),
        (["scorer=nique"], "scorer has no option 'nique'"),
    ],
)
def test_mistakes_are_one_line(qhk: Qhk, words: list[str], message: str) -> None:
    code, _, err = qhk("evaluate", *words)
    assert code == 2 and message in err and err.count("\n") == 1
