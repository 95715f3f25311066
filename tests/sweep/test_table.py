"""The means of a sweep: over benchmarks, then over the seeds that are done, before and after training."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from qhk.evaluation.results import Measure, Moment, ResultRow, update_results
from qhk.sweep.manifest import Manifest
from qhk.sweep.means import CellMeans, SweepMeans, sweep_means
from qhk.sweep.states import RunView
from qhk.sweep.table import means_table, status_view
from qhk.tracking.status import RunState, current_status
from tests.evaluation.builders import NAN, row
from tests.sweep.builders import MakeSweep

READOUT = "mean_of_8"


def view(manifest: Manifest, number: int, rows: Sequence[ResultRow], state: RunState) -> RunView:
    run = manifest.runs[number]
    path = run.directory / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    update_results(path, seed=run.seed, run_id="any", wall_times={}, rows=rows)
    return RunView(
        run=run, state=state, cause="", status=None, job="", active=False, unreachable="", eta_s=None
    )


def scores(before: Sequence[float], after: Sequence[float]) -> list[ResultRow]:
    rows = []
    for moment, step, values in ((Moment.BEFORE, 0, before), (Moment.AFTER, 9, after)):
        for name, srcc in zip(("koniq", "spaq"), values, strict=True):
            rows.append(row(name, moment=moment, step=step, readout=READOUT, srcc=srcc))
    return rows


def words(accuracy: float, moment: Moment) -> ResultRow:
    measure = Measure(value=accuracy, low=NAN, high=NAN)
    return replace(
        row("pairs", moment=moment, readout=READOUT), form="comparison", metrics={"accuracy": measure}
    )


def test_means_over_benchmarks_then_seeds(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("full", seeds=(0, 1, 2))
    views = [
        view(manifest, 0, scores((0.2, 0.4), (0.5, 0.7)), RunState.DONE),
        view(manifest, 1, scores((0.4, 0.6), (0.7, 0.9)), RunState.DONE),
        view(manifest, 2, scores((0.0, 0.0), (0.0, 0.0)), RunState.FAILED),
    ]
    (cell,) = sweep_means(manifest, views).cells
    assert (cell.n, cell.num_seeds) == (2, 3)
    assert cell.before["srcc"] == pytest.approx(0.4)
    assert cell.after["srcc"] == pytest.approx(0.7)
    assert cell.stds["srcc"] == pytest.approx(math.sqrt(2) * 0.1)
    assert "accuracy" not in cell.after


def test_a_run_without_a_correlation_does_not_count(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("full", seeds=(0, 1))
    views = [
        view(manifest, 0, scores((0.2, 0.4), (0.5, 0.7)), RunState.DONE),
        view(manifest, 1, scores((0.2, 0.4), (NAN, NAN)), RunState.DONE),
    ]
    means = sweep_means(manifest, views)
    (cell,) = means.cells
    assert means.left_out == [
        "full/seed1: not in the means: no correlation (constant predictions or too few images)"
    ]
    assert cell.n == 1 and cell.after["srcc"] == pytest.approx(0.6)
    assert math.isnan(cell.stds["srcc"])


def shown(manifest: Manifest, views: Sequence[RunView]) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(status_view(manifest, views))
    return console.export_text()


def test_runs_are_compared_over_the_benchmarks_that_all_have(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("full", "without")
    views = [
        view(manifest, 0, scores((0.2, 0.4), (0.5, 0.7)), RunState.DONE),
        view(
            manifest,
            1,
            [one for one in scores((0.3, 0), (0.9, 0)) if one.benchmark == "koniq"],
            RunState.DONE,
        ),
    ]
    means = sweep_means(manifest, views)
    full, without = means.cells
    assert (full.before["srcc"], full.after["srcc"]) == (0.2, 0.5)
    assert (without.before["srcc"], without.after["srcc"]) == (0.3, 0.9)
    assert (means.num_used, means.num_measured) == (1, 2)
    assert means.left_out[0] == "spaq: left out of all means: without/seed0: not evaluated"
    text = shown(manifest, views)
    assert "mean over 1 of 2 benchmarks: before" in text and means.left_out[0] in text


def test_a_benchmark_that_one_run_has_no_correlation_of_is_left_out(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("full", seeds=(0, 1))
    views = [
        view(manifest, 0, scores((0.2, 0.4), (0.5, 0.7)), RunState.DONE),
        view(manifest, 1, scores((0.2, 0.4), (0.3, NAN)), RunState.DONE),
    ]
    means = sweep_means(manifest, views)
    assert means.cells[0].after["srcc"] == pytest.approx(0.4) and means.cells[0].n == 2
    assert means.left_out[0].startswith("spaq: left out of all means: full/seed1: no correlation")


def test_other_images_of_a_benchmark_are_another_benchmark(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("full", "few")
    fewer = [
        replace(one, n=6, n_parsed=6) if one.benchmark == "spaq" else one for one in scores((0, 0), (1, 1))
    ]
    views = [
        view(manifest, 0, scores((0.2, 0.4), (0.5, 0.7)), RunState.DONE),
        view(manifest, 1, fewer, RunState.DONE),
    ]
    means = sweep_means(manifest, views)
    assert [cell.after["srcc"] for cell in means.cells] == [0.5, 1.0]
    assert (means.num_used, means.num_measured) == (1, 3)
    assert "spaq (6 images of test, whole set, score): left out of all means: full/seed0: not evaluated" in (
        means.left_out
    )


def test_a_mean_before_training_is_over_the_same_benchmarks_or_not_there(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("full")
    views = [view(manifest, 0, scores((0.2, NAN), (0.5, 0.7)), RunState.DONE)]
    means = sweep_means(manifest, views)
    assert means.cells[0].after["srcc"] == pytest.approx(0.6) and "srcc" not in means.cells[0].before
    assert means.left_out == [
        "full: not all means before training, which not every run has of every benchmark"
    ]


def test_tasks_in_words_show_their_accuracy(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("pairs", "scores")
    views = [
        view(manifest, 0, [words(0.4, Moment.BEFORE), words(0.75, Moment.AFTER)], RunState.DONE),
        view(manifest, 1, scores((0.2, 0.4), (0.5, 0.7)), RunState.DONE),
    ]
    means = sweep_means(manifest, views)
    pairs, plain = means.cells
    assert not means.left_out
    assert (pairs.before, pairs.after) == ({"accuracy": 0.4}, {"accuracy": 0.75})
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(means_table(means))
    lines = [line for line in console.export_text().splitlines() if "/1" in line]
    assert "0.400 → 0.750" in lines[0] and lines[0].count(" - ") == 3
    assert "0.300 → 0.600" in lines[1]


def test_signs_of_collapse_of_a_run_are_a_line(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("full")
    well = view(manifest, 0, [], RunState.RUNNING)
    warning = "signs of collapse: entropy of the scores 0.40 nats, 3.10 at the start"
    status = current_status(state=RunState.RUNNING, step=40, total_steps=300, cause="", warning=warning)
    told, line = replace(well, status=status), f"{well.run.label} {warning}"
    assert line in shown(manifest, [told]) and line not in shown(manifest, [well])


def test_nothing_done_is_nothing_shown(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("full")
    run = RunView(
        run=manifest.runs[0],
        state=RunState.PENDING,
        cause="",
        status=None,
        job="",
        active=True,
        unreachable="",
        eta_s=None,
    )
    assert sweep_means(manifest, [run]) == SweepMeans(
        cells=[CellMeans(cell="full", num_seeds=1, n=0, before={}, after={}, stds={})],
        num_used=0,
        num_measured=0,
        left_out=[],
    )
