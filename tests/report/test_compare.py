"""Methods held against each other: values, intervals, marks, modules, and what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qhk.errors import UserError
from qhk.evaluation.results import Moment
from qhk.report.compare import compare
from qhk.report.modules import compare_modules, find_modules
from qhk.report.runs import Runs, read_runs
from qhk.report.terminal import list_table
from qhk.report.views import View, views
from qhk.statistics.dependent import field_tests
from tests.report.builders import module_config, write_modules, write_run

VIEW = View(metric="srcc", moment=Moment.AFTER, readout="mean4", benchmarks=("kadid", "koniq"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield write_modules(tmp_path_factory.mktemp("runs"), seeds=3)


@pytest.fixture(scope="module")
def runs(study: Path) -> Runs:
    return read_runs(study)


def test_views_begin_after_training(runs: Runs) -> None:
    assert views(runs) == [(Moment.AFTER, "mean4"), (Moment.BEFORE, "mean4")]


def test_means_spreads_and_average(runs: Runs) -> None:
    table, scored = compare(runs, VIEW, num_resamples=100)
    rows = runs.results.query("metric == 'srcc' and moment == 'after' and method == 'full'")
    values = rows[rows.benchmark == "kadid"].value
    cell = table.cells["full"]["kadid"]
    assert cell.mean == pytest.approx(values.mean()) and cell.std == pytest.approx(values.std())
    assert cell.interval.low < cell.mean < cell.interval.high
    average = table.average["full"]
    assert average.mean == pytest.approx(rows.value.mean())
    assert table.averaged == ("kadid", "koniq") and not average.missing
    assert (table.num_images["kadid"], table.num_references["kadid"]) == (60, 12)
    assert scored["kadid"].scores.value[0] == pytest.approx(cell.values[0])


def test_differences_from_the_reference_are_corrected(runs: Runs) -> None:
    table, _ = compare(runs, VIEW, reference="grpo_baseline", num_resamples=100)
    difference = table.against["full"]["average"]
    assert difference.value == pytest.approx(table.average["full"].mean - table.average["grpo_baseline"].mean)
    assert difference.low > 0 and difference.p < 0.05
    turned, _ = compare(runs, VIEW, reference="full", num_resamples=100)
    assert turned.against["grpo_baseline"]["average"].value == pytest.approx(-difference.value)
    assert turned.against["grpo_baseline"]["average"].high == pytest.approx(-difference.low)
    assert set(table.against) == {"full", "without_perception", "without_uncertainty"}


def test_the_fields_tests_stand_beside(runs: Runs) -> None:
    table, scored = compare(runs, VIEW, reference="grpo_baseline", num_resamples=100)
    own, other = (table.cells[method]["kadid"].values for method in ("full", "grpo_baseline"))
    above = np.mean([(a > b) + (a == b) / 2 for a in own.values() for b in other.values()])
    assert table.improvement["full"]["kadid"] == pytest.approx(above)
    assert table.improvement["full"]["average"] == pytest.approx(
        (above + table.improvement["full"]["koniq"]) / 2
    )
    found = scored["kadid"]
    means = [
        found.answers[[place for place, record in enumerate(found.records) if record.method == name]].mean(
            axis=0
        )
        for name in ("full", "grpo_baseline")
    ]
    expected = field_tests(*means, found.opinions, ranked=True, on_scale=True, confidence=0.95)
    assert table.field["full"]["kadid"] == expected and expected.difference > 0 and expected.rmse_p < 1
    assert "grpo_baseline" not in table.field
    errors, _ = compare(runs, replace(VIEW, metric="rmse"), reference="grpo_baseline", num_resamples=0)
    assert errors.improvement["full"]["average"] > 0.5 and not errors.field["full"]
    rmse = np.sqrt(np.mean((found.answers[0] - found.opinions) ** 2))
    assert rmse == pytest.approx(errors.cells[found.records[0].method]["kadid"].values[found.records[0].seed])


def test_marks_are_shared_by_what_no_test_tells_apart(runs: Runs) -> None:
    table, _ = compare(runs, VIEW, num_resamples=100)
    best = {name for name, cell in table.average.items() if cell.best}
    assert best == {"full", "without_perception"}
    assert not any(cell.second for cell in table.average.values())


def test_equal_methods_are_not_marked(tmp_path: Path) -> None:
    for method in ("a", "b"):
        for seed in range(2):
            write_run(tmp_path, method, seed, noise=0.5, config={})
    table, _ = compare(read_runs(tmp_path), VIEW, num_resamples=100)
    assert not any(cell.best for cell in table.average.values())


def test_modules_and_their_sentences(runs: Runs) -> None:
    _, scored = compare(runs, VIEW, num_resamples=100)
    found = compare_modules(VIEW, scored)
    assert found is not None
    effects, sentences = found
    by_name = {effect.name: effect for effect in effects.effects}
    assert by_name["uncertainty=linear"].estimate.low > 0
    assert by_name["uncertainty=linear"].p_adjusted < 0.05
    assert by_name["perception=kl"].p_adjusted > 0.05
    assert sentences[0].startswith("perception=kl") or sentences[0].startswith("uncertainty=linear: +")
    assert any("no effect shown" in line for line in sentences)


def test_modules_by_hand() -> None:
    class Record:
        def __init__(self, seed: int = 0, **config: object) -> None:
            self.config, self.seed = config, seed

    records = [
        Record(**{"uncertainty.form": "linear", "uncertainty.alpha": 0.5, "perception.eta": 0.1}),
        Record(**{"uncertainty.form": "none", "perception.eta": 0.1, "dataset.k.root": "elsewhere"}),
        Record(**{"uncertainty.form": "linear", "uncertainty.alpha": 0.5, "perception.eta": 0}),
    ]
    assert find_modules(records) == {  # type: ignore[arg-type]
        "uncertainty": ["linear", "none", "linear"],
        "perception.eta": ["0.1", "0.1", "none"],
    }
    learners = [
        Record(**{"optimizer.lr": lr, "training.learner": name})
        for lr, name in ((4e-4, "reinforcement"), (1e-3, "supervised"))
    ]
    assert find_modules(learners) == {  # type: ignore[arg-type]
        "optimizer + training": ["reinforcement", "supervised"]
    }


def test_a_start_of_each_seed_is_no_module(tmp_path: Path) -> None:
    for method, on in (("base", False), ("full", True)):
        for seed in range(3):
            config = module_config(uncertainty=on, perception=False) | {"model": {"path": f"starts/{seed}"}}
            write_run(tmp_path, method, seed, noise=0.4 if on else 0.9, config=config)
    records = read_runs(tmp_path).records
    assert list(find_modules(records)) == ["uncertainty"]
    assert "model.path" in find_modules([one for one in records if (one.method == "full") == (one.seed > 0)])


def test_the_end_of_the_supervised_control_is_tested_beside_others(tmp_path: Path) -> None:
    for method, noise in (("full", 0.2), ("control", 1.5)):
        for seed in range(3):
            written = write_run(tmp_path, method, seed, noise=noise, config={}) / "results.json"
            if method == "control":
                written.write_text(written.read_text().replace('"after"', '"control"'))
    runs = read_runs(tmp_path)
    assert views(runs) == [(Moment.AFTER, "mean4"), (Moment.BEFORE, "mean4")]
    table, _ = compare(runs, VIEW, reference="control", num_resamples=100)
    assert len(table.average["control"].values) == 3
    assert all(list_table(runs).columns[5].cells)  # "SRCC after"
    assert table.against["full"]["average"].low > 0 and table.average["full"].best


def test_missing_and_failed_runs_are_said(tmp_path: Path) -> None:
    config = module_config(uncertainty=True, perception=True)
    write_run(tmp_path, "whole", 0, noise=0.4, config=config)
    write_run(tmp_path, "whole", 1, noise=0.4, config=config, state="failed", cause="loss is NaN")
    write_run(tmp_path, "part", 0, noise=0.4, config=config, benchmarks=("koniq",))
    table, _ = compare(read_runs(tmp_path), VIEW, num_resamples=50)
    assert table.cells["whole"]["kadid"].missing == {1: "failed: loss is NaN"}
    assert table.cells["part"]["kadid"].missing == {0: "not measured"}
    assert math.isnan(table.cells["part"]["kadid"].mean)
    assert table.averaged == ("koniq",)
    assert table.average["whole"].mean == pytest.approx(table.cells["whole"]["koniq"].mean)


def test_only_images_that_all_answered_are_tested(tmp_path: Path) -> None:
    for method in ("a", "b"):
        run = write_run(tmp_path, method, 0, noise=0.5, config={})
    path = next(run.glob("predictions/step_000020/mean4/kadid.jsonl"))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[5:]))
    table, scored = compare(read_runs(tmp_path), VIEW, num_resamples=50)
    assert table.num_images == {"kadid": 55, "koniq": 60}
    assert np.isfinite(scored["kadid"].scores.redrawn).all()


def test_without_predictions_there_are_values_but_no_tests(tmp_path: Path) -> None:
    run = write_run(tmp_path, "a", 0, noise=0.5, config={})
    for path in run.glob("predictions/*/*/*.jsonl"):
        path.unlink()
    table, scored = compare(read_runs(tmp_path), VIEW, num_resamples=50)
    cell = table.cells["a"]["kadid"]
    assert not scored and cell.mean > 0 and math.isnan(cell.interval.low)


def test_an_unknown_reference_is_an_error(runs: Runs) -> None:
    with pytest.raises(UserError, match="reference=nobody: no such method; there are full"):
        compare(runs, VIEW, reference="nobody")


def rewrite(run: Path, benchmark: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Change the predictions after training of one benchmark; a row that becomes None is dropped."""
    path = run / "predictions" / "step_000020" / "mean4" / f"{benchmark}.jsonl"
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row is not None))


