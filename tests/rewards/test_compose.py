from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from qhk.config.compose import compose_config, plain_config
from qhk.errors import UserError
from qhk.rewards.batch import ScoredGroup, scored_group
from qhk.rewards.compose import build_terms
from qhk.rewards.term import (
    BatchTerm,
    CompletionTerm,
    Positive,
    batch_values,
    completion_value,
    scheduled,
)
from qhk.types import Completion, Example
from tests.conftest import repository_catalogue

Make = Callable[..., Completion]
MakeExample = Callable[[float], Example]

ACCURACY: dict[str, Any] = {
    "_target_": "qhk.rewards.score.exponential_error",
    "weight": 1.0,
    "tau": 0.3,
    "low": 1.0,
    "high": 5.0,
    "out_of_range": "clip",
}
RELEASE: dict[str, dict[str, Any]] = {
    "accuracy": ACCURACY,
    "format": {"_target_": "qhk.rewards.format.q_hawkeye_release_format", "weight": 0.8},
    "repetition": {"_target_": "qhk.rewards.repetition.q_hawkeye_release_repetition", "weight": 1.0},
}


def user_reward(
    completion: Completion,
    example: Example,
    *,
    power: int,
    scale: float | None,
    cuts: Sequence[float],
    deep: bool,
    label: str,
    how: Literal["near", "far"],
    reach: Positive,
) -> float:
    return float(power)


def not_a_reward(completion: Completion, *, power: int) -> float:
    return float(power)


def comparing(groups: Sequence[ScoredGroup], *, bonus: float) -> list[list[float]]:
    return [[bonus + group.mos for _ in group.scores] for group in groups]


def with_default(completion: Completion, example: Example, *, power: int, how: str = "near") -> float:
    return power if how == "near" else -power


def comparing_nothing(groups: Sequence[float], *, bonus: float) -> list[list[float]]:
    return []


def comparing_one(groups: Sequence[ScoredGroup], example: Example, *, bonus: float) -> list[list[float]]:
    return []


def unreadable(groups: Sequence[Nowhere], *, bonus: float) -> list[list[float]]:  # type: ignore[name-defined]  # noqa: F821
    return []


GROUP = ScoredGroup(id="picture", dataset="none", mos=3.0, scores=(3.5, None))
NOT_CALLABLE = 3.0

USER: dict[str, Any] = {
    "_target_": f"{__name__}.user_reward",
    "weight": 1,
    "power": 2,
    "scale": None,
    "cuts": [1, 2.5],
    "deep": False,
    "label": "x",
    "how": "near",
    "reach": 1,
}


@pytest.mark.parametrize(
    ("text", "accuracy", "form", "repetition"),
    [
        ("<think>x</think><answer>3.50</answer>", 0.4346, 1.0, 0.0),
        ("<answer>3.50</answer>", 0.4346, 0.0, 0.0),
        ("<think>x</think><answer>7.9</answer>", 0.0155, 1.0, 0.0),
        ("this image is blurred and noisy with weak colours and poor sharpness", 0.0, 0.0, -2.0),
    ],
)
def test_published_vectors_of_the_release(
    make_completion: Make,
    make_example: MakeExample,
    text: str,
    accuracy: float,
    form: float,
    repetition: float,
) -> None:
    completion = make_completion(text, "q_hawkeye_release")
    terms = build_terms(RELEASE)
    values = [completion_value(term, completion, make_example(3.75)) for term in terms]  # type: ignore[arg-type]
    assert values == pytest.approx([accuracy, form, repetition], abs=5e-5)
    assert [(term.name, term.weight) for term in terms] == [
        ("accuracy", 1.0),
        ("format", 0.8),
        ("repetition", 1.0),
    ]


