"""Stages: a run whose config changes on the way is laid out, checked, switched and resumed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from qhk.evaluation.results import Stage, read_results
from qhk.settings import Settings, last_view, run_id, stage_views
from qhk.tracking.recorder import MetricStage, read_metrics
from qhk.training import loop
from qhk.training.loop import train
from qhk.training.run import Run
from qhk.training.stages import load_stages

Small = Callable[..., Settings]
OpenRun = Callable[[Settings], Run]

TWO = (
    "+stages.first={place: 1, share: 0.5, reference: run_start}",
    "+stages.second={place: 2, share: 0.5, reference: run_start}",
)
SWITCH = (
    "+stages.first={place: 1, share: 0.5, reference: run_start}",
    "+stages.second={place: 2, share: 0.5, reference: stage_start}",
    "+reward@stages.second.reward=visualquality_r1",
    "+benchmark@stages.second.benchmark=miniature_csiq",
    "+stages.second.benchmark.miniature_csiq.limit=4",
)


def finish(run: Run) -> Path:
    with run.directory:
        train(run)
    return run.directory.path


def weights(directory: Path, step: str = "last") -> dict[str, torch.Tensor]:
    return load_file(directory / "checkpoints" / step / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return all(torch.equal(a[name], b[name]) for name in a)


def test_stages_that_change_nothing_are_one_stage(finished: Path, small: Small, open_run: OpenRun) -> None:
    """But for schedules, which run over a stage: here they are constant."""
    constant = (
        "lr_schedule=constant",
        "lr_schedule.warmup.steps=0",
        "perception.gamma_schedule.form=constant",
    )
    plain = finish(open_run(small(*constant, name="plain")))
    staged = finish(open_run(small(*constant, *TWO, name="staged")))
    assert same(plain, staged)


def test_a_stage_sees_its_own_nodes_and_nothing_else_changes(small: Small) -> None:
    settings = small(*SWITCH)
    first, second = (view.settings for view in stage_views(settings))
    assert first.reward == settings.reward and list(second.reward.terms) == ["fidelity"]
    assert list(second.benchmark) == ["miniature_csiq"] and list(first.benchmark) == ["miniature_spaq"]
    assert second.model_copy(update={"reward": first.reward, "benchmark": first.benchmark}) == first
    assert last_view(settings) == second
    assert {"miniature_spaq", "miniature_csiq"} <= set(settings.dataset)


def test_stages_are_laid_out_one_behind_the_other(small: Small, open_run: OpenRun) -> None:
    run = open_run(small(*TWO, "training.duration.steps=5"))
    assert [(stage.first, stage.last) for stage in run.stages] == [(0, 2), (2, 5)]
    assert run.stages[0].data is run.stages[1].data
    assert run.total_steps == 5
    run.directory.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["+stages.one={place: 1, share: 0.5, reference: run_start}"],
            "stages: the shares must add up to 1, got 0.5",
        ),
        (
            ["+stages.one={place: 1, share: 1.0, reference: run_start}", "+task@stages.one.task=degradation"],
            "stages.one: prompt.task: must be 'degradation'",
        ),
        (
            ["+stages.one={place: 2, share: 1.0, reference: run_start}"],
            "stages: the places must be 1 to 1, each once, got [2]",
        ),
        (["+stages.one={place: 1, share: 1.0, reference: now}"], "stages.one.reference: must be one of"),
        (
            ["+stages.one={place: 1, share: 1.0, reference: run_start, optimiser: 1}"],
            "stages.one.optimiser: unknown key",
        ),
        (
            [
                "+stages.one={place: 1, share: 1.0, reference: run_start}",
                "+reward@stages.one.reward=q_hawkeye",
                "stages.one.reward.terms.accuracy.tau=-1",
            ],
            "reward.terms.accuracy.tau: got -1",
        ),
    ],
)
def test_wrong_stages_are_refused(small: Small, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        small(*overrides)


def test_a_stage_of_no_steps_is_refused(small: Small) -> None:
    shares = (
        "+stages.a={place: 1, share: 0.9, reference: run_start}",
        "+stages.b={place: 2, share: 0.1, reference: run_start}",
    )
    with pytest.raises(ValueError, match=r"stages\.b\.share: 0\.1 of training\.duration is under one step"):
        load_stages(small(*shares), open_nothing())


def test_a_stage_whose_prompt_shows_other_pictures_is_refused(small: Small) -> None:
    """Before the first stage runs, though both stages read the same images."""
    stages = (*TWO, "+prompt@stages.second.prompt=score_short", "stages.second.prompt.user='{image} {image}'")
    with pytest.raises(ValueError, match=r"prompt\.user shows 2 pictures"):
        load_stages(small(*stages), open_nothing())


def open_nothing() -> Any:
    from tests.training.conftest import Quiet

    return Quiet()


def test_a_stage_that_asks_the_same_benchmark_otherwise_asks_it_anew(small: Small, open_run: OpenRun) -> None:
    """The policy was never taught JSON: what the first stage read at the border is not the second's."""
    json = ("+task@stages.second.task=score_json", "+prompt@stages.second.prompt=score_json_short")
    directory = finish(open_run(small(*TWO, *json, "training.duration.steps=2", name="otherwise")))
    rows = [row for row in read_results(directory / "results.json").rows if row.readout == "greedy"]
    read = {(row.stage, row.step): row.n_parsed for row in rows}
    assert read[Stage.AFTER, 1] > 0 and read[Stage.BEFORE, 1] == 0


