"""Stages: a run whose config changes on the way is laid out, checked, switched and resumed."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from qhk.evaluation.results import Moment, read_results
from qhk.policy.start import start_policy
from qhk.settings.identity import run_id
from qhk.settings.root import Settings
from qhk.settings.views import stage_at, stage_views
from qhk.tracking.recorder import MetricSection, read_metrics
from qhk.training.begin import taught_examples
from qhk.training.loop import notes, train
from qhk.training.run import Run
from qhk.training.stages import load_stages
from tests.training.conftest import SMALL, finish, interrupt, prepared_run, small_settings

pytestmark = pytest.mark.long

Small = Callable[..., Settings]
OpenRun = Callable[[Settings], Run]

TWO = (
    "+stages.first={place: 1, share: 0.5, reference: run_start, schedules: stage}",
    "+stages.second={place: 2, share: 0.5, reference: run_start, schedules: stage}",
)
OVER_RUN = ("stages.first.schedules=run", "stages.second.schedules=run")
SWITCH = (
    "+stages.first={place: 1, share: 0.5, reference: run_start, schedules: stage}",
    "+stages.second={place: 2, share: 0.5, reference: stage_start, schedules: stage}",
    "+reward@stages.second.reward=visualquality_r1",
    "+stages.second.benchmark={miniature_csiq:{limit:4}}",
)


@pytest.fixture
def small(taught_small: Small) -> Small:
    return taught_small


def weights(directory: Path, step: str = "last") -> dict[str, torch.Tensor]:
    return load_file(directory / "checkpoints" / step / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return all(torch.equal(a[name], b[name]) for name in a)


def test_stages_that_change_nothing_are_one_stage(finished: Path, small: Small, open_run: OpenRun) -> None:
    assert same(finished, finish(open_run(small(*TWO, *OVER_RUN, name="staged"))))


def rates(run: Run) -> list[float]:
    """The learning rate of every step of the run."""
    found = [stage.coefficients(step) for stage in run.stages for step in range(stage.first, stage.last)]
    run.directory.close()
    return [now.learning_rate for now in found]


def test_schedules_run_over_the_run_or_over_each_stage(small: Small, open_run: OpenRun) -> None:
    falling = ("lr_schedule=linear", "lr_schedule.warmup.steps=0", "optimizer.lr=1.0")
    falling += ("training.duration.steps=8",)
    whole = [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    half = [1.0, 0.75, 0.5, 0.25]
    assert rates(open_run(small(*falling, name="one"))) == pytest.approx(whole)
    assert rates(open_run(small(*falling, *TWO, *OVER_RUN, name="two"))) == pytest.approx(whole)
    assert rates(open_run(small(*falling, *TWO, name="three"))) == pytest.approx(half * 2)
    second = (*TWO, OVER_RUN[1])
    assert rates(open_run(small(*falling, *second, name="four"))) == pytest.approx(half + whole[4:])


def test_a_warmup_is_held_against_what_its_schedule_runs_over(small: Small, open_run: OpenRun) -> None:
    long = ("lr_schedule.warmup.steps=3", *TWO)
    for words, said in ((long, 2), ((*long, *OVER_RUN), 0)):
        run = open_run(small(*words, name=f"said{said}"))
        lines = notes(run.stages)
        run.directory.close()
        assert len(lines) == said
        assert all("lr_schedule.warmup of 3 steps is longer" in line for line in lines)


def test_a_stage_sees_its_own_nodes_and_nothing_else_changes(small: Small) -> None:
    settings = small(*SWITCH)
    first, second = (view.settings for view in stage_views(settings))
    assert first.reward == settings.reward and list(second.reward.terms) == ["fidelity"]
    assert list(second.benchmark) == ["miniature_csiq"] and list(first.benchmark) == ["miniature_spaq"]
    assert second.model_copy(update={"reward": first.reward, "benchmark": first.benchmark}) == first
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
            ["+stages.one={place: 1, share: 0.5, reference: run_start, schedules: stage}"],
            "stages: the shares must add up to 1, got 0.5",
        ),
        (
            [
                "+stages.one={place: 1, share: 1.0, reference: run_start, schedules: stage}",
                "+task@stages.one.task=degradation",
            ],
            "stages.one: prompt.task: must be 'degradation'",
        ),
        (
            ["+stages.one={place: 2, share: 1.0, reference: run_start, schedules: stage}"],
            "stages: the places must be 1 to 1, each once, got [2]",
        ),
        (
            ["+stages.one={place: 1, share: 1.0, reference: now, schedules: stage}"],
            "stages.one.reference: must be one of",
        ),
        (
            ["+stages.one={place: 1, share: 1.0, reference: run_start, schedules: stage, optimiser: 1}"],
            "stages.one.optimiser: unknown key",
        ),
        (
            [
                "+stages.one={place: 1, share: 1.0, reference: run_start, schedules: stage}",
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
        "+stages.a={place: 1, share: 0.9, reference: run_start, schedules: stage}",
        "+stages.b={place: 2, share: 0.1, reference: run_start, schedules: stage}",
    )
    with pytest.raises(ValueError, match=r"stages\.b\.share: 0\.1 of training\.duration is under one step"):
        load_stages(small(*shares), open_nothing())


def test_a_stage_whose_prompt_shows_other_pictures_is_refused(small: Small) -> None:
    """Before the first stage runs, though both stages read the same images."""
    stages = (*TWO, "+prompt@stages.second.prompt=score_short", "stages.second.prompt.user='{image} {image}'")
    with pytest.raises(ValueError, match=r"prompt\.user shows 2 pictures"):
        load_stages(small(*stages), open_nothing())


WHOLE = (
    "+loading@stages.second.loading=miniature",
    "+stages.second.data={miniature_koniq:1,miniature_kadid:1}",
)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            (*WHOLE, "+stages.second.benchmark={miniature_spaq:{split:train}}"),
            r"stages\.second\.benchmark\.miniature_spaq: \S+ is also trained on, in stages\.first: choose",
        ),
        (
            (
                *WHOLE,
                "benchmark={miniature_koniq:{split:train}}",
                "+stages.second.benchmark={miniature_spaq:{limit:4}}",
            ),
            r"stages\.first\.benchmark\.miniature_koniq: \S+ is also trained on, in stages\.second: choose",
        ),
        (
            (
                WHOLE[0],
                "stages.second.loading.validation_limit=null",
                "stages.second.loading.validation_fraction=0.5",
            ),
            r"stages\.second, validation part of task score: \S+ is also trained on, by stages\.first, task",
        ),
    ],
)
def test_what_one_stage_learns_from_judges_no_other(
    small: Small, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_stages(small(*TWO, *overrides), open_nothing())


def test_two_tasks_of_one_set_are_cut_alike_or_refused(small: Small) -> None:
    """The same images asked for five sub-scores: cut as the main task's they are fine."""
    both = ("+task@mixture.five.task=multi_aspect", "+prompt@mixture.five.prompt=multi_aspect_short")
    both += ("+reward@mixture.five.reward=preresq_r1", "+mixture.five.benchmark=[miniature_csiq]")
    both += ("+mixture.five.data=[miniature_spaq]", "+mixture.five.share=0.5")
    both += ("+loading@mixture.five.loading=miniature",)
    alike = (*both, "mixture.five.loading.validation_limit=6", "uncertainty=none")
    assert len(load_stages(small(*alike), open_nothing())) == 1
    with pytest.raises(
        ValueError, match=r"^validation part of task five: \S+ is also trained on, by task score: "
    ):
        load_stages(small(*both, "mixture.five.loading.validation_fraction=0.5"), open_nothing())


