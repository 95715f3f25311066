"""What composes but does not fit is told before a model is built, in one line; what fits is let through."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from qhk.cli.catalogue import config_root, read_catalogue
from qhk.cli.job import prepare
from qhk.rewards.batch import ScoredGroup
from qhk.settings import Settings
from qhk.training.reward_fit import refuse_unfit_rewards
from qhk.training.stages import load_stages
from qhk.types import Completion, Example
from tests.training.conftest import Quiet

CATALOGUE = read_catalogue(config_root())
SCORE = ("task=score", "prompt=score")
JSON = ("task=score_json", "prompt=score_json")
FIVE = ("task=multi_aspect", "prompt=multi_aspect")
VIDEO = ("task=video", "prompt=video")
WORDS = ("task=degradation", "prompt=degradation", "uncertainty=none")
CHOICE = ("task=comparison", "prompt=comparison", "uncertainty=none")
TASKS = {
    **dict.fromkeys(("q_hawkeye", "q_hawkeye_overlong", "q_hawkeye_paper"), SCORE),
    **dict.fromkeys(("visualquality_r1", "preresq_r1_score"), SCORE),
    "q_hawkeye_release": (*SCORE, "task.answer_rule=q_hawkeye_release"),
    "visualquality_r1_release": (*SCORE, "task.answer_rule=visualquality_r1_release"),
    "q_insight_score": JSON,
    "q_insight_score_release": (*JSON, "task.answer_rule=q_insight_release"),
    "q_insight_degradation": WORDS,
    "q_insight_degradation_release": (*WORDS, "task.answer_rule=q_insight_release"),
    "q_insight_comparison": CHOICE,
    "q_insight_comparison_release": (*CHOICE, "task.answer_rule=q_insight_release"),
    "preresq_r1": FIVE,
    "preresq_r1_exploration": FIVE,
    "preresq_r1_stability": FIVE,
    "preresq_r1_release": (*FIVE, "task.answer_rule=preresq_r1_release"),
    "preresq_r1_video": VIDEO,
    "preresq_r1_video_release": (*VIDEO, "task.answer_rule=preresq_r1_release"),
}
"""Every option of the reward group with the task that it was made for."""

calls: list[Completion | Sequence[ScoredGroup]] = []


def of_the_text(completion: Completion, example: Example) -> float:
    """A user's reward that has nothing to do with the answer."""
    calls.append(completion)
    return 0.0 * len(f"{completion} {example}")


def of_the_score(completion: Completion, example: Example) -> float:
    """A user's reward that gives up without a score."""
    return 0.0 if completion.answer.score is None else 1.0


def of_the_score_or_the_text(completion: Completion, example: Example) -> float:
    """One that has something to say without a score, too."""
    return len(completion.text) if completion.answer.score is None else 1.0


def of_the_score_or_a_cut(completion: Completion, example: Example) -> float:
    return -1.0 if completion.truncated else float(completion.answer.score is not None)


def of_the_score_or_the_length(completion: Completion, example: Example) -> float:
    return float(completion.answer.score is not None) - (completion.num_tokens > 1000)


def of_the_score_or_the_words(completion: Completion, example: Example) -> float:
    return float(completion.answer.score is not None) - (len(completion.text) > 200)


def of_the_score_or_the_example(completion: Completion, example: Example) -> float:
    return float(completion.answer.score is not None) - (example.opinion > 3)


def of_all_as_data(completion: Completion, example: Example) -> float:
    return float(asdict(completion)["answer"]["labels"]["severity"] == "slight")


def of_noise(completion: Completion, example: Example) -> float:
    return float(completion.answer.labels.get("distortion_class") == "noise")


def broken(completion: Completion, example: Example) -> float:
    return float({"scale": 5}["length"])


def of_groups(groups: Sequence[ScoredGroup]) -> list[list[float]]:
    calls.append(groups)
    return [[0.0] * len(group.scores) for group in groups]


def example(number: int = 0, *, mos: float | None = 3.0, **labels: str) -> Example:
    return Example(
        id=f"{number}.png",
        dataset="set",
        image=Path("x.png"),
        mos=mos,
        mos_native=mos,
        higher_is_better=True,
        labels=labels,
    )


BLUR = {"distortion_class": "blur", "severity": "slight"}
EXAMPLES = [example(number, mos=1.5 + number, **BLUR, choice="Image B") for number in range(3)]


def check(*words: str, examples: Sequence[Example] = EXAMPLES, where: str = "") -> list[str]:
    return refuse_unfit_rewards(prepare("train", words, CATALOGUE).settings, examples, where=where)


def own(name: str) -> tuple[str, ...]:
    """A reward of one term, of this file."""
    return (
        "reward=q_hawkeye",
        "~reward.terms.accuracy",
        "~reward.terms.format",
        f"+reward.terms.mine={{_target_: {__name__}.{name}, weight: 1.0}}",
    )