def study_of(tmp_path: Path, *methods: str, seeds: int = 2) -> dict[str, Path]:
    config = {"evaluation": {"min_parsed_fraction": 0.5}}
    return {
        f"{method}{seed}": write_run(tmp_path, method, seed, noise=0.4 + 0.5 * place, config=config)
        for place, method in enumerate(methods)
        for seed in range(seeds)
    }


def test_a_run_that_answers_little_does_not_count_and_takes_no_test_away(tmp_path: Path) -> None:
    runs = study_of(tmp_path, "a", "b")
    results = json.loads((runs["a1"] / "results.json").read_text())
    for row in results["rows"]:
        row["n_parsed"] = 2
    (runs["a1"] / "results.json").write_text(json.dumps(results))
    rewrite(runs["a1"], "kadid", lambda row: row if row["id"] in ("00_0.png", "00_1.png") else None)
    table, _ = compare(read_runs(tmp_path), VIEW, num_resamples=50)
    assert table.cells["a"]["kadid"].missing == {1: "2 of 60 images parsed (under 50%)"}
    assert table.num_images["kadid"] == 60 and table.against["b"]["kadid"].p <= 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda row: {**row, "mos": 1.5}, "other opinions of the same images"),
        (lambda row: {**row, "clipped": 3.0}, "no value over the images that all runs answered"),
        (lambda row: {"id": row["id"]}, "is no prediction"),
        (lambda row: None, "no predictions"),
    ],
)
def test_runs_in_no_test_are_said(
    change: Callable[[dict[str, Any]], dict[str, Any] | None], reason: str, tmp_path: Path
) -> None:
    runs = study_of(tmp_path, "a", "b")
    rewrite(runs["b1"], "kadid", change)
    table, scored = compare(read_runs(tmp_path), VIEW, num_resamples=50)
    assert reason in table.left_out["kadid"]["b/seed1"] and len(scored["kadid"].records) == 3
    assert table.num_images["kadid"] == 60 and not math.isnan(table.against["b"]["kadid"].p)