def test_every_way_of_asking_is_taught_once(small: Small, open_run: OpenRun) -> None:
    json = ("+task@stages.second.task=score_json", "+prompt@stages.second.prompt=score_json_short")
    reward = ("+reward@stages.second.reward=visualquality_r1",)
    for words, names, rules in (
        (json, ["score", "second.score"], ["strict", "json"]),
        (reward, ["score"], ["strict"]),
    ):
        run = open_run(small(*TWO, *words, name=f"taught{len(names)}"))
        with run.directory:
            policy = start_policy(
                run.settings,
                [example for _, example in run.data.train_examples],
                stages=[stage.settings for stage in run.stages],
                device="cpu",
            )
            readers, examples = taught_examples(run, policy)
        assert list(readers) == names and [reader.task.answer_rule for reader in readers.values()] == rules
        assert Counter(name for name, _ in examples) == dict.fromkeys(names, 12)


def open_nothing() -> Any:
    from tests.training.conftest import ListDisplay

    return ListDisplay()


def test_a_stage_that_asks_the_same_benchmark_otherwise_asks_it_anew(small: Small, open_run: OpenRun) -> None:
    """What the first stage read at the border is not the second's, which asks for JSON and was taught it."""
    json = ("+task@stages.second.task=score_json", "+prompt@stages.second.prompt=score_json_short")
    directory = finish(
        open_run(small(*TWO, *json, "training.duration.steps=2", name="otherwise", base=SMALL))
    )
    rows = [row for row in read_results(directory / "results.json").rows if row.readout == "greedy"]
    read = {(row.moment, row.step): row.n_parsed for row in rows}
    assert min(read[Moment.AFTER, 1], read[Moment.BEFORE, 1]) > 0
    texts = {
        part: (directory / "predictions" / part / "greedy" / "miniature_spaq.jsonl").read_text()
        for part in ("step_000001", "step_000001_before")
    }
    assert {part: "rating" in text for part, text in texts.items()} == {
        "step_000001": False,
        "step_000001_before": True,
    }


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory, miniature_cache: Path, base: tuple[str, ...]) -> Path:
    """A run of two stages, for tests that only look."""
    root = tmp_path_factory.mktemp("switched")
    return finish(prepared_run(small_settings(root, miniature_cache, *SWITCH, base=base)))


