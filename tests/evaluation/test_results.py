"""results.json: what is written, upserted, refused and averaged."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from qhk.evaluation import results
from qhk.evaluation.results import Moment, Results
from tests.evaluation.builders import NAN, row


def update(path: Path, *rows: results.ResultRow, run_id: str = "abc", **wall_times: float) -> Results:
    return results.update_results(path, seed=3, run_id=run_id, wall_times=wall_times, rows=rows)


def test_round_trip_keeps_nan_through_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    update(path, row(srcc=NAN), train_s=1.5)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["rows"][0]["metrics"]["srcc"] == {"value": None, "low": None, "high": None}
    assert content["rows"][0]["moment"] == "before"
    assert (content["seed"], content["run_id"], content["wall_times"]) == (3, "abc", {"train_s": 1.5})
    back = results.read_results(path).rows[0]
    assert math.isnan(back.metrics["srcc"].value)
    assert back.metrics["plcc"].value == 0.7
    assert back.moment is Moment.BEFORE


def test_rows_of_earlier_versions_call_the_moment_stage(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    update(path, row(moment=Moment.AFTER))
    path.write_text(path.read_text().replace('"moment"', '"stage"'))
    assert [old.key for old in results.read_results(path).rows] == [row(moment=Moment.AFTER).key]
    assert len(update(path, row(moment=Moment.AFTER)).rows) == 1
    assert '"stage"' not in path.read_text()


def test_same_key_replaces_in_place_other_keys_append(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    update(path, row("koniq", srcc=0.1), row("spaq"), before_s=1.0)
    update(path, row("koniq", srcc=0.9), row("koniq", step=5), row("koniq", readout="greedy"), after_s=2.0)
    update(path, row("koniq", moment=Moment.AFTER), before_s=3.0)
    found = results.read_results(path)
    assert [item.key for item in found.rows] == [
        ("koniq", 0, Moment.BEFORE, "mean8"),
        ("spaq", 0, Moment.BEFORE, "mean8"),
        ("koniq", 5, Moment.BEFORE, "mean8"),
        ("koniq", 0, Moment.BEFORE, "greedy"),
        ("koniq", 0, Moment.AFTER, "mean8"),
    ]
    assert found.rows[0].metrics["srcc"].value == 0.9
    assert found.wall_times == {"before_s": 3.0, "after_s": 2.0}


def test_results_of_another_run_are_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    update(path, row())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="belongs to run abc seed 3, not xyz seed 3"):
        update(path, row(), run_id="xyz")
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["{", '{"rows": []}', '{"seed":0,"run_id":"a","wall_times":{},"rows":[{}]}'])
def test_foreign_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"results\.json is not a results file"):
        results.read_results(path)


def test_a_mean_is_over_all_benchmarks_or_not_there() -> None:
    rows = [row("koniq", srcc=0.4), row("spaq", srcc=0.8)]
    summary = results.summarise(rows, min_parsed_fraction=0.95)
    assert summary.means["srcc"] == pytest.approx(0.6) and not summary.left_out
    measure = results.Measure(value=0.5, low=NAN, high=NAN)
    words = replace(row("pairs"), form="comparison", metrics={"accuracy": measure})
    for fault, reason in (
        (row("csiq", srcc=0.99, n_parsed=94), "94 of 100 images parsed (under 95%)"),
        (row("csiq", srcc=NAN), "no correlation (constant predictions or too few images)"),
    ):
        summary = results.summarise([*rows, fault, words], min_parsed_fraction=0.95)
        assert math.isnan(summary.means["srcc"]) and math.isnan(summary.means["plcc"])
        assert summary.means["accuracy"] == 0.5
        assert summary.left_out == {"csiq": reason}


def test_exactly_the_wanted_fraction_counts() -> None:
    assert not results.summarise([row(n_parsed=95)], min_parsed_fraction=0.95).left_out


def test_nothing_counted_is_nan() -> None:
    summary = results.summarise([row(n_parsed=0)], min_parsed_fraction=0.95)
    assert math.isnan(summary.means["srcc"])