def test_references_are_taken_from_any_run_that_knows_them(tmp_path: Path) -> None:
    runs = study_of(tmp_path, "a", "b", seeds=1)
    rewrite(runs["a0"], "kadid", lambda row: {k: v for k, v in row.items() if k != "reference"})
    table, _ = compare(read_runs(tmp_path), VIEW, num_resamples=20)
    assert table.num_references["kadid"] == 12


def test_one_seed_is_tested_but_not_marked(tmp_path: Path) -> None:
    for method, noise in (("good", 0.1), ("bad", 2.0)):
        write_run(tmp_path, method, 0, noise=noise, config={})
    table, _ = compare(read_runs(tmp_path), VIEW, num_resamples=100)
    assert table.against["good"]["average"].p < 0.05
    assert not any(cell.best for cell in table.average.values())


def test_an_extra_benchmark_of_one_method_leaves_the_effects(tmp_path: Path) -> None:
    for method, on in (("with", True), ("without", False)):
        for seed in range(2):
            sets = ("koniq", "kadid", "spaq") if on else ("koniq", "kadid")
            config = module_config(uncertainty=on, perception=False)
            write_run(tmp_path, method, seed, noise=0.4 if on else 0.9, config=config, benchmarks=sets)
    runs = read_runs(tmp_path)
    view = View(metric="srcc", moment=Moment.AFTER, readout="mean4", benchmarks=("kadid", "koniq", "spaq"))
    table, scored = compare(runs, view, num_resamples=50)
    found = compare_modules(view, scored)
    assert table.averaged == ("kadid", "koniq") and found is not None
    assert found[0].effects[0].name == "uncertainty=linear"


def test_modules_that_no_run_tells_apart_are_named_together(tmp_path: Path) -> None:
    for method, on in (("base", False), ("full", True)):
        for seed in range(2):
            write_run(tmp_path, method, seed, noise=0.5, config=module_config(uncertainty=on, perception=on))
    levels = find_modules(read_runs(tmp_path).records)
    assert list(levels) == ["perception + uncertainty"]