@pytest.mark.parametrize("stop_before", [2, 3])
def test_a_run_stopped_in_its_second_stage_resumes_bit_for_bit(
    switched: Path, small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch, stop_before: int
) -> None:
    """Before 2: at the border, its checkpoint just written. Before 3: with a reference from the border."""
    rows = read_results(switched / "results.json").rows
    cells = {(row.benchmark, row.moment, row.step) for row in rows if row.readout == "greedy"}
    assert cells == {
        ("miniature_spaq", Moment.BEFORE, 0),
        ("miniature_spaq", Moment.AFTER, 2),
        ("miniature_csiq", Moment.BEFORE, 2),
        ("miniature_csiq", Moment.AFTER, 4),
    }
    interrupt(open_run(small(*SWITCH, "training.checkpoint_every=1", name="stopped")), before=stop_before)
    stopped = finish(open_run(small(*SWITCH, "training.checkpoint_every=1", name="stopped")))
    assert same(stopped, switched)
    steps = {
        path: [
            (row.step, row.section)
            for row in read_metrics(path / "metrics.jsonl")
            if row.section is not MetricSection.COLD_START
        ]
        for path in (stopped, switched)
    }
    assert sorted(steps[stopped]) == sorted(steps[switched])


def test_workers_of_a_part_are_outside_the_identity(small: Small) -> None:
    switch = (*SWITCH, "+loading@stages.second.loading=miniature", "mixture=degradation")
    switch += ("+loading@mixture.degradation.loading=miniature",)
    more = ("stages.second.loading.workers=3", "mixture.degradation.loading.workers=5")
    assert run_id(small(*switch)) == run_id(small(*switch, *more))
    assert run_id(small(*switch)) != run_id(small(*switch, "mixture.degradation.share=0.4"))


def test_a_lost_reference_is_not_replaced(
    switched: Path, small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*SWITCH, "objective.kl_coef=0.1", "training.checkpoint_every=1")
    interrupt(open_run(small(*words, name="lost")), before=3)
    run = open_run(small(*words, name="lost"))
    shutil.rmtree(run.directory.checkpoints / "step_000002")
    with (
        run.directory,
        pytest.raises(ValueError, match="step_000002: is gone, and the KL is held against it"),
    ):
        train(run)


def test_a_stage_without_scores_says_that_nothing_is_weighed(small: Small) -> None:
    short = "lr_schedule.warmup.steps=0"
    stages = load_stages(small(*TWO, short), open_nothing())
    asked = ("task=degradation", "prompt=degradation_short", "reward=q_insight_degradation")
    words = small(*asked, short, "uncertainty=none")
    off = replace(stages[1], settings=words)
    on = replace(off, settings=words.model_copy(update={"uncertainty": stages[0].settings.uncertainty}))
    assert notes(stages) == notes([stages[0], off]) == []
    assert notes([stages[0], on]) == [
        "stage second: uncertainty exponential weighs nothing here: every task is answered in words"
    ]


def test_terms_whose_paper_masks_say_where_twins_are_made_otherwise(small: Small) -> None:
    stage = replace(
        load_stages(small("stages=none", "lr_schedule.warmup.steps=0"), open_nothing())[0], settings=small()
    )

    def said(*words: str) -> list[str]:
        return notes([replace(stage, settings=small("lr_schedule.warmup.steps=0", *words))])

    assert said("perception=papo") == [
        "perception=papo: its paper (arXiv 2507.06448) hides patches, here twins are generated (noise, blur, "
        "jpeg, darken); twin=masked is the paper's"
    ]
    both = said("perception=papo", "dependency=vppo", "twin=another")
    assert [line.partition(":")[0] for line in both] == ["perception=papo", "dependency=vppo"]
    assert "here twins are another;" in both[1] and "2510.09285" in both[1]
    assert said("perception=papo", "dependency=vppo", "twin=masked") == []
    assert said("perception=exact", "dependency=pgpo") == []


def test_a_step_belongs_to_the_stage_that_it_ends_or_lies_in(small: Small, open_run: OpenRun) -> None:
    uneven = [
        word.replace("share: 0.5", f"share: {share}") for word, share in zip(TWO, (0.3, 0.7), strict=True)
    ]
    settings = small(*uneven, "training.duration.steps=5")
    assert [stage_at(settings, step) for step in range(6)] == ["first"] * 3 + ["second"] * 3
    run = open_run(settings)
    assert [(stage.name, stage.last) for stage in run.stages] == [("first", 2), ("second", 5)]
    run.directory.close()
    assert stage_at(small(), 3) == ""
