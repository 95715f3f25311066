from __future__ import annotations

from pathlib import Path

import pytest

from qhk.data.datasets import LoadedDataset
from qhk.data.inventory import FileFacts
from qhk.data.scale import Scale
from qhk.data.selection import (
    check_images,
    content_of,
    cut_validation,
    limit_examples,
    refuse_leakage,
    select_benchmark,
    select_training_data,
)
from qhk.types import Example


def examples(count: int, *, per_reference: int = 1, dataset: str = "set") -> list[Example]:
    return [
        Example(
            id=f"{index}.png",
            dataset=dataset,
            image=Path(f"/{dataset}/{index}.png"),
            mos=3.0,
            mos_native=3.0,
            higher_is_better=True,
            reference=f"I{index // per_reference}" if per_reference > 1 else None,
        )
        for index in range(count)
    ]


def loaded(name: str, **parts: list[Example]) -> LoadedDataset:
    scale = Scale(low=1.0, high=5.0, higher_is_better=True)
    return LoadedDataset(
        name=name, protocol="p", miniature=False, scale=scale, examples=parts, files={}, fingerprint=""
    )


def test_validation_takes_whole_contents() -> None:
    pool = examples(60, per_reference=5)
    train, validation = cut_validation(pool, fraction=0.2, limit=None, seed=0, name="set")
    assert len(validation) == 15 and len(train) == 45  # 12 are asked for, contents hold 5
    assert {content_of(e) for e in train}.isdisjoint({content_of(e) for e in validation})


def test_limit_never_splits_a_content_between_the_parts() -> None:
    pool = examples(60, per_reference=5)
    train, validation = cut_validation(pool, fraction=0.5, limit=7, seed=0, name="set")
    assert len(validation) == 7 and len(train) == 50
    assert {content_of(e) for e in train}.isdisjoint({content_of(e) for e in validation})


def test_cut_follows_the_seed_and_not_the_order() -> None:
    pool = examples(50)
    first = {e.id for e in cut_validation(pool, fraction=0.1, limit=None, seed=0, name="set")[1]}
    assert first == {
        e.id for e in cut_validation(pool[::-1], fraction=0.1, limit=None, seed=0, name="set")[1]
    }
    assert first != {e.id for e in cut_validation(pool, fraction=0.1, limit=None, seed=1, name="set")[1]}


def test_one_content_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match=r"loading\.validation_fraction=0\.5 leaves 0 training images of "):
        cut_validation(examples(5, per_reference=5), fraction=0.5, limit=None, seed=0, name="set")


def select(*sets: LoadedDataset, **changes: object) -> object:
    settings: dict[str, object] = {
        "weights": {dataset.name: 1.0 for dataset in sets},
        "split": "train",
        "validation_fraction": 0.1,
        "validation_limit": None,
        "limit": None,
        "seed": 0,
    } | changes
    return select_training_data(sets, **settings)  # type: ignore[arg-type]


def test_own_validation_split_is_used_and_others_are_cut() -> None:
    own = loaded("a", train=examples(20, dataset="a"), validation=examples(9, dataset="v"))
    cut = loaded("b", train=examples(40, dataset="b"))
    data = select(own, cut, validation_limit=5)
    assert len(data.train["a"]) == 20  # type: ignore[attr-defined]
    assert len(data.train["b"]) == 36  # type: ignore[attr-defined]
    assert [e.dataset for e in data.validation] == ["v"] * 5 + ["b"] * 4  # type: ignore[attr-defined]


def test_no_validation_and_a_limit() -> None:
    data = select(loaded("a", train=examples(20, dataset="a")), validation_fraction=0.0, limit=6)
    assert data.validation == []  # type: ignore[attr-defined]
    assert len(data.train["a"]) == 6  # type: ignore[attr-defined]


def test_empty_split_is_refused() -> None:
    only_test = loaded("a", test=examples(3))
    with pytest.raises(
        ValueError, match=r"loading\.split=train: a has no such images under protocol=p \(splits there: "
    ):
        select(only_test)
    with pytest.raises(ValueError, match=r"benchmark\.a\.split=validation"):
        select_benchmark(only_test, split="validation", limit=None, seed=0)
    assert len(select_benchmark(only_test, split="test", limit=2, seed=0)) == 2


def test_limits_are_nested_and_keep_the_order() -> None:
    pool = examples(30)
    five, nine = (limit_examples(pool, limit, seed=0) for limit in (5, 9))
    assert {e.id for e in five} < {e.id for e in nine}
    assert [int(e.id[:-4]) for e in nine] == sorted(int(e.id[:-4]) for e in nine)
    assert limit_examples(pool, None, seed=0) == pool


def test_leakage_by_image_and_by_reference() -> None:
    pool = examples(20, per_reference=5)
    refuse_leakage(pool[:10], {"set": pool[10:]}, files={})
    with pytest.raises(ValueError, match=r"benchmark\.set: /set/9\.png is also trained on"):
        refuse_leakage(pool[:10], {"set": pool[9:]}, files={})
    with pytest.raises(ValueError, match=r"reference I0 of 1\.png is also trained on"):
        refuse_leakage(pool[:1], {"set": pool[1:]}, files={})


def test_leakage_through_another_entry_of_the_same_files() -> None:
    one, two = examples(10, per_reference=5, dataset="set"), examples(10, per_reference=5, dataset="set")
    renamed = [
        Example(
            id=e.id,
            dataset="other",
            image=e.image,
            mos=3.0,
            mos_native=3.0,
            higher_is_better=True,
            reference=e.reference,
        )
        for e in two
    ]
    with pytest.raises(ValueError, match="also trained on"):
        refuse_leakage(one[:1], {"other": renamed[1:3]}, files={})
    refuse_leakage(one[:5], {"other": renamed[5:]}, files={})


def facts(sha256: str, **changes: object) -> FileFacts:
    values: dict[str, object] = {
        "sha256": sha256,
        "num_bytes": 9,
        "width": 64,
        "height": 64,
        "format": "PNG",
        "problem": None,
        "decoded": False,
        "perceptual_hash": None,
    } | changes
    return FileFacts(**values)  # type: ignore[arg-type]


def test_leakage_by_content_under_another_name() -> None:
    train, test = examples(3, dataset="set"), examples(3, dataset="other")
    files = {example.image: facts(str(number)) for number, example in enumerate(train + test)}
    refuse_leakage(train, {"other": test}, files=files)
    files[test[1].image] = facts("2")
    with pytest.raises(ValueError, match=r"/other/1\.png has the bytes of /set/2\.png, which is trained on"):
        refuse_leakage(train, {"other": test}, files=files)


def test_images_known_as_broken_small_or_large_are_refused() -> None:
    pool = examples(3)
    files = {example.image: facts(example.id) for example in pool}
    check_images(pool, files=files)
    for bad, message in (
        (facts("x", problem="/set/1.png: not a readable image"), r"/set/1\.png: not a readable"),
        (facts("x", width=20), r"/set/1\.png: 20x64 is too small"),
        (facts("x", width=40_000, height=40_000), r"/set/1\.png: 40000x40000 is too large"),
    ):
        with pytest.raises(ValueError, match=message):
            check_images(pool, files={**files, pool[1].image: bad})
        check_images(pool[2:], files={**files, pool[1].image: bad})
