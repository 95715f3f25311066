"""What mirrors are told of a run: completions, numbers of before, files, tags, and how it ended."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qhk.evaluation.predictions import Prediction, append_predictions, predictions_path
from qhk.evaluation.results import Measure, Moment, ResultRow, Results, write_results
from qhk.settings.root import Settings
from qhk.tracking.mirror import Ending
from qhk.tracking.status import RunState
from qhk.training import launch, mirrored
from qhk.training.mirrored import mirror_content, mirror_run
from qhk.training.stop import RunStopped

HEADLINE, OTHER = "mean_of_8", "greedy"

ROW = ResultRow(
    benchmark="koniq", form="score", split="test", protocol="deqa", miniature=False, step=0,
    moment=Moment.BEFORE, readout=HEADLINE, n=4, n_parsed=4, samples=8, samples_failed=2,
    samples_out_of_range=0, distinct=3, plcc_fallback="",
    metrics={"srcc": Measure(value=0.25, low=0, high=1)},
)  # fmt: skip


def prediction(name: str, **more: Any) -> Prediction:
    plain = {
        "id": name, "mos": 3.5, "score": 3.0, "clipped": 3.0, "samples": (3.0, None), "out_of_range": 0,
        "texts": ("soft <answer>3</answer>", "I cannot say"),
    }  # fmt: skip
    return Prediction(**{**plain, **more})


@pytest.fixture
def settings(small: Callable[..., Settings]) -> Settings:
    built = small("tracking=offline")
    return built.model_copy(update={"evaluation": built.evaluation.model_copy(update={"headline": HEADLINE})})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step, readout in ((0, HEADLINE), (4, HEADLINE), (4, OTHER)):
        path = predictions_path(tmp_path, step=step, before=False, readout=readout, benchmark="koniq")
        append_predictions(path, [prediction(f"{name}.png") for name in "abcd"])
    after = replace(ROW, moment=Moment.AFTER, step=4)
    rows = (ROW, replace(ROW, readout=OTHER), after)
    write_results(tmp_path / "results.json", Results(seed=0, run_id="x", wall_times={}, rows=rows))
    return tmp_path


def tracked(settings: Settings, **keys: Any) -> Settings:
    return settings.model_copy(update={"tracking": settings.tracking.model_copy(update=keys)})


def test_completions_are_one_row_each_of_images_spread_over_the_set(run: Path, settings: Settings) -> None:
    table = mirror_content(run, tracked(settings, completions=2)).tables["completions"]
    assert table.columns == mirrored.COLUMNS
    assert [row[1:4] for row in table.rows] == [
        (moment, step, image)
        for moment, step in (("before", 0), ("after", 4)) for image in ("a.png", "c.png")
        for _ in range(2)
    ]  # fmt: skip
    assert table.rows[0] == ("koniq", "before", 0, "a.png", 3.5, 3.0, "yes", "soft <answer>3</answer>")
    assert table.rows[1][5:] == (None, "no", "I cannot say")


def test_a_table_has_no_more_rows_than_are_shown(
    run: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrored, "MAX_ROWS", 4)
    table = mirror_content(run, settings).tables["completions"]
    assert [row[1] for row in table.rows] == ["before", "before", "after", "after"]


def test_answers_in_words_have_columns_of_their_own(run: Path, settings: Settings) -> None:
    path = predictions_path(run, step=4, before=True, readout=HEADLINE, benchmark="kadid")
    words = prediction(
        "w.png", mos=None, score=None, clipped=None, samples=(), labels={"distortion": "blur"},
        answers=({"distortion": "noise"}, None),
    )  # fmt: skip
    append_predictions(path, [words])
    table = mirror_content(run, settings).tables["completions"]
    assert table.columns[-2:] == mirrored.WORDS
    said = [row for row in table.rows if row[0] == "kadid"]
    assert [(row[1], row[6], *row[-2:]) for row in said] == [
        ("before", "yes", "distortion: blur", "distortion: noise"),
        ("before", "no", "distortion: blur", None),
    ]


def test_numbers_are_those_of_before_and_files_are_all_predictions(run: Path, settings: Settings) -> None:
    content = mirror_content(run, settings)
    assert (
        content.summary["before/koniq/srcc"] == 0.25 and content.summary["before/koniq/failed_frac"] == 0.25
    )
    assert len(content.summary) == 5
    assert set(content.artifacts["predictions"]) == {
        f"step_00000{step}/{readout}/koniq.jsonl"
        for step, readout in ((0, HEADLINE), (4, HEADLINE), (4, OTHER))
    }


def test_what_the_settings_hold_back_stays(run: Path, settings: Settings, tmp_path: Path) -> None:
    content = mirror_content(run, tracked(settings, completions=0, predictions=False))
    assert (content.tables, content.artifacts) == ({}, {})
    (tmp_path / "empty").mkdir()
    empty = mirror_content(tmp_path / "empty", settings)
    assert (empty.summary, empty.tables, empty.artifacts) == ({}, {}, {})


def test_tags_are_names_and_modules(small: Callable[..., Settings], tmp_path: Path) -> None:
    settings = tracked(small("uncertainty=none", "perception=exact"), tags=["q_hawkeye"], notes="a claim")
    told = mirror_run(settings, tmp_path, run_id="x", job_type="train", metrics=tmp_path / "m")
    assert told.tags[:3] == ("q_hawkeye", "reinforcement", "score")
    assert "perception exact" in told.tags and not any("uncertainty" in tag for tag in told.tags)
    assert (told.group, told.name, told.notes) == (settings.study, "run/seed0", "a claim")


@pytest.mark.parametrize(
    ("how", "state", "cause"),
    [
        (None, RunState.DONE, ""),
        (RunStopped(signal.SIGTERM, "kept"), RunState.PREEMPTED, "stopped by SIGTERM; kept"),
        (KeyboardInterrupt(), RunState.CANCELLED, "interrupted; the same"),
        (OSError(28, "No space left on device"), RunState.FAILED, "No space left"),
        (ZeroDivisionError("nobody knows"), RunState.FAILED, "nobody knows"),
    ],
    ids=["done", "stopped", "interrupted", "failed", "crashed"],
)
def test_mirrors_are_told_of_every_end_once_and_after_its_record(
    how: BaseException | None, state: RunState, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[Any] = []

    def train(job: Any) -> str:
        if how is not None:
            raise how
        return "results"

    directory = SimpleNamespace(
        path=tmp_path, log=tmp_path / "run.log", noted_failure=lambda: "",
        end=lambda state, cause: order.append(state),
    )  # fmt: skip
    job: Any = SimpleNamespace(
        signals=open(tmp_path / "signals", "w"), directory=directory,  # noqa: SIM115 (a context that does nothing)
        processes=SimpleNamespace(is_main=True, rank=0),
    )  # fmt: skip
    monkeypatch.setattr(launch, "train", train)
    try:
        launch.run_to_end(job, finish=order.append)
    except BaseException as error:
        assert error is how
    endings = [item for item in order if isinstance(item, Ending)]
    assert [(ending.state, cause in ending.cause) for ending in endings] == [(state, True)]
    # a run that is done is so only when its mirrors are, any other one whatever becomes of them
    assert order.index(endings[0]) == (0 if how is None else 1) and order[1 if how is None else 0] is state
