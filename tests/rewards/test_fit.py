"""A reward that does not fit its task is refused in one line before a model is built."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from qhk.rewards.batch import ScoredGroup
from qhk.rewards.compose import build_terms
from qhk.rewards.fit import refuse_unfit
from qhk.rewards.term import RewardTerm
from qhk.tasks import find_form, form_names
from qhk.types import Completion, Example
from tests.rewards.steps import TASKS
from tests.tasks.builders import task_of

Load = Callable[[str], list[RewardTerm]]
How = tuple[str, str]

SCORE, JSON = ("score", "strict"), ("score", "json")
FIVE, VIDEO = ("multi_aspect", "lines"), ("video", "lines")
WORDS, CHOICE = ("degradation", "json"), ("comparison", "choice")


calls: list[Completion | Sequence[ScoredGroup]] = []


def of_the_text(completion: Completion, example: Example) -> float:
    """A user's reward that has nothing to do with the answer."""
    calls.append(completion)
    return 0.0 * len(f"{completion} {example}")


def of_the_score(completion: Completion, example: Example) -> float:
    """A user's reward that gives up without a score."""
    return 0.0 if completion.answer.score is None else 1.0


def broken(completion: Completion, example: Example) -> float:
    return float({"scale": 5}["length"])


def infinite(completion: Completion, example: Example) -> float:
    return float("inf")


def of_groups(groups: Sequence[ScoredGroup]) -> list[list[float]]:
    calls.append(groups)
    return [[0.0] * len(group.scores) for group in groups]


def of_aspects(completion: Completion, example: Example) -> float:
    return completion.answer.aspects[0]


NEEDS = {"of_aspects": ("aspects",)}


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
EXAMPLES = [example(number, mos=1.5 + number, **BLUR, choice="Image B") for number in range(4)]


def check(terms: list[RewardTerm], how: How, examples: Sequence[Example] = EXAMPLES, where: str = "") -> None:
    decimals = 0 if how[0] in ("degradation", "comparison") else 2
    refuse_unfit(terms, task_of(*how), examples, decimals=decimals, group_size=2, where=where)


def own(name: str) -> list[RewardTerm]:
    """A reward of one term, of this file."""
    return build_terms({"mine": {"_target_": f"{__name__}.{name}", "weight": 1.0}})


@pytest.mark.parametrize("option", sorted(TASKS))
def test_every_reward_fits_the_task_it_was_made_for(load_terms: Load, option: str) -> None:
    check(load_terms(option), TASKS[option])


@pytest.mark.parametrize(
    ("option", "how", "message"),
    [
        (
            "q_insight_degradation",
            SCORE,
            "labels: does not fit task.form score with answer_rule strict: it needs",
        ),
        ("q_insight_comparison", SCORE, "choice: does not fit task.form score"),
        ("q_insight_comparison", WORDS, "choice: does not fit task.form degradation"),
        (
            "q_hawkeye",
            WORDS,
            "accuracy: does not fit task.form degradation with answer_rule json: it needs an answer's score, "
            "but a true one has distortion_class and severity only; choose a reward",
        ),
        ("q_insight_score", CHOICE, "accuracy: does not fit task.form comparison"),
        ("preresq_r1", SCORE, "balance: does not fit task.form score"),
        ("preresq_r1_video", JSON, "balance: does not fit task.form score with answer_rule json"),
        ("preresq_r1_score", CHOICE, "pairwise: does not fit task.form comparison"),
        ("visualquality_r1", WORDS, "fidelity: does not fit task.form degradation"),
        (
            "q_insight_score",
            SCORE,
            "format: does not fit task.form score with answer_rule strict: no true answer has this form, "
            "such as '<think>",
        ),
        ("q_hawkeye_release", JSON, "format: does not fit task.form score with answer_rule json"),
        ("preresq_r1_release", VIDEO, "format: does not fit task.form video"),
    ],
)
def test_what_does_not_fit_is_refused(load_terms: Load, option: str, how: How, message: str) -> None:
    with pytest.raises(ValueError, match=f"^there: reward.terms.{re.escape(message)}") as caught:
        check(load_terms(option), how, where="there: ")
    assert "\n" not in str(caught.value)


def test_a_penalty_of_single_scores_is_refused() -> None:
    spec = {"_target_": "qhk.rewards.aspects.response_penalty", "weight": 1.0, "deviation": 0.25}
    with pytest.raises(
        ValueError, match="penalty: does not fit task.form score .* it needs an answer's aspects"
    ):
        check(build_terms({"penalty": spec}), SCORE)


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("broken", SCORE, "raised KeyError: 'length' for a true answer; choose"),
        ("infinite", SCORE, "gave inf for 0.png"),
        ("of_aspects", SCORE, "it needs an answer's aspects, but a true one has score only"),
        ("of_groups", WORDS, "it needs an answer's score, but a true one has distortion_class"),
    ],
)
def test_a_users_reward_that_cannot_work_is_refused(name: str, how: How, message: str) -> None:
    rule = f"^reward.terms.mine: does not fit task.form {how[0]} with answer_rule {how[1]}: {message}"
    with pytest.raises(ValueError, match=rule):
        check(own(name), how)


@pytest.mark.parametrize(
    ("name", "how"),
    [("of_the_text", CHOICE), ("of_the_score", FIVE), ("of_the_score", WORDS), ("of_aspects", VIDEO)],
)
def test_a_users_reward_that_can_be_called_is_let_through(name: str, how: How) -> None:
    """One without a declaration, too, whatever it pays."""
    check(own(name), how)


def test_a_format_is_tried_with_every_writing_that_the_rule_reads(load_terms: Load) -> None:
    check(load_terms("q_insight_score"), ("score", "visualquality_r1_release"))
    check(load_terms("q_insight_score_release"), JSON)


def test_a_term_is_tried_on_true_answers() -> None:
    calls.clear()
    check(own("of_the_text"), SCORE)
    (seen,) = calls
    assert isinstance(seen, Completion)
    assert seen.text == "<think>bad</think><answer>1.50</answer>"
    assert (seen.answer.score, seen.answer.parsed, seen.truncated) == (1.5, True, False)
    calls.clear()
    check(own("of_groups"), FIVE)
    ((one, two, three),) = calls
    assert isinstance(two, ScoredGroup)
    assert (two.mos, two.scores, two.aspects) == (2.5, (2.5, 2.5), ((2.5,) * 5,) * 2)


def test_an_answer_that_the_rule_cannot_read_is_told(load_terms: Load) -> None:
    terms, how = load_terms("q_insight_comparison"), ("comparison", "choice_of_two")
    similar = example(mos=None, choice="Similar")
    check(terms, how, [similar, example(mos=None, choice="Image A")])
    with pytest.raises(ValueError, match=r"^task\.answer_rule: choice_of_two reads none of the true answers"):
        check(terms, how, [similar])


def test_every_declared_need_is_a_part_of_some_tasks_answer(load_terms: Load) -> None:
    parts = {part for name in form_names() for part in find_form(name).answer_parts()}
    needs = {term.name: term.needs for option in TASKS for term in load_terms(option)}
    assert {part for needed in needs.values() for part in needed} == parts
