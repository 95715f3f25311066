"""Several tasks in one run: who gets which prompt, and what is compared with what."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from qhk.rewards.batch import ScoredGroup
from qhk.rewards.compose import build_terms
from qhk.settings.root import Settings
from qhk.settings.views import task_shares, task_views
from qhk.tasks import Task
from qhk.training.batch import Batch
from qhk.training.data import RunData
from qhk.training.distributed import Processes
from qhk.training.inputs import plan
from qhk.training.metrics import rollout_metrics
from qhk.training.step import add_advantages, reward
from qhk.types import Answer, Completion, Example
from tests.tasks.builders import task_of

TASKS = {
    "score": task_of("score", "strict"),
    "degradation": task_of("degradation", "json"),
}


def place_in_step(groups: Sequence[ScoredGroup]) -> list[list[float]]:
    """A reward that shows whom it was compared with: the group's number among those it saw, over all."""
    return [[(number + 1) / len(groups)] * len(group.scores) for number, group in enumerate(groups)]


def is_noise(completion: Completion, example: Example) -> float:
    """1 where the answer names noise."""
    return float(completion.answer.labels.get("distortion_class") == "noise")


TERMS = {
    "score": build_terms(
        {
            "place": {"_target_": f"{__name__}.place_in_step", "weight": 1.0},
            "near": {
                "_target_": "qhk.rewards.score.exponential_error",
                "weight": 2.0,
                "tau": 0.5,
                "low": 1.0,
                "high": 5.0,
                "out_of_range": "refuse",
            },
        }
    ),
    "degradation": build_terms({"noise": {"_target_": f"{__name__}.is_noise", "weight": 3.0}}),
}


def example(number: int, mos: float | None, **labels: str) -> Example:
    return Example(
        id=str(number),
        dataset="one",
        image=Path("x.png"),
        mos=mos,
        mos_native=mos,
        higher_is_better=True,
        labels=labels,
    )


Said = tuple[str, float | None, list[Answer]]
"""What a group is made of: its task, its example's opinion, and the answers given."""


def scored(mos: float, *scores: float, task: str = "score") -> Said:
    return task, mos, [Answer(score=score) for score in scores]


def named(*words: str) -> Said:
    return "degradation", None, [Answer(score=None, labels={"distortion_class": word}) for word in words]


def batch_of(*groups: Said) -> Batch:
    return Batch(
        indices=range(len(groups)),
        tasks=[task for task, _, _ in groups],
        examples=[example(number, mos) for number, (_, mos, _) in enumerate(groups)],
        epochs=[0] * len(groups),
        completions=[
            [
                Completion(text="", answer=answer, num_tokens=1 + place, truncated=False)
                for place, answer in enumerate(answers)
            ]
            for _, _, answers in groups
        ],
    )


def weighed(settings: Settings, batch: Batch, tasks: dict[str, Task]) -> Batch:
    """The batch with rewards and advantages."""
    processes = Processes("single")
    return add_advantages(
        reward(batch, terms={task: TERMS[task] for task in tasks}, processes=processes),
        objective=settings.objective.model_copy(update={"advantage_scaling": "batch_std"}),
        uncertainty=settings.uncertainty,
        tasks=tasks,
        alpha=1.0,
        divergence=None,
        memory={},
        processes=processes,
    )


def test_each_task_is_rewarded_and_weighed_as_if_it_were_alone(small: Callable[..., Settings]) -> None:
    settings = small("uncertainty=exponential")
    numbers = [scored(3.0, 2.0, 3.0, 4.0), scored(2.0, 1.0, 1.0, 2.5)]
    words = [named("noise", "blur", "noise"), named("blur", "blur", "noise")]
    mixed = weighed(settings, batch_of(numbers[0], words[0], words[1], numbers[1]), TASKS)
    alone = {
        task: weighed(settings, batch_of(*groups), {task: TASKS[task]})
        for task, groups in (("score", numbers), ("degradation", words))
    }
    for task, rows in (("score", [0, 3]), ("degradation", [1, 2])):
        assert torch.equal(mixed.rewards[rows], alone[task].rewards)
        assert torch.equal(mixed.advantages[rows], alone[task].advantages)
        assert torch.equal(mixed.weights[rows], alone[task].weights)
    assert mixed.all_tasks == ["score", "degradation", "degradation", "score"]
    assert set(mixed.breakdown) == {"score.place", "score.near", "degradation.noise"}
    assert mixed.rewards[1].tolist() == [3.0, 0.0, 3.0]
    assert mixed.breakdown["score.place"].tolist() == [[0.5] * 3, [1.0] * 3]