def test_values_come_before_their_weight(make_completion: Make, make_example: MakeExample) -> None:
    term = CompletionTerm(name="a", weight=2.0, function=lambda completion, example: 0.5)
    assert completion_value(term, make_completion(""), make_example(3.0)) == 0.5
    both = BatchTerm(name="b", weight=2.0, function=lambda groups: [[1.0, 2.0]] * len(groups))
    assert batch_values(both, [GROUP, GROUP]) == [[1.0, 2.0], [1.0, 2.0]]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rewards_that_are_not_finite_are_refused(
    make_completion: Make, make_example: MakeExample, value: float
) -> None:
    term = CompletionTerm(name="mine", weight=1.0, function=lambda completion, example: value)
    with pytest.raises(ValueError, match=r"reward\.terms\.mine: gave (nan|inf) for one"):
        completion_value(term, make_completion(""), make_example(3.0))
    both = BatchTerm(name="mine", weight=1.0, function=lambda groups: [[1.0, value]])
    with pytest.raises(ValueError, match=r"reward\.terms\.mine: gave (nan|inf) for picture"):
        batch_values(both, [GROUP])


@pytest.mark.parametrize("rows", [[], [[1.0]], [[1.0, 2.0], [3.0, 4.0]]])
def test_a_value_for_every_completion_of_every_group(rows: list[list[float]]) -> None:
    term = BatchTerm(name="mine", weight=1.0, function=lambda groups: rows)
    with pytest.raises(ValueError, match=r"^reward\.terms\.mine: gave .* values for groups of \[2\]"):
        batch_values(term, [GROUP])


def test_a_users_own_reward_is_any_importable_function(
    make_completion: Make, make_example: MakeExample
) -> None:
    (term,) = build_terms({"own": USER})
    assert isinstance(term, CompletionTerm)
    assert (term.name, term.weight) == ("own", 1.0)
    assert term.function(make_completion(""), make_example(3.0)) == 2.0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("power", 2.0, r"reward\.terms\.own\.power: got 2\.0; give an integer$"),
        ("power", True, r"power: got True; give an integer"),
        ("scale", "abc", r"scale: got 'abc'; give a number or null"),
        ("scale", math.nan, r"scale: got nan"),
        ("cuts", 3.0, r"cuts: got 3\.0; give a list of a number"),
        ("cuts", [1, "x"], r"cuts: got \[1, 'x'\]"),
        ("deep", 1, r"deep: got 1; give true or false"),
        ("label", 3, r"label: got 3; give a text"),
        ("how", "nearer", r"how: got 'nearer'; give one of near, far"),
        ("reach", 0.0, r"reach: got 0\.0; give a number > 0"),
        ("reach", "x", r"reach: got 'x'; give a number > 0"),
        ("weight", 0.0, r"weight: got 0\.0; must be a number > 0, or remove the term: ~reward\.terms\.own"),
        ("weight", True, r"weight: got True"),
        ("speed", 1, r"speed: got 1, but user_reward takes power, scale, cuts, .*; remove it"),
        ("_target_", "score", r"_target_: got 'score'; give the dotted path"),
        ("_target_", 3, r"_target_: got 3; give the dotted path"),
        ("_target_", "qhk.rewards.nothing.here", r"_target_: cannot import qhk\.rewards\.nothing"),
        ("_target_", "qhk.rewards.score.nothing", r"_target_: qhk\.rewards\.score has no function nothing"),
        ("_target_", f"{__name__}.NOT_CALLABLE", r"has no function NOT_CALLABLE"),
        ("_target_", f"{__name__}.not_a_reward", r"a reward takes \(completion, example, \*, settings\)"),
    ],
)
def test_refusals_name_key_value_and_fix(key: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build_terms({"own": USER | {key: value}})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"reward.terms.own.{key}: ")


def test_what_a_function_takes_tells_its_kind() -> None:
    (term,) = build_terms({"own": {"_target_": f"{__name__}.comparing", "weight": 2.0, "bonus": 1}})
    assert isinstance(term, BatchTerm)
    assert batch_values(term, [GROUP]) == [[4.0, 4.0]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "comparing_nothing",
            r"a reward takes \(completion, .*\), or \(groups: Sequence\[ScoredGroup\], .*\)$",
        ),
        ("comparing_one", r"got comparing_one\(.*a reward takes "),
        ("unreadable", r"unreadable has an unknown annotation \(name 'Nowhere' is not defined\)"),
    ],
)
def test_functions_of_neither_kind_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^reward\.terms\.own\._target_: .*{message}") as caught:
        build_terms({"own": {"_target_": f"{__name__}.{name}", "weight": 1.0, "bonus": 1.0}})
    assert "\n" not in str(caught.value)


