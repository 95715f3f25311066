from __future__ import annotations

from collections import Counter

import pytest

from qhk.pairs.plan import copy_name, ordered_kinds
from qhk.pairs.records import group_id
from tests.pairs.conftest import STAGE_1, a_plan


def test_kinds_are_uniform_seeded_and_never_repeated() -> None:
    plan = a_plan()
    groups = [f"group_{number}" for number in range(4000)]
    first = [ordered_kinds(plan, group_id=group, version=1, used=())[0] for group in groups]
    assert all(count == pytest.approx(1000, abs=110) for count in Counter(first).values())
    assert first == [ordered_kinds(plan, group_id=group, version=1, used=())[0] for group in groups]
    other = a_plan(seed=1)
    assert first != [ordered_kinds(other, group_id=group, version=1, used=())[0] for group in groups]
    for group, kind in zip(groups[:50], first, strict=False):
        second = ordered_kinds(plan, group_id=group, version=2, used=[kind])
        assert sorted([kind, *second]) == sorted(STAGE_1)


def test_names_never_collide() -> None:
    """Release defect: the name was base name + kind, so that equal base names overwrote each other."""
    names = set()
    for dataset, id_ in (
        ("a", "x/1.jpg"),
        ("a", "y/1.jpg"),
        ("b", "x/1.jpg"),
        ("a", "1.jpg"),
        ("a", "1.png"),
    ):
        group = group_id(dataset, id_)
        for kinds in (["blur"], ["blur", "noise"]):
            name = copy_name(example_id=id_, group_id=group, kinds=kinds, extension=".png")
            assert group.removeprefix("group_") in name.rpartition("/")[2], "sub-folders are few"
            names.add(name.lower())
    assert len(names) == 10


@pytest.mark.parametrize(
    "id_", ["../../etc/passwd", "a b%20?.jpg", "画像" * 80 + ".png", ".hidden", "-rf", ""]
)
def test_names_stay_below_their_folder_and_short(id_: str) -> None:
    name = copy_name(example_id=id_, group_id=group_id("set", id_), kinds=["blur"], extension=".png")
    folder, _, file = name.partition("/")
    assert len(folder) == 2 and "/" not in file and ".." not in name.split("/")
    assert len(file.encode()) < 255 and not file.startswith((".", "-"))


def test_a_group_id_is_stable() -> None:
    assert group_id("koniq", "1.jpg") == group_id("koniq", "1.jpg")
    assert group_id("ab", "c") != group_id("a", "bc")
    assert group_id("koniq", "1.jpg").startswith("group_") and len(group_id("koniq", "1.jpg")) == 22


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ("noise", "haze")}, "pairs.degrade.level: stage_1 has no strength for haze"),
        ({"strengths": STAGE_1 | {"jpeg": 0.0}}, "pairs.degrade.level: stage_1: jpeg must be a whole number"),
        ({"kinds": ("fog",), "target": 0.8}, "'fog' is no degradation"),
    ],
)
def test_impossible_plans(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        a_plan(**changes).check(key="pairs.degrade")  # type: ignore[arg-type]


def test_a_target_needs_no_strengths() -> None:
    a_plan(kinds=("haze", "blur"), target=0.8).check(key="pairs.degrade")
