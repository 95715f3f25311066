"""The average over sets that no method trained on, and what methods do about perturbed images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qhk.evaluation.results import Measure, Moment, PerturbedRow, update_results
from qhk.report.compare import ComparisonTable, compare
from qhk.report.content import ReportOptions, gather
from qhk.report.render import as_csv, as_latex
from qhk.report.runs import read_runs
from qhk.report.terminal import comparison_table
from qhk.report.views import View
from tests.report.builders import write_run, write_scorer

SETS = ("koniq", "kadid", "csiq")
VIEW = View(metric="srcc", moment=Moment.AFTER, readout="mean4", benchmarks=SETS)


def table(root: Path) -> ComparisonTable:
    return compare(read_runs(root), VIEW, num_resamples=100)[0]


def trained(
    root: Path, method: str, *, seen: tuple[str, ...] | None, config: dict[str, Any], noise: float
) -> None:
    for seed in range(2):
        write_run(root, method, seed, noise=noise, config=config, benchmarks=SETS, seen=seen)


def test_sets_that_any_method_saw_are_left_out(tmp_path: Path) -> None:
    trained(tmp_path, "a", seen=("koniq",), config={}, noise=0.3)
    trained(tmp_path, "b", seen=("koniq",), config={}, noise=1.2)
    write_scorer(tmp_path, "0", noise=1.0, scorer={"form": "brisque"}, benchmarks=SETS)
    found = table(tmp_path)
    assert found.averaged == SETS and found.unseen_sets == ("kadid", "csiq")
    for method in ("a", "brisque"):
        cells = [found.cells[method][name].mean for name in found.unseen_sets]
        assert found.unseen[method].mean == pytest.approx(np.mean(cells))
    assert found.unseen["a"].interval.low < found.unseen["a"].mean < found.unseen["a"].interval.high
    assert found.unseen["a"].best and not found.unseen["b"].best
    difference = found.against["b"]["unseen"]
    assert difference.value == pytest.approx(found.unseen["b"].mean - found.unseen["a"].mean)
    assert difference.p < 0.05
    assert str(comparison_table(found).columns[-1].header) == "unseen"


def test_an_older_run_saw_the_sets_of_its_settings(tmp_path: Path) -> None:
    parts = {"data": {"koniq": 1.0}, "stages": {"last": {"data": {"csiq": 2.0}}}, "benchmark": {"kadid": {}}}
    trained(tmp_path, "a", seen=None, config=parts, noise=0.5)
    assert table(tmp_path).unseen_sets == ("kadid",)


@pytest.mark.parametrize("seen", [(), SETS])
def test_there_is_no_such_average_where_all_or_none_are_unseen(seen: tuple[str, ...], tmp_path: Path) -> None:
    trained(tmp_path, "a", seen=seen, config={}, noise=0.5)
    found = table(tmp_path)
    assert found.unseen_sets == () and found.unseen == {}


def perturbed(
    step: int, above: float, *, strength: int | None, drop: float, moment: Moment = Moment.AFTER
) -> PerturbedRow:
    values = {"above": above, "drop": drop, "unchanged": 0.0}
    return PerturbedRow(
        benchmark="koniq", step=step, moment=moment, readout="mean4", family="degradation", kind="blur",
        strength=strength, amount=None, n=10, n_pairs=9,
        metrics={name: Measure(value=value, low=value, high=value) for name, value in values.items()},
    )  # fmt: skip


def test_the_report_has_both(tmp_path: Path) -> None:
    trained(tmp_path, "a", seen=("koniq",), config={}, noise=0.5)
    # What a supervised control ends with stands beside what others end with.
    for seed, above, end in ((0, 0.6, Moment.AFTER), (1, 0.8, Moment.CONTROL)):
        rows = [perturbed(0, 0.0, strength=None, drop=0.0)]
        rows += [perturbed(20, above, strength=None, drop=1.0, moment=end)]
        rows += [perturbed(20, above, strength=step, drop=step * above, moment=end) for step in (1, 2)]
        path = tmp_path / f"study/a/seed{seed}/results.json"
        update_results(path, seed=seed, run_id="0", wall_times={}, rows=[], perturbed=rows)
    runs = read_runs(tmp_path)
    options = ReportOptions(title="t", reference=None, num_resamples=20, confidence=0.95, thumbnails=False)
    content = gather(runs, options, lambda what, done, of: None)
    (found,) = content["perturbed"]
    assert (found["benchmark"], found["moment"], found["kind"]) == ("koniq", "after", "blur")
    assert found["methods"]["a"] == {
        "runs": 2, "n": 20, "n_pairs": 18, "above": 0.7, "drop": 1.0, "unchanged": 0.0, "strength_srcc": None,
        "above_by_strength": [0.7, 0.7], "drop_by_strength": [0.7, 1.4],
    }  # fmt: skip
    shown = content["tables"][0]
    assert shown["unseen"] == ["kadid", "csiq"]
    assert shown["rows"]["a"]["unseen"]["mean"] is not None
    assert ",unseen," in as_csv(content["tables"]) and "& unseen" in as_latex(shown)
    assert len(runs.perturbed) == 2 * 4 * 3
    reliability = content["images"][0]["reliability"]["a"]
    assert reliability["no_opinions"] == "the number of ratings per image is not known"
    assert 0 < reliability["coverage"] <= 1 and reliability["sparsification"]["share"][0] == 0