def test_answers_in_words_are_never_uncertain(small: Callable[..., Settings]) -> None:
    batch = batch_of(scored(3.0, 1.0, 5.0), named("blur", "noise"))
    batch = weighed(small("uncertainty=exponential"), batch, TASKS)
    assert batch.weights[0] < 1.0 and batch.weights[1] == 1.0
    assert batch.scores[1].isnan().all()


def test_an_answer_in_words_counts_as_read() -> None:
    silent: Said = ("degradation", None, [Answer(score=None), Answer(score=None)])
    metrics = rollout_metrics(batch_of(scored(3.0, 1.0, 5.0), named("blur", "noise"), silent), tasks=TASKS)
    assert metrics.values()["train/group/unparsed_frac"] == pytest.approx(1 / 3)


def test_scores_are_out_of_range_on_their_own_tasks_scale() -> None:
    hundred = task_of("score", "strict", low=0.0, high=100.0)
    batch = batch_of(scored(3.0, 0.5, 5.0, 6.0), scored(3.0, 0.0, 70.0, 101.0, task="percent"))
    metrics = rollout_metrics(batch, tasks={**TASKS, "percent": hundred})
    assert metrics.values()["train/parse/out_of_range_frac"] == pytest.approx(3 / 6)


def run_data(sizes: dict[str, tuple[str, int]], weights: dict[str, float]) -> RunData:
    return RunData(
        train={key: [example(i, None) for i in range(size)] for key, (_, size) in sizes.items()},
        weights=weights,
        tasks={key: task for key, (task, _) in sizes.items()},
        validation={},
        benchmarks=[],
        fingerprints={},
        files={},
    )


def test_an_epoch_gives_every_task_its_share() -> None:
    data = run_data({"koniq": ("score", 60), "words/dq": ("words", 20)}, {"koniq": 0.75, "words/dq": 0.25})
    plans = [plan(data, step, seed=3, prompts_per_step=8) for step in range(10)]
    assert Counter(task for plan in plans for task in plan.tasks) == {"score": 60, "words": 20}
    assert list(plans[4].indices) == list(range(8))
    again = plan(data, 4, seed=3, prompts_per_step=8)
    assert (plans[4].examples, plans[4].tasks, plans[4].epochs) == (again.examples, again.tasks, again.epochs)
    assert any(len(set(plan.tasks)) == 2 for plan in plans)


def test_shares_and_views_of_a_mixture(small: Callable[..., Settings]) -> None:
    settings = small("mixture=degradation", "mixture.degradation.share=0.25")
    assert task_shares(settings) == {"score": 0.75, "degradation": 0.25}
    views = task_views(settings)
    assert list(views) == ["score", "degradation"]
    assert views["degradation"].task.form == "degradation"
    assert views["degradation"].prompt == settings.mixture["degradation"].prompt
    assert views["score"].reward == settings.reward
    assert "dq_495k" in settings.dataset
    alone = small()
    assert task_views(alone) == {"score": alone}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mixture.degradation.share=1.0"], "mixture.degradation.share: must be less than 1"),
        (["task=degradation", "prompt=degradation"], "mixture.degradation: is the main task's name"),
        (
            ["mixture.degradation.prompt.task=score"],
            "mixture.degradation.prompt.task: must be 'degradation'",
        ),
        (["mixture.degradation.data=nowhere"], "mixture.degradation.data: no set is called 'nowhere'"),
    ],
)
def test_a_wrong_mixture_is_refused(
    small: Callable[..., Settings], overrides: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        small("mixture=degradation", *overrides)


def test_an_all_equal_group_of_words_has_no_advantage(small: Callable[..., Settings]) -> None:
    settings = small()
    batch = weighed(settings, batch_of(named("noise", "noise")), {"degradation": TASKS["degradation"]})
    assert batch.advantages.abs().max() == 0.0
    assert not math.isnan(float(batch.rewards.sum()))
