"""Configs of earlier versions, part by part; whole stored ones are read in tests/stored."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from qhk.errors import UserError
from qhk.settings.parse import read_settings, upgrade

READING = {"split": "train", "validation_fraction": 0.1, "limit": None, "workers": 4}


def data(name: str, **changes: object) -> dict[str, Any]:
    """A node ``data`` of version 1."""
    return {"sets": {name: 1.0}, **READING, **changes}


@pytest.fixture
def first() -> dict[str, Any]:
    """The parts of a config of version 1 that its upgrade looks at."""
    stages = {
        "one": {"place": 1, "data": None, "mixture": None},
        "two": {
            "place": 2,
            "data": data("b", limit=3),
            "mixture": {"six": {"share": 0.1, "data": data("c")}},
        },
    }
    return {"data": data("a"), "mixture": {"five": {"share": 0.5, "data": data("d")}}, "stages": stages}


def test_sets_and_how_they_are_read_come_apart_in_every_part(first: dict[str, Any]) -> None:
    before = copy.deepcopy(first)
    second = upgrade(first)
    assert first == before
    assert (second["version"], second["data"], second["loading"]) == (2, {"a": 1.0}, READING)
    one, two = second["stages"].values()
    assert one["data"] is None and "loading" not in one
    assert (two["data"], two["loading"]) == ({"b": 1.0}, {**READING, "limit": 3})
    five, six = second["mixture"]["five"], two["mixture"]["six"]
    assert (five["data"], five["loading"]) == ({"d": 1.0}, None), "null: as the run's"
    assert (six["data"], six["loading"]) == ({"c": 1.0}, READING), "its stage reads otherwise"


def test_a_mixture_that_a_stage_takes_over_reads_as_it_did(first: dict[str, Any]) -> None:
    first["stages"]["two"]["mixture"] = None
    assert upgrade(first)["mixture"]["five"]["loading"] == READING


def test_what_an_old_config_lacks_is_left_to_the_parser() -> None:
    assert upgrade({"seed": 0}) == {"seed": 0, "version": 2}


def test_the_present_version_is_left_as_it_is(first: dict[str, Any]) -> None:
    second = upgrade(first)
    assert upgrade(second) == second


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("version: 3", "version: must be at most 2, got 3; a later qhk wrote this config"),
        ("version: two", "version: must be at most 2, got 'two'"),
        ("- 1", "holds list where a mapping of keys is due"),
        ("a: [", "is not YAML (while parsing"),
        ("seed: 0", "study: missing"),
    ],
)
def test_a_stored_config_that_cannot_be_read_is_one_line_that_names_it(
    tmp_path: Path, text: str, fault: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_settings(file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)
    assert fault in str(caught.value)