def test_settings_of_comparing_rewards_are_checked_too() -> None:
    spec = {"_target_": f"{__name__}.comparing", "weight": 1.0, "bonus": "x"}
    with pytest.raises(ValueError, match=r"^reward\.terms\.own\.bonus: got 'x'; give a number"):
        build_terms({"own": spec})


@pytest.mark.parametrize("key", ["_target_", "weight", "power", "how"])
def test_a_missing_key_is_named(key: str) -> None:
    spec = {name: value for name, value in USER.items() if name != key}
    with pytest.raises(ValueError, match=rf"reward\.terms\.own\.{key}: is missing; "):
        build_terms({"own": spec})


def test_a_key_with_a_default_may_be_left_out(make_completion: Make, make_example: MakeExample) -> None:
    spec = {"_target_": f"{__name__}.with_default", "weight": 1.0, "power": 2}
    for more, value in (({}, 2.0), ({"how": "far"}, -2.0)):
        (term,) = build_terms({"own": {**spec, **more}})
        assert isinstance(term, CompletionTerm)
        assert completion_value(term, make_completion("x"), make_example(3.0)) == value
    with pytest.raises(ValueError, match=r"^reward\.terms\.own\.power: is missing; "):
        build_terms({"own": {key: value for key, value in spec.items() if key != "power"}})
    with pytest.raises(ValueError, match=r"^reward\.terms\.own\.how: got 3; give a text"):
        build_terms({"own": {**spec, "how": 3}})


def test_terms_without_settings_say_so() -> None:
    with pytest.raises(ValueError, match=r"but think_answer_format takes no settings; remove it"):
        build_terms({"f": {"_target_": "qhk.rewards.format.think_answer_format", "weight": 1.0, "tau": 1.0}})


def test_no_terms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"reward\.terms: is empty"):
        build_terms({})


def test_the_release_of_the_config_is_the_release_of_the_vectors() -> None:
    words = ["reward=q_hawkeye_release", "strengths=published"]
    config = compose_config("train", words, repository_catalogue())
    assert plain_config(config)["reward"] == {"terms": RELEASE}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("high", "'high'"),
        ("3", "'3'"),
        (None, "None"),
        ([1.0], "[1.0]"),
        (10**400, "1000"),
        ([10**5000], "a list"),
        (math.nan, "nan"),
    ],
)
def test_a_value_that_is_no_number_names_its_term(
    make_completion: Make, make_example: MakeExample, given: object, shown: str
) -> None:
    single = CompletionTerm(name="mine", weight=1.0, function=lambda completion, example: given)  # type: ignore[arg-type, return-value]
    group = BatchTerm(name="ours", weight=1.0, function=lambda groups: [[given]])  # type: ignore[list-item]
    with pytest.raises(UserError, match=rf"reward\.terms\.mine: gave {re.escape(shown)}.*a finite number"):
        completion_value(single, make_completion("<answer>3.0</answer>"), make_example(3.0))
    groups = [scored_group(make_example(3.0), [make_completion("<answer>3.0</answer>").answer])]
    with pytest.raises(UserError, match=rf"reward\.terms\.ours: gave {re.escape(shown)}.*a finite number"):
        batch_values(group, groups)


@pytest.mark.parametrize("given", [None, 3.0, [1.0]])
def test_values_that_are_no_lists_name_their_term(
    make_example: MakeExample, make_completion: Make, given: object
) -> None:
    term = BatchTerm(name="ours", weight=1.0, function=lambda groups: given)  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match=r"reward\.terms\.ours: gave .*give a list of values per group"):
        batch_values(
            term, [scored_group(make_example(3.0), [make_completion("<answer>3.0</answer>").answer])]
        )


