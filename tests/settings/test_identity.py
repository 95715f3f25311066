"""What a run's id, name and directory depend on, and what they must not."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from qhk.config.compose import compose_config, plain_config
from qhk.settings.identity import difference, run_directory, run_id, run_name
from qhk.settings.parse import parse_settings
from tests.conftest import repository_catalogue


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    overrides = ["experiment=q_hawkeye"]
    return plain_config(compose_config("train", overrides, repository_catalogue()))


def _with(plain: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(plain)
    *parents, last = key.split(".")
    node = changed
    for part in parents:
        node = node[part]
    assert node[last] != value
    node[last] = value
    return changed


OUTSIDE = {
    "paths.outputs": "/elsewhere",
    "paths.datasets": "/elsewhere",
    "tracking.wandb": "online",
    "study": "other",
    "name": "other",
    "distributed.form": "single",
    "model.branch_checkpointing": True,
    "training.prompts_per_device": 2,
    "rollout.decode_batch": 64,
    "evaluation.batch_images": 3,
    "loading.workers": 7,
    "loading.keep_encoded": 64,
    "dry_run": True,
    "fresh": True,
    "checkpoint": "somewhere",
    "dataset.koniq.root": "/elsewhere",
    "dataset.miniature_koniq.miniature": False,
    "dataset.koniq.expected": None,
    "dataset.koniq.sources": [],
}
INSIDE = {
    "seed": 1,
    "model.path": "other",
    "optimizer.lr": 1e-3,
    "training.prompts_per_step": 16,
    "training.threads": 1,
    "dataset.koniq.protocol": "other",
    "loading.validation_limit": 3,
    "loading.keep_features": 64,
    "reward.terms.accuracy.tau": 0.5,
    "evaluation.bootstrap": 7,
    "rollout.group_size": 5,
}


@pytest.mark.parametrize("key", OUTSIDE)
def test_id_ignores_where_and_how_fast(key: str, plain: dict[str, Any]) -> None:
    changed = parse_settings(_with(plain, key, OUTSIDE[key]))
    assert run_id(changed) == run_id(parse_settings(plain))


@pytest.mark.parametrize("key", INSIDE)
def test_id_follows_what_is_computed(key: str, plain: dict[str, Any]) -> None:
    changed = parse_settings(_with(plain, key, INSIDE[key]))
    assert run_id(changed) != run_id(parse_settings(plain))


def test_id_is_twelve_digits_and_ignores_the_order_of_keys(plain: dict[str, Any]) -> None:
    turned = {key: plain[key] for key in reversed(plain)}
    assert re.fullmatch("[0-9a-f]{12}", run_id(parse_settings(plain)))
    assert run_id(parse_settings(turned)) == run_id(parse_settings(plain))


def test_id_does_not_tell_one_from_one_point_zero(plain: dict[str, Any]) -> None:
    same = copy.deepcopy(plain)
    same["rollout"]["temperature"] = 1
    assert run_id(parse_settings(same)) == run_id(parse_settings(plain))


@pytest.mark.parametrize(
    ("experiment", "overrides", "name"),
    [
        (None, [], "default"),
        ("q_hawkeye", ["experiment=q_hawkeye", "seed=3", "dry_run=true", "paths.outputs=/x"], "q_hawkeye"),
        (None, ["uncertainty=none", "data=koniq"], "default__data-koniq__uncertainty-none"),
        (None, ["benchmark=[koniq,spaq]"], "default__benchmark-koniq+spaq"),
        (None, ["optimizer.lr=1e-4"], "default__optimizer.lr-1e-4"),
        (None, ["prompt.user='a b/c'"], "default__prompt.user-_a_b_c"),
        (
            None,
            ["tracking=none", "dataset.koniq.root=/x", "study=s", "training.prompts_per_device=2"],
            "default",
        ),
        ("ablation/no_gamma", [], "ablation_no_gamma"),
    ],
)
def test_name(experiment: str | None, overrides: list[str], name: str) -> None:
    assert run_name(experiment, overrides) == name


def test_name_ignores_the_order_of_overrides() -> None:
    assert run_name(None, ["a=1", "b=2"]) == run_name(None, ["b=2", "a=1"])


def test_long_names_are_cut_and_stay_apart() -> None:
    one, two = (run_name(None, [f"prompt.user={'x' * 300}{end}"]) for end in "ab")
    assert len(one) == len(two) == 96
    assert one != two


def test_directory_holds_study_name_and_seed(plain: dict[str, Any]) -> None:
    settings = parse_settings({**plain, "name": "n", "study": "s", "seed": 2})
    assert run_directory(settings) == Path("outputs/s/n/seed2")
    with pytest.raises(ValueError, match="name: missing"):
        run_directory(parse_settings(plain))


def test_a_difference_names_what_is_computed_otherwise(plain: dict[str, Any]) -> None:
    one = parse_settings(plain)
    assert difference(one, parse_settings(_with(_with(plain, "study", "other"), "loading.workers", 7))) == ""
    changed = _with(_with(plain, "seed", 1), "optimizer.lr", 1e-3)
    assert difference(one, parse_settings(changed)) == "seed was 0, is 1; optimizer.lr was 5e-06, is 0.001"
    other = parse_settings(_with(plain, "data", ["spaq"]))
    assert difference(one, other) == "data.koniq was 1.0, is left out; data.spaq was left out, is 1.0"
