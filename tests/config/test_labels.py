"""The claims and names that a run has in its mirrors."""

from __future__ import annotations

from typing import Any

import pytest

from qhk.cli.job import prepare
from qhk.config.catalogue import Catalogue
from qhk.config.labels import labelled
from qhk.config.training import training_settings


@pytest.mark.parametrize("option", ["experiment/q_hawkeye", "sweep/modules"])
def test_a_claim_is_the_comment_at_the_top_on_one_line(option: str, catalogue: Catalogue) -> None:
    file = catalogue.by_place[option]
    claim = file.claim
    assert "\n" not in claim and "#" not in claim and "@package" not in claim
    first, last = [line for line in file.text.splitlines() if line.startswith("# ")][1::100][0], claim[-20:]
    assert claim.startswith(first.removeprefix("# Claim: ")) and last in file.text.replace("\n# ", " ")
    assert len(claim) > 100


@pytest.mark.parametrize(
    ("given", "tags", "notes"),
    [
        ({"notes": None, "tags": []}, ["grpo_baseline", "modules"], True),
        ({"notes": "mine", "tags": ["a"]}, ["a"], False),
        ({}, ["grpo_baseline", "modules"], True),
    ],
)
def test_what_the_user_gives_beats_the_claims(
    given: dict[str, Any], tags: list[str], notes: bool, catalogue: Catalogue
) -> None:
    words = ["experiment=grpo_baseline", "sweep=modules"]
    found = labelled({"tracking": {"wandb": "off", **given}, "seed": 0}, words, catalogue)
    claims = [catalogue.by_place[place].claim for place in ("experiment/grpo_baseline", "sweep/modules")]
    assert found == {
        "seed": 0,
        "tracking": {"wandb": "off", "tags": tags, "notes": "\n\n".join(claims) if notes else "mine"},
    }


def test_runs_and_cells_of_sweeps_have_them(catalogue: Catalogue) -> None:
    words = ["experiment=q_hawkeye", "scale=miniature"]
    claim = catalogue.by_place["experiment/q_hawkeye"].claim
    (cell,) = training_settings(words, [0], catalogue)
    for settings in (cell, prepare("train", words, catalogue).settings):
        assert (settings.tracking.tags, settings.tracking.notes) == (["q_hawkeye"], claim)
    bare = prepare("train", [], catalogue).settings.tracking
    assert (bare.tags, bare.notes) == ([], None)