def test_a_reward_that_exits_names_its_term(make_completion: Make, make_example: MakeExample) -> None:
    def leave(*_: object) -> Any:
        sys.exit(0)

    with pytest.raises(UserError, match=r"reward\.terms\.mine: raised SystemExit: 0 for example"):
        completion_value(
            CompletionTerm(name="mine", weight=1.0, function=leave),
            make_completion("<answer>3.0</answer>"),
            make_example(3.0),
        )
    with pytest.raises(UserError, match=r"reward\.terms\.ours: raised SystemExit: 0 for the 1 groups"):
        batch_values(
            BatchTerm(name="ours", weight=1.0, function=leave),
            [scored_group(make_example(3.0), [make_completion("<answer>3.0</answer>").answer])],
        )


@pytest.mark.parametrize("line", ["import sys; sys.exit(0)", "1 / 0"])
def test_a_module_that_ends_while_it_is_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (tmp_path / "qhk_test_ending_module.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    spec = {"mine": {"_target_": "qhk_test_ending_module.f", "weight": 1.0}}
    with pytest.raises(
        UserError, match=r"mine\._target_: qhk_test_ending_module cannot be imported: it raised"
    ):
        build_terms(spec)


def test_a_schedule_multiplies_a_setting_or_a_weight(
    make_completion: Make, make_example: MakeExample
) -> None:
    """exp(-|e| / tau): half of tau is the square; other terms and the settings as built stay."""
    completion, example = make_completion("<think>x</think><answer>3.2</answer>"), make_example(3.0)
    plain = build_terms(RELEASE)
    half = scheduled(plain, {"accuracy.tau": 0.5, "format.weight": 0.25})
    assert [term.name for term in half] == list(RELEASE) and half[2] is plain[2]
    assert [term.weight for term in half] == [1.0, 0.2, 1.0]
    values = [
        completion_value(term, completion, example)
        for terms in (plain, half)
        for term in terms
        if isinstance(term, CompletionTerm)
    ]
    assert values[3] == pytest.approx(values[0] ** 2) and values[4] == values[1]
    assert scheduled(plain, {}) == plain


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+reward.schedules.accuracy.tau.final=0.5"], "reward.schedules.accuracy.tau.form"),
        (
            ["reward=threshold_curriculum", "~reward.terms.accuracy"],
            r"schedules.accuracy.threshold: must name a number of a term, one of format.weight",
        ),
        (
            ["reward=threshold_curriculum", "reward.schedules.accuracy.threshold.final=0"],
            r"schedules.accuracy.threshold: must stay above 0, got final 0",
        ),
        (
            [
                "+reward.terms.judge={_target_: qhk.rewards.service.ServiceReward, weight: 1.0, "
                "url: 'http://127.0.0.1:9', attempts: 4}",
                "+reward.schedules={judge: {attempts: {form: linear, until: null, final: 0.5, "
                "warmup: {steps: 0, epochs: null}}}}",
            ],
            r"reward.schedules.judge.attempts: comes to 4, but .*attempts: got 4.0; give an integer > 0",
        ),
        (
            [
                "+reward.terms.judge={_target_: qhk.rewards.service.ServiceReward, weight: 1.0, "
                "url: 'http://127.0.0.1:9', timeout_s: 4.0}",
                "+reward.schedules={judge: {timeout_s: {form: linear, until: null, final: 0.5, "
                "warmup: {steps: 0, epochs: null}}}}",
            ],
            r"reward.schedules.judge.timeout_s: qhk.rewards.service.ServiceReward takes its settings once",
        ),
    ],
)
def test_a_schedule_of_nothing_or_to_nothing_is_refused(words: list[str], message: str) -> None:
    from qhk.config.training import training_settings

    with pytest.raises(UserError, match=message):
        training_settings(words, [0], repository_catalogue())


def test_a_weight_may_fade_to_nothing() -> None:
    from qhk.config.training import training_settings

    words = [
        "+reward.schedules={format: {weight: {form: linear, until: null, final: 0.0, "
        "warmup: {steps: 0, epochs: null}}}}"
    ]
    (settings,) = training_settings(words, [0], repository_catalogue())
    assert settings.reward.scheduled["format.weight"].final == 0
