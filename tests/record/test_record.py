"""The recorded runs, run again, give the recorded numbers.

On the kind of machine that made the record (CPU, instructions, versions of the libraries) every metric and
every weight is the same bit for bit. Elsewhere the last bits of a sum differ; see ``_close``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qhk.evaluation.results import Moment, headline_metric, read_results
from qhk.settings.parse import read_settings
from qhk.settings.views import stage_views, task_views
from tests.conftest import repository_catalogue
from tests.record.cases import CASES
from tests.record.make import RECORD, machine, run_case, run_directory

pytestmark = pytest.mark.long

RENAMED: dict[str, str] = {}
"""Metric names of the record -> their names today, for those that were renamed since."""

EARLY = 5
RELATIVE = 1e-3
RECORDED: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
Result = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, miniature_cache: Path) -> Result:
    """What a case gives now; every case runs once, after the one that it starts from."""
    root = tmp_path_factory.mktemp("record")
    done: dict[str, dict[str, Any]] = {}

    def run(name: str) -> dict[str, Any]:
        start = CASES[name].start
        if start is not None:
            run(start)
        if name not in done:
            done[name] = {
                **run_case(name, root, cache=miniature_cache),
                "directory": run_directory(name, root),
            }
        return done[name]

    return run


def _recorded(name: str) -> dict[str, Any]:
    case = RECORDED["cases"][name]
    rows = [{RENAMED.get(key, key): value for key, value in row.items()} for row in case["rows"]]
    return {**case, "rows": rows}


def _close(found: dict[str, Any], recorded: dict[str, Any]) -> list[str]:
    """Return where a run on another kind of machine differs by more than rounding.

    A sampled token changes with the last bits of a logit, and with it all that follows, so later numbers say
    nothing elsewhere. Held are the sections and steps of the rows, and the losses of the first supervised
    steps, which sample nothing: computed with AVX2 in place of AVX-512 they differ by at most 2e-6 of their
    value (by 1e-4 after ten steps, and the first sampled step by 6e-3). To compare in full on another
    machine, run the recorder there on the commit that made the record.
    """
    places = [[(row["section"], row["step"]) for row in run["rows"]] for run in (found, recorded)]
    differences = [] if places[0] == places[1] else [f"rows: {places[0]}, recorded {places[1]}"]
    for row, other in zip(found["rows"], recorded["rows"], strict=False):
        if row["section"] == "cold_start" and row["step"] <= EARLY:
            loss, expected = row["cold_start/loss"], other["cold_start/loss"]
            if not math.isclose(loss, expected, rel_tol=RELATIVE):
                differences.append(f"cold start step {row['step']}: loss {loss}, recorded {expected}")
    return differences


def _different(found: dict[str, Any], recorded: dict[str, Any]) -> list[str]:
    """Return where a run on the recording kind of machine differs at all."""
    differences = []
    for row, other in zip(found["rows"], recorded["rows"], strict=False):
        for key in sorted(row.keys() | other.keys()):
            if row.get(key, "none") != other.get(key, "none"):
                place = f"{other['section']} step {other['step']}"
                differences.append(f"{place}: {key} {row.get(key)}, recorded {other.get(key)}")
    if len(found["rows"]) != len(recorded["rows"]):
        differences.append(f"{len(found['rows'])} rows, recorded {len(recorded['rows'])}")
    differences += [
        f"{key}: {found[key]}, recorded {recorded[key]}"
        for key in ("weights", "history")
        if found[key] != recorded[key]
    ]
    return differences


SLOW = ("preresq_r1_vqa", "q_insight_comparison")
"""Runs that look at several pictures in every prompt."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES]
)
def test_no_number_moved(name: str, result: Result) -> None:
    compare = _different if machine() == RECORDED["machine"] else _close
    differences = compare(result(name), _recorded(name))
    assert not differences, "\n".join([f"{len(differences)} differences", *differences[:20]])
    steps = [row for row in result(name)["rows"] if row["section"] == "train"]
    assert all(math.isfinite(row["train/loss/total"]) for row in steps)
    assert max(row["train/optimizer/grad_norm"] for row in steps) > 0
    _check_results(result(name)["directory"])


def _check_results(directory: Path) -> None:
    """Assert that a run has measured each of its benchmarks, in each of its tasks, before and after."""
    settings = read_settings(directory / "config.yaml")
    rows = read_results(directory / "results.json").rows
    after = Moment.CONTROL if settings.training.learner == "supervised" else Moment.AFTER
    assert {row.moment for row in rows} == {Moment.BEFORE, after}
    for stage in stage_views(settings):
        for view in task_views(stage.settings).values():
            asked = [row for row in rows if row.form == view.task.form]
            assert {row.benchmark for row in asked} >= set(view.benchmark)
            assert all(headline_metric(row.form) in row.metrics for row in asked)
    assert all(row.miniature and row.n == 4 for row in rows)
    assert all(entry.miniature for entry in settings.dataset.values())


def test_every_experiment_is_on_record() -> None:
    experiments = set(repository_catalogue().options["experiment"])
    assert experiments <= {word.removeprefix("experiment=") for case in CASES.values() for word in case.words}


def test_a_resumed_run_and_two_processes_equal_the_undisturbed_one() -> None:
    cases = RECORDED["cases"]
    assert cases["default_resumed"] == cases["default_undisturbed"]
    assert cases["two_processes"]["weights"] == cases["default_undisturbed"]["weights"]


def test_every_part_is_felt_in_the_record() -> None:
    """No two cases of different settings are the same run, and each learns something from its rewards."""
    cases = RECORDED["cases"]
    equal = ("default_resumed", "two_processes")
    assert len({case["weights"] for case in cases.values()}) == len(cases) - len(equal)
    for name, case in cases.items():
        steps = [row for row in case["rows"] if row["section"] == "train"]
        assert len(steps) == 3 and max(row["train/optimizer/grad_norm"] for row in steps) > 1e-3, name
        if name != "supervised_control":
            assert min(row["train/group/equal_reward_frac"] for row in steps) < 1.0, name
            assert min(row["train/parse/failed_frac"] for row in steps) < 0.9, name
    everything = cases["everything_at_once"]
    steps = [row for row in everything["rows"] if row["section"] == "train"]
    assert everything["history"] and max(row["train/resample/prompts"] for row in steps) > 0
    assert max(row["train/policy/ratio_clipped_frac"] for row in steps) > 0


def test_a_moved_number_is_seen() -> None:
    recorded = _recorded("default")
    moved = json.loads(json.dumps(recorded))
    row = next(row for row in moved["rows"] if row["section"] == "train")
    row["train/loss/total"] = math.nextafter(row["train/loss/total"], 1.0)
    assert len(_different(moved, recorded)) == 1 and not _close(moved, recorded)
    assert len(_different(moved | {"weights": "0"}, recorded)) == 2
    moved["rows"][0]["cold_start/loss"] *= 1.01
    assert len(_close(moved, recorded)) == 1
    assert _close(moved | {"rows": moved["rows"][1:]}, recorded)
    assert not _different(recorded, recorded)
