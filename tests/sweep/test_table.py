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
from qhk.sweep.states import RunView
from qhk.sweep.table import CellMeans, cell_means, means_table
from qhk.tracking.status import RunState
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
    (cell,) = cell_means(manifest, views)
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
    (cell,) = cell_means(manifest, views)
    assert cell.n == 1 and cell.after["srcc"] == pytest.approx(0.6)
    assert math.isnan(cell.stds["srcc"])


def test_tasks_in_words_show_their_accuracy(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("pairs", "scores")
    views = [
        view(manifest, 0, [words(0.4, Moment.BEFORE), words(0.75, Moment.AFTER)], RunState.DONE),
        view(manifest, 1, scores((0.2, 0.4), (0.5, 0.7)), RunState.DONE),
    ]
    pairs, plain = cell_means(manifest, views)
    assert (pairs.before, pairs.after) == ({"accuracy": 0.4}, {"accuracy": 0.75})
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(means_table([pairs, plain]))
    lines = [line for line in console.export_text().splitlines() if "/1" in line]
    assert "0.400 → 0.750" in lines[0] and lines[0].count(" - ") == 3
    assert "0.300 → 0.600" in lines[1]


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
    assert cell_means(manifest, [run]) == [
        CellMeans(cell="full", num_seeds=1, n=0, before={}, after={}, stds={})
    ]