@pytest.mark.parametrize("reward", CATALOGUE.options["reward"])
def test_every_reward_fits_the_task_it_was_made_for(reward: str) -> None:
    check(f"reward={reward}", *TASKS[reward])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("reward=q_insight_degradation", *SCORE),
            "labels: does not fit task.form score with answer_rule strict",
        ),
        (("reward=q_insight_comparison", *SCORE), "choice: does not fit task.form score"),
        (("reward=q_insight_comparison", *WORDS), "choice: does not fit task.form degradation"),
        (
            ("reward=q_hawkeye", *WORDS),
            "accuracy: does not fit task.form degradation with answer_rule json: it looks at an answer's "
            "score, which a true one lacks, and always pays 0; choose a reward",
        ),
        (("reward=q_insight_score", *CHOICE), "accuracy: does not fit task.form comparison"),
        (("reward=preresq_r1", *SCORE), "balance: does not fit task.form score"),
        (("reward=preresq_r1_video", *JSON), "balance: does not fit task.form score with answer_rule json"),
        (
            ("reward=q_insight_score", *SCORE),
            "format: does not fit task.form score with answer_rule strict: no true answer has this form, "
            "such as '<think>",
        ),
        (("reward=q_hawkeye_release", *JSON), "format: does not fit task.form score with answer_rule json"),
        (("reward=preresq_r1_release", *VIDEO), "format: does not fit task.form video"),
        (
            (*own("broken"), *SCORE),
            "mine: does not fit task.form score with answer_rule strict: raised KeyError: 'length' for a "
            "true answer; choose",
        ),
    ],
)
def test_what_does_not_fit_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^there: reward.terms.{re.escape(message)}") as caught:
        check(*words, where="there: ")
    assert "\n" not in str(caught.value)


def test_a_penalty_of_single_scores_is_refused() -> None:
    penalty = (
        "+reward.terms.penalty={_target_: qhk.rewards.aspects.response_penalty, weight: 1.0, deviation: 0.5}"
    )
    with pytest.raises(ValueError, match=r"^reward\.terms\.penalty: does not fit task\.form score"):
        check("reward=q_hawkeye", *SCORE, penalty)


def test_labels_without_a_score_are_refused_in_the_same_words() -> None:
    alone = [example(mos=None, **BLUR)]
    with pytest.raises(
        ValueError, match=r"^reward\.terms\.accuracy: does not fit task\.form degradation .*no score"
    ):
        check("reward=q_hawkeye", *WORDS, examples=alone)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("of_the_text", SCORE),
        ("of_the_text", CHOICE),
        ("of_noise", WORDS),
        ("of_the_score", FIVE),
        ("of_the_score_or_the_text", WORDS),
    ],
)
def test_a_users_reward_that_can_work_is_let_through(name: str, task: tuple[str, ...]) -> None:
    """A constant one, too, that looks at no field which the answer lacks."""
    assert check(*own(name), *task) == []


@pytest.mark.parametrize(
    "name",
    [
        "of_the_score_or_a_cut",
        "of_the_score_or_the_length",
        "of_the_score_or_the_words",
        "of_the_score_or_the_example",
    ],
)
def test_a_users_reward_of_what_is_no_field_is_not_said_to_be_constant(name: str) -> None:
    assert check(*own(name), *CHOICE) == []


@pytest.mark.parametrize(("name", "field"), [("of_the_score", "score"), ("of_noise", "label distortion_cl")])
def test_a_users_reward_that_seems_constant_is_only_noted(name: str, field: str) -> None:
    (note,) = check(*own(name), *CHOICE, where="there: ")
    assert note.startswith(f"note: there: reward.terms.mine: it looks at an answer's {field}")
    assert "always pays 0" in note


def test_a_users_reward_may_take_the_completion_apart() -> None:
    assert check(*own("of_all_as_data"), *WORDS) == []


def test_a_format_is_tried_with_every_writing_that_the_rule_reads() -> None:
    words = ("task=score", "task.answer_rule=visualquality_r1_release", "prompt=score_json")
    assert check("reward=q_insight_score", *words) == []


def test_a_users_reward_sees_one_true_answer(small: Callable[..., Settings]) -> None:
    calls.clear()
    check(*own("of_the_text"), *SCORE)
    (seen,) = calls
    assert isinstance(seen, Completion)
    assert seen.text == "<think>bad</think><answer>1.50</answer>"
    assert (seen.answer.score, seen.answer.parsed, seen.truncated) == (1.5, True, False)
    calls.clear()
    check(*own("of_groups"), *FIVE, "rollout.group_size=2")
    ((one, two, three),) = calls
    assert isinstance(two, ScoredGroup)
    assert (two.mos, two.scores, two.aspects) == (2.5, (2.5, 2.5), ((2.5,) * 5,) * 2)


def test_an_answer_that_the_rule_cannot_read_is_told() -> None:
    words = ("reward=q_insight_comparison", *CHOICE, "task.answer_rule=choice_of_two")
    check(*words, examples=[example(mos=None, choice="Similar"), example(mos=None, choice="Image A")])
    with pytest.raises(ValueError, match=r"^task\.answer_rule: choice_of_two reads none of the true answers"):
        check(*words, examples=[example(mos=None, choice="Similar")])


def test_stages_are_told_before_the_first_runs(small: Callable[..., Settings]) -> None:
    words = ("stages=exploration_then_stability",)
    with pytest.raises(
        ValueError, match=r"^stages\.exploration: reward\.terms\.balance: does not fit task\.form score"
    ):
        load_stages(small(*words), Quiet())
    supervised = small(*words, "training.learner=supervised")
    assert len(load_stages(supervised, Quiet())) == 2


def test_a_part_of_a_mixture_is_told_by_its_key(small: Callable[..., Settings]) -> None:
    from tests.training.test_step import MIXED

    wrong = ("reward@mixture.degradation.reward=q_hawkeye",)
    with pytest.raises(ValueError, match=r"^mixture\.degradation\.reward\.terms\.accuracy: does not fit"):
        load_stages(small(*MIXED, *wrong), Quiet())
