from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from qhk.rewards.answer import ANSWER_RULES
from qhk.rewards.compose import build_terms, total_reward
from qhk.rewards.term import Positive, RewardTerm
from qhk.types import Completion, Example

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
    total, breakdown = total_reward(completion, make_example(3.75), build_terms(RELEASE))
    assert breakdown == pytest.approx(
        {"accuracy": accuracy, "format": form, "repetition": repetition}, abs=5e-5
    )
    assert total == pytest.approx(accuracy + 0.8 * form + repetition, abs=5e-5)
    assert list(breakdown) == ["accuracy", "format", "repetition"]


def test_the_breakdown_is_unweighted(make_completion: Make, make_example: MakeExample) -> None:
    terms = [
        RewardTerm(name="a", weight=2.0, function=lambda completion, example: 0.5),
        RewardTerm(name="b", weight=0.1, function=lambda completion, example: -1.0),
    ]
    assert total_reward(make_completion(""), make_example(3.0), terms) == (0.9, {"a": 0.5, "b": -1.0})


def test_two_terms_of_one_name_are_refused(make_completion: Make, make_example: MakeExample) -> None:
    terms = [RewardTerm(name="a", weight=1.0, function=lambda completion, example: 0.5)] * 2
    with pytest.raises(ValueError, match=r"reward\.terms\.a: named twice"):
        total_reward(make_completion(""), make_example(3.0), terms)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rewards_that_are_not_finite_are_refused(
    make_completion: Make, make_example: MakeExample, value: float
) -> None:
    terms = [RewardTerm(name="mine", weight=1.0, function=lambda completion, example: value)]
    with pytest.raises(ValueError, match=r"reward\.terms\.mine: gave (nan|inf) for one"):
        total_reward(make_completion(""), make_example(3.0), terms)


def test_a_users_own_reward_is_any_importable_function(
    make_completion: Make, make_example: MakeExample
) -> None:
    (term,) = build_terms({"own": USER})
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


@pytest.mark.parametrize("key", ["_target_", "weight", "power", "how"])
def test_a_missing_key_is_named(key: str) -> None:
    spec = {name: value for name, value in USER.items() if name != key}
    with pytest.raises(ValueError, match=rf"reward\.terms\.own\.{key}: is missing; "):
        build_terms({"own": spec})


def test_terms_without_settings_say_so() -> None:
    with pytest.raises(ValueError, match=r"but think_answer_format takes no settings; remove it"):
        build_terms({"f": {"_target_": "qhk.rewards.format.think_answer_format", "weight": 1.0, "tau": 1.0}})


def test_no_terms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"reward\.terms: is empty"):
        build_terms({})


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "conf" / "reward").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_reward_of_the_config_builds(path: Path) -> None:
    loaded = OmegaConf.load(path)
    if "defaults" in loaded:
        pytest.skip("states only what differs from another option")
    node = OmegaConf.merge({"task": {"low": 1.0, "high": 5.0}}, {"reward": loaded})
    reward = OmegaConf.to_container(node, resolve=True)["reward"]  # type: ignore[index,call-overload]
    assert reward["answer_rule"] in ANSWER_RULES
    assert [term.name for term in build_terms(reward["terms"])] == list(reward["terms"])


def test_the_release_of_the_config_is_the_release_of_the_vectors() -> None:
    path = Path(__file__).parents[2] / "conf" / "reward" / "q_hawkeye_release.yaml"
    node = OmegaConf.merge({"task": {"low": 1.0, "high": 5.0}}, {"reward": OmegaConf.load(path)})
    reward = OmegaConf.to_container(node, resolve=True)["reward"]  # type: ignore[index,call-overload]
    assert reward == {"answer_rule": "q_hawkeye_release", "terms": RELEASE}
