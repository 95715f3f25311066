"""Several tasks in one run: who gets which prompt, and what is compared with what."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qhk.rewards.batch import ScoredGroup
from qhk.rewards.compose import build_terms
from qhk.rollout.group import Group
from qhk.settings import Settings, TaskSettings, task_shares, task_views
from qhk.training.credit import Credit, assign_credit
from qhk.training.data import RunData
from qhk.training.distributed import Processes
from qhk.training.earnings import earn_rewards
from qhk.training.step_metrics import rollout_metrics
from qhk.types import Answer, Completion, Example

TASKS = {
    "score": TaskSettings(form="score", answer_rule="strict", low=1.0, high=5.0),
    "degradation": TaskSettings(form="degradation", answer_rule="json", low=1.0, high=5.0),
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


def group(number: int, answers: Sequence[Answer], mos: float | None, task: str) -> Group:
    completions = [
        Completion(text="", answer=answer, num_tokens=1 + place, truncated=False)
        for place, answer in enumerate(answers)
    ]
    return Group(
        task=task,
        example=example(number, mos),
        prompt=None,  # type: ignore[arg-type]  # credit looks at answers alone
        twin=None,
        completion_ids=[],
        sampled_logprobs=[],
        completions=completions,
    )


def scored(number: int, mos: float, *scores: float) -> Group:
    return group(number, [Answer(score=score) for score in scores], mos, "score")


def named(number: int, *words: str) -> Group:
    answers = [Answer(score=None, labels={"distortion_class": word}) for word in words]
    return group(number, answers, None, "degradation")


def credit_of(settings: Settings, groups: Sequence[Group], tasks: dict[str, TaskSettings]) -> Credit:
    processes = Processes("single")
    return assign_credit(
        groups,
        earn_rewards(groups, terms={task: TERMS[task] for task in tasks}, processes=processes),
        objective=settings.objective.model_copy(update={"advantage_scaling": "batch_std"}),
        uncertainty=settings.uncertainty,
        tasks=tasks,
        alpha=1.0,
        divergence=None,
        memory={},
        processes=processes,
    )


def test_each_task_is_credited_as_if_it_were_alone(small: Callable[..., Settings]) -> None:
    settings = small("uncertainty=exponential")
    numbers = [scored(0, 3.0, 2.0, 3.0, 4.0), scored(1, 2.0, 1.0, 1.0, 2.5)]
    words = [named(2, "noise", "blur", "noise"), named(3, "blur", "blur", "noise")]
    mixed = credit_of(settings, [numbers[0], words[0], words[1], numbers[1]], TASKS)
    alone = {
        task: credit_of(settings, groups, {task: TASKS[task]})
        for task, groups in (("score", numbers), ("degradation", words))
    }
    for task, rows in (("score", [0, 3]), ("degradation", [1, 2])):
        assert torch.equal(mixed.rewards[rows], alone[task].rewards)
        assert torch.equal(mixed.advantages[rows], alone[task].advantages)
        assert torch.equal(mixed.weights[rows], alone[task].weights)
    assert mixed.tasks == ("score", "degradation", "degradation", "score")
    assert set(mixed.breakdown) == {"score.place", "score.near", "degradation.noise"}
    assert mixed.rewards[1].tolist() == [3.0, 0.0, 3.0]
    assert mixed.breakdown["score.place"].tolist() == [[0.5] * 3, [1.0] * 3]


def test_answers_in_words_are_never_uncertain(small: Callable[..., Settings]) -> None:
    credit = credit_of(
        small("uncertainty=exponential"), [scored(0, 3.0, 1.0, 5.0), named(1, "blur", "noise")], TASKS
    )
    assert credit.weights[0] < 1.0 and credit.weights[1] == 1.0
    assert credit.scores[1].isnan().all()


def test_an_answer_in_words_counts_as_read() -> None:
    silent = group(2, [Answer(score=None), Answer(score=None)], None, "degradation")
    metrics = rollout_metrics([scored(0, 3.0, 1.0, 5.0), named(1, "blur", "noise"), silent], tasks=TASKS)
    assert metrics.values()["train/group/unparsed_frac"] == pytest.approx(1 / 3)


def test_scores_are_out_of_range_on_their_own_tasks_scale() -> None:
    hundred = TaskSettings(form="score", answer_rule="strict", low=0.0, high=100.0)
    percent = replace(scored(1, 3.0, 0.0, 70.0, 101.0), task="percent")
    metrics = rollout_metrics([scored(0, 3.0, 0.5, 5.0, 6.0), percent], tasks={**TASKS, "percent": hundred})
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
    plans = [data.plan(step, seed=3, prompts_per_step=8) for step in range(10)]
    planned = [one for plan in plans for one in plan]
    assert Counter(one.task for one in planned) == {"score": 60, "words": 20}
    assert [one.index for one in plans[4]] == list(range(8))
    assert plans[4] == data.plan(4, seed=3, prompts_per_step=8)
    assert any(len({one.task for one in plan}) == 2 for plan in plans)


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
    words = replace(named(0, "noise", "noise"))
    kwargs: dict[str, Any] = {"tasks": {"degradation": TASKS["degradation"]}}
    credit = credit_of(settings, [words], **kwargs)
    assert credit.advantages.abs().max() == 0.0
    assert not math.isnan(float(credit.rewards.sum()))