@pytest.fixture
def switched(small: Small, open_run: OpenRun) -> Path:
    return finish(open_run(small(*SWITCH, name="switched")))


@pytest.mark.parametrize("stop_before", [2, 3])
def test_a_run_stopped_in_its_second_stage_resumes_bit_for_bit(
    switched: Path, small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch, stop_before: int
) -> None:
    """Before 2: at the border, its checkpoint just written. Before 3: with a reference from the border."""
    rows = read_results(switched / "results.json").rows
    cells = {(row.benchmark, row.stage, row.step) for row in rows if row.readout == "greedy"}
    assert cells == {
        ("miniature_spaq", Stage.BEFORE, 0),
        ("miniature_spaq", Stage.AFTER, 2),
        ("miniature_csiq", Stage.BEFORE, 2),
        ("miniature_csiq", Stage.AFTER, 4),
    }
    step = loop._take_step

    def stopping(run: Run, *args: Any, **kwargs: Any) -> Any:
        if kwargs["step"] == stop_before:
            raise KeyboardInterrupt
        return step(run, *args, **kwargs)

    monkeypatch.setattr(loop, "_take_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        finish(open_run(small(*SWITCH, "training.checkpoint_every=1", name="stopped")))
    monkeypatch.setattr(loop, "_take_step", step)
    stopped = finish(open_run(small(*SWITCH, "training.checkpoint_every=1", name="stopped")))
    assert same(stopped, switched)
    steps = {
        path: [
            (row.step, row.stage)
            for row in read_metrics(path / "metrics.jsonl")
            if row.stage is not MetricStage.COLD_START
        ]
        for path in (stopped, switched)
    }
    assert sorted(steps[stopped]) == sorted(steps[switched])


def test_workers_of_a_part_are_outside_the_identity(small: Small) -> None:
    switch = (*SWITCH, "+data@stages.second.data=miniature", "mixture=degradation")
    more = ("stages.second.data.workers=3", "mixture.degradation.data.workers=5")
    assert run_id(small(*switch)) == run_id(small(*switch, *more))
    assert run_id(small(*switch)) != run_id(small(*switch, "mixture.degradation.share=0.4"))


def test_a_lost_reference_is_not_replaced(
    switched: Path, small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop._take_step

    def stopping(run: Run, *args: Any, **kwargs: Any) -> Any:
        if kwargs["step"] == 3:
            raise KeyboardInterrupt
        return step(run, *args, **kwargs)

    words = (*SWITCH, "objective.kl_coef=0.1", "training.checkpoint_every=1")
    monkeypatch.setattr(loop, "_take_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        finish(open_run(small(*words, name="lost")))
    monkeypatch.setattr(loop, "_take_step", step)
    run = open_run(small(*words, name="lost"))
    shutil.rmtree(run.directory.checkpoints / "step_000002")
    with (
        run.directory,
        pytest.raises(ValueError, match="step_000002: is gone, and the KL is held against it"),
    ):
        train(run)


def test_prepared_twins_are_not_turned(small: Small) -> None:
    words = ("perception=exact", "twin=manifest", "twin.manifest=pairs.jsonl", "data.augmentation=flip")
    with pytest.raises(ValueError, match=r"data\.augmentation: flip would turn images but not"):
        small(*words)
    assert small(*words[:3]).data.augmentation == "none"
