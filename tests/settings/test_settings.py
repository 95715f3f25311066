"""The rules of the settings, one wrong value at a time, from the default run's plain config."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from qhk.config.compose import compose_config, plain_config
from qhk.errors import UserError
from qhk.settings.identity import run_id
from qhk.settings.parse import parse_settings, plain_settings
from qhk.settings.root import Settings
from tests.conftest import repository_catalogue

Plain = dict[str, Any]


@pytest.fixture(scope="session")
def default_plain() -> Plain:
    return plain_config(compose_config("train", [], repository_catalogue()))


@pytest.fixture
def changed(default_plain: Plain) -> Callable[..., Plain]:
    """The default config with keys set: changed(**{'optimizer.eps': 0})."""

    def change(**values: object) -> Plain:
        plain = copy.deepcopy(default_plain)
        for key, value in values.items():
            *parents, last = key.split(".")
            node = plain
            for part in parents:
                node = node[part]
            node[last] = value
        return plain

    return change


WRONG: list[tuple[dict[str, object], str]] = [
    ({"seed": -1}, "seed: must be greater than or equal to 0, got -1"),
    ({"seed": True}, "seed: must be a whole number, got true"),
    ({"seed": 1.5}, "seed: must be a whole number, got 1.5"),
    ({"dry_run": "yes"}, "dry_run: must be true or false, got 'yes'"),
    ({"study": "a/b"}, "study: must match"),
    (
        {"training.on_collapse": "rollback", "loading.validation_fraction": 0.0},
        "training.on_collapse: rollback goes to the best checkpoint, which nothing chooses",
    ),
    (
        {"training.on_collapse": "rollback", "distributed.form": "zero2"},
        "training.on_collapse: rollback does not go with distributed=zero2",
    ),
    ({"optimizer.lr": float("inf")}, "optimizer.lr: must be a finite number"),
    ({"optimizer.betas": [0.9, 1.0]}, "optimizer.betas.1: must be less than 1, got 1.0"),
    ({"optimizer.betas": 0.9}, "optimizer.betas: must be a list, got 0.9"),
    (
        {"optimizer.learning_rate": 1.0},
        "optimizer.learning_rate: unknown key, got 1.0; did you mean lr?",
    ),
    ({"model.tiny.hiden": 1}, "model.tiny.hiden: unknown key, got 1; did you mean hidden?"),
    ({"objective.clip_low": 1.0}, "objective.clip_low: must be less than 1"),
    ({"objective.clip_high": 0}, "objective.clip_high: must be greater than 0"),
    ({"objective.ratio": "words"}, "objective.ratio: must be one of 'token', 'sequence', got 'words'"),
    ({"objective.aggregation": "constant"}, "objective.constant_length: must be a number of tokens"),
    (
        {"uncertainty.unparsed_weight": 2.0},
        "uncertainty.unparsed_weight: must be less than or equal to 1 or must",
    ),
    ({"uncertainty.history_decay": 1.0}, "uncertainty.history_decay: must be less than 1, got 1.0"),
    (
        {"uncertainty.form": "none", "uncertainty.alpha": 0.0, "uncertainty.history_decay": 0.5},
        "uncertainty.alpha: 0.0 and history_decay 0.5 have no effect with form none",
    ),
    (
        {"twin.form": "manifest", "twin.manifest": "x", "twin.strength_schedule.warmup.steps": 5},
        "twin.strength_schedule: has no effect with form manifest",
    ),
    ({"objective.truncated": "drop"}, "objective.truncated: must be one of 'keep', 'mask', 'exclude'"),
    ({"objective.max_resamples": -1}, "objective.max_resamples: must be greater than or equal to 0"),
    ({"objective.kl_placement": "both"}, "objective.kl_placement: must be one of 'loss', 'reward'"),
    ({"objective.entropy_scope": "score"}, "objective.entropy_scope: must be one of 'completion', 'answer'"),
    ({"uncertainty.form": "linear", "uncertainty.alpha": 1.5}, "uncertainty.alpha: must be at most 1"),
    ({"perception.entropy": "off", "perception.eta_original": 0.1}, "have no effect with entropy off"),
    ({"training.duration": {"steps": 1, "epochs": 1.0}}, "training.duration: set one of steps and epochs"),
    (
        {"training.duration": {"steps": None, "epochs": None}},
        "training.duration: set one of steps and epochs",
    ),
    ({"training.duration.steps": 0}, "training.duration: must be above 0"),
    ({"training.prompts_per_device": 5}, "training.prompts_per_step: must be a multiple"),
    (
        {"training.validation_readout.temperature": 0.0},
        "training.validation_readout.temperature: 0 is greedy",
    ),
    ({"evaluation.headline": "best"}, "evaluation.headline: must be one of"),
    ({"rollout.temperature": 0}, "rollout.temperature: must be greater than 0, got 0"),
    ({"rollout.decode_batch": 1}, "rollout.decode_batch: must be at least group_size"),
    ({"framing": {"form": "crop", "side": None, "pieces": None}}, "framing.side: must be a number"),
    (
        {"framing": {"form": "fragments", "side": 32, "pieces": 7}},
        r"framing.side: 224 x 224 native pixels would be shrunk to model.max_pixels 4096; set model.max_pix",
    ),
    (
        {"framing": {"form": "crop", "side": 48, "pieces": None}},
        "framing.side: 48 x 48 native pixels would be enlarged to model.min_pixels 4096; set model.min_pix",
    ),
    ({"model.min_pixels": 9999999}, "model.min_pixels: must be at most max_pixels"),
    ({"model.form": "pretrained"}, "model.path: is null; give a folder with weights or a hub id"),
    ({"model.form": "pretrained", "model.path": "x"}, "model.tiny: must be null with form pretrained"),
    ({"model.tiny": None}, "model.form: tiny needs the tiny sizes"),
    ({"model.tiny.hidden": 100}, "model.tiny.hidden: must be a multiple of 8 (twice heads), got 100"),
    (
        {"model.tiny.vision_hidden": 120},
        "model.tiny.vision_hidden: must be a multiple of 16 (four times vision_heads), got 120",
    ),
    ({"model.tiny.kv_heads": 3}, "model.tiny.heads: must be a multiple of 3 (kv_heads), got 4"),
    ({"model.tiny.hidden": 80_000}, "model.tiny.hidden: with the other sizes this makes 5.1e+10 weights"),
    ({"model.tiny.merge_size": 800}, "model.tiny.hidden: with the other sizes this makes "),
    ({"rollout.decode_batch": 2**31}, "rollout.decode_batch: must be less than or equal to 2147483647"),
    (
        {"rollout.max_new_tokens": 10**8},
        "rollout.max_new_tokens: x rollout.group_size x training.prompts_per_step are ",
    ),
    ({"loading.workers": 10**6}, "loading.workers: must be less than or equal to 1024"),
    ({"training.threads": 10**6}, "training.threads: must be less than or equal to 1024"),
    ({"evaluation.bootstrap": 10**9}, "evaluation.bootstrap: must be less than or equal to 1000000"),
    ({"cold_start.steps": 0}, "cold_start.steps: must be at least 1 with form sft"),
    ({"cold_start.form": "none"}, "cold_start.steps: must be 0 with form none"),
    ({"task.low": 5.0}, "task.low: must be below high"),
    ({"task.form": "taste"}, "task.form: unknown form 'taste'; use one of comparison, degradation, "),
    (
        {"task.answer_rule": "loose"},
        "task.answer_rule: unknown rule 'loose' of form score; use one of strict, ",
    ),
    ({"prompt.task": "comparison"}, "prompt.task: must be 'score' like task.form, got 'comparison'"),
    (
        {"data": ["kadit"]},
        "data: no set is called 'kadit'; did you mean kadid? near: ",
    ),
    ({"data": None}, "data: must name sets, such as koniq or {koniq: ...}, got null"),
    (
        {"data": ["koniq:7046"]},
        "data: 'koniq:7046' names no set; one with a value of its own is written [{koniq: 7046}]",
    ),
    ({"data": []}, "data: "),
    ({"data": [{"koniq": -1}]}, "data.koniq: must be greater than 0"),
    ({"data": ["koniq", "koniq"]}, "data: names koniq twice; keep one of them"),
    ({"data": [3]}, "data: must name sets, such as koniq or {koniq: ...}, got 3"),
    ({"benchmark": ["nowhere"]}, "benchmark: no set is called 'nowhere'"),
    (
        {"benchmark": [{"koniq": {"limit": 0}}]},
        "benchmark.koniq.limit: must be greater than or equal to 1, got 0",
    ),
    ({"twin.form": "manifest"}, "twin.form: manifest needs manifest"),
    ({"twin.kinds": ["noise", "noise"]}, "twin.kinds: must differ"),
    ({"twin.strengths": {"noise": 20.0}}, "twin.strengths: lacks blur, jpeg, darken"),
    ({"twin.strengths.fog": 2.0}, "twin.strengths.fog: must be one of noise, blur, jpeg, darken"),
    ({"twin.strengths.darken": 2.0}, "twin.strengths.darken: must lie in [0, 1], got 2.0"),
    ({"reward.terms": {}}, "reward.terms"),
    ({"reward.terms.accuracy.weight": 0}, "reward.terms.accuracy.weight: must be greater than 0, got 0"),
    ({"reward.terms.accuracy._target_": "nodots"}, "reward.terms.accuracy._target_: must match"),
    ({"tracking.wandb": False}, "tracking.wandb: must be one of 'off', 'offline', 'online', got false"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_wrong_value_is_one_line(
    values: dict[str, object], message: str, changed: Callable[..., Plain]
) -> None:
    with pytest.raises(ValueError) as caught:
        parse_settings(changed(**values))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


ADDED = (
    ("adapter",),
    ("training", "on_collapse"),
    ("training", "max_rollbacks"),
    ("training", "rollback_lr_factor"),
    ("lr_schedule", "warmup_from"),
    ("uncertainty", "answer_rule"),
    ("pairs", "roots"),
    *(("tracking", key) for key in ("notes", "tags", "completions", "predictions", "trackio")),
    ("perturbation",),
    ("model", "branch_checkpointing"),
    ("rollout", "engine"),
    ("dependency",),
    ("framing",),
    *(("loading", key) for key in ("keep_encoded", "keep_features")),
    ("model", "tiny", "image_mean"),
    ("cold_start", "label_resample"),
    *(("objective", key) for key in ("surrogate", "soft_positive", "soft_negative", "advantage_rewards")),
    *(("objective", key) for key in ("minimum_std", "credit", "entropy_share", "covariance")),
)
"""Keys that came within a version of stored configs, which lack them."""


def test_every_key_is_required(default_plain: Plain) -> None:
    """No default value hides in Python: without its YAML line, each key is missing, or what it always was."""

    def leaves(node: Plain, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = []
        for key, value in node.items():
            found.append((*path, key))
            if isinstance(value, dict):
                found += leaves(value, (*path, key))
        return found

    free = {("dataset",), ("reward", "terms"), ("evaluation", "readouts")}
    for path in leaves(default_plain, ()):
        if (
            path[:-1] in free
            or {"options", "expected", "sources"} & {*path}
            or path[:2] == ("twin", "strengths")
        ):
            continue
        if path[:2] == ("pairs", "levels") and len(path) > 2:
            continue
        if path[:2] == ("reward", "terms") and path[-1] not in ("_target_", "weight"):
            continue
        plain = copy.deepcopy(default_plain)
        node = plain
        for part in path[:-1]:
            node = node[part]
        del node[path[-1]]
        if path in ADDED or (path[0], path[-1]) == ("dataset", "roots"):
            assert run_id(parse_settings(plain)) == run_id(parse_settings(default_plain))
            continue
        with pytest.raises(ValueError, match="missing"):
            parse_settings(plain)


def test_all_problems_are_named_in_the_one_line(changed: Callable[..., Plain]) -> None:
    with pytest.raises(ValueError) as caught:
        parse_settings(changed(**{"seed": -1, "optimizer.eps": 0, "rollout.group_size": 1}))
    assert str(caught.value).startswith("seed: ")
    assert "(and 2 more: rollout.group_size, optimizer.eps)" in str(caught.value)


def test_unused_datasets_are_left_out(default_plain: Plain, changed: Callable[..., Plain]) -> None:
    settings = parse_settings(changed(benchmark=[]))
    assert set(settings.dataset) == {name for item in default_plain["data"] for name in item}


@pytest.mark.parametrize(
    ("data", "weights"),
    [
        ("koniq", {"koniq": 1.0}),
        (["koniq", "spaq"], {"koniq": 1.0, "spaq": 1.0}),
        ([{"koniq": 7046}, "spaq"], {"koniq": 7046.0, "spaq": 1.0}),
        ({"koniq": 7046, "spaq": 8897}, {"koniq": 7046.0, "spaq": 8897.0}),
    ],
)
def test_sets_are_named_in_every_form(data: object, weights: object, changed: Callable[..., Plain]) -> None:
    assert parse_settings(changed(data=data)).data == weights


def test_a_benchmark_is_named_or_given_its_keys(changed: Callable[..., Plain]) -> None:
    named = ["koniq", {"spaq": {"limit": 100}}, {"kadid": {"split": "train"}}]
    found = parse_settings(changed(benchmark=named)).benchmark
    assert [(name, one.split, one.limit) for name, one in found.items()] == [
        ("koniq", "test", None),
        ("spaq", "test", 100),
        ("kadid", "train", None),
    ]
    assert parse_settings(changed(benchmark="koniq")).benchmark.keys() == {"koniq"}


def test_settings_survive_a_round_trip(default_plain: Plain) -> None:
    settings = parse_settings(default_plain)
    assert parse_settings(plain_settings(settings)) == settings


def test_settings_are_frozen(default_plain: Plain) -> None:
    settings = parse_settings(default_plain)
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 1  # type: ignore[misc]
    assert isinstance(settings, Settings)


def test_reward_arguments_are_the_keys_beside_target_and_weight(default_plain: Plain) -> None:
    term = parse_settings(default_plain).reward.terms["accuracy"]
    expected = set(default_plain["reward"]["terms"]["accuracy"]) - {"_target_", "weight"}
    assert set(term.arguments) == expected


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("evaluation.headline=expected",), "evaluation.readouts.expected.score"),
        (("+training.validation_readout.score=expected",), "training.validation_readout.score"),
    ],
)
def test_expected_scores_are_refused_where_answers_are_words(
    compose_plain: Callable[..., Plain], words: tuple[str, ...], key: str
) -> None:
    parse_settings(compose_plain(*words))
    asked = ("task=degradation", "prompt=degradation_short", "reward=q_insight_degradation")
    with pytest.raises(
        UserError, match=f"{key}: expected needs answers in numbers.*task degradation"
    ) as caught:
        parse_settings(compose_plain(*asked, *words))
    assert "\n" not in str(caught.value)
    parse_settings(compose_plain(*asked))
