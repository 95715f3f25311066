"""Measures and tables of scores beside the methods that were trained."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from qhk.evaluation.results import VALUE, Moment
from qhk.report.compare import compare
from qhk.report.content import ReportOptions, gather
from qhk.report.modules import compare_modules
from qhk.report.runs import read_runs
from qhk.report.scoring import of_policies
from qhk.report.views import choose_view, views
from tests.report.builders import write_run, write_scorer

BENCHMARKS = ("koniq", "kadid")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outputs")
    for seed in range(2):
        write_run(root, "ours", seed, noise=0.4, config={})
    write_scorer(root, "0123", noise=1.5, scorer={"form": "brisque"}, benchmarks=BENCHMARKS)
    table = {"form": "table", "path": "/data/their.csv"}
    write_scorer(root, "4567", noise=0.8, scorer=table, benchmarks=BENCHMARKS)
    return root


def test_a_scorer_stands_in_every_table_with_intervals_and_tests(outputs: Path) -> None:
    runs = read_runs(outputs)
    assert set(runs.methods) == {"ours", "brisque", "their"}
    assert views(runs) == [(Moment.AFTER, "mean4"), (Moment.BEFORE, "mean4")]
    for moment in ("after", "before"):
        view = choose_view(runs, metric="srcc", moment=moment, readout=None)
        assert (view.readout, set(view.benchmarks)) == ("mean4", set(BENCHMARKS))
        table, _ = compare(runs, view, reference="ours", num_resamples=100)
        assert table.num_images == {"koniq": 60, "kadid": 60} and not table.left_out
        for method in ("brisque", "their"):
            interval = table.cells[method]["koniq"].interval
            assert interval.low < table.cells[method]["koniq"].mean < interval.high
            assert not math.isnan(table.against[method]["average"].p)
        assert table.average["brisque"].mean < table.average["their"].mean < 1


def test_scorers_are_no_modules(outputs: Path) -> None:
    runs = read_runs(outputs)
    view = choose_view(runs, metric="srcc", moment="after", readout=None)
    _, scored = compare(runs, view, num_resamples=100)
    assert len(scored["koniq"].records) == 4
    assert [record.method for record in of_policies(scored)["koniq"].records] == ["ours", "ours"]
    assert compare_modules(view, scored) is None  # the two runs differ in their seed alone


def test_errors_of_a_scorer_without_a_scale_are_missing(outputs: Path) -> None:
    runs = read_runs(outputs)
    view = choose_view(runs, metric="mae", moment="after", readout=None)
    table, _ = compare(runs, view, num_resamples=0)
    assert table.cells["brisque"]["koniq"].missing == {0: "not measured"}
    assert table.cells["ours"]["koniq"].values


def test_scorers_alone_are_a_report(tmp_path: Path) -> None:
    write_scorer(tmp_path, "0", noise=1.0, scorer={"form": "piqe"}, benchmarks=("koniq",))
    write_scorer(tmp_path, "1", noise=1.0, scorer={"form": "piqe"}, benchmarks=("kadid",))
    named = {"form": "table", "path": "x.csv", "label": "their best"}
    write_scorer(tmp_path, "2", noise=1.0, scorer=named, benchmarks=("koniq",))
    runs = read_runs(tmp_path)
    assert set(runs.methods) == {"piqe (0)", "piqe (1)", "their best"}
    assert views(runs) == [(Moment.AFTER, VALUE)]
    options = ReportOptions(title="t", reference=None, num_resamples=20, confidence=0.95, thumbnails=False)
    content = gather(runs, options, lambda what, done, of: None)
    assert [found["benchmark"] for found in content["images"]] == ["koniq", "kadid"]
    assert content["tables"][0]["rows"]["their best"]["koniq"]["mean"] is not None
