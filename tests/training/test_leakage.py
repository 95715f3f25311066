"""Copies that a set holds of its own images are its own affair, in whichever stage it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qhk.data.inventory import FileFacts
from qhk.training.data import RunData, refuse_shared_images
from qhk.types import Example

COPY = FileFacts(
    sha256="same",
    num_bytes=9,
    width=64,
    height=64,
    format="PNG",
    problem=None,
    decoded=False,
    perceptual_hash=None,
)


def picture(name: str) -> Example:
    return Example(
        id=name, dataset="set", image=Path(f"/set/{name}"), mos=3.0, mos_native=3.0, higher_is_better=True
    )


def read(train: Sequence[Example], validation: Sequence[Example]) -> RunData:
    return RunData(
        train={"set": train},
        weights={"set": 1.0},
        tasks={"set": "score"},
        validation={"score": validation},
        benchmarks=[],
        fingerprints={},
        files={example.image: COPY for example in (*train, *validation)},
    )


def test_a_set_with_copies_is_read_in_two_stages() -> None:
    """Stages of equal data are one: its validation part was read beside its own copies, and told then."""
    one, other = read([picture("a")], [picture("copy of a")]), read([picture("b")], [])
    refuse_shared_images([("first", one), ("second", replace(one)), ("third", one)])
    with pytest.raises(ValueError, match="copy of a has the"):
        refuse_shared_images([("first", one), ("second", replace(one)), ("third", other)])


def test_another_stages_copies_are_told() -> None:
    stages = [("first", read([picture("a")], [])), ("second", read([], [picture("copy of a")]))]
    with pytest.raises(
        ValueError, match=r"^stages\.second, validation part of task score: /set/copy of a has the"
    ):
        refuse_shared_images(stages)
