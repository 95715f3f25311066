from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from qhk.data.datasets import LoadedDataset, load_dataset_entry
from qhk.data.selection import refuse_leakage
from tests.data.conftest import REAL_DATA, conf_entry, no_progress

ROWS = "image,mos,split,scene\na.png,0.2,train,s1\nb.png,0.9,train,s1\nc.png,0.5,val,s2\nd.png,1.0,test,s3\n"


def folder(root: Path, rows: str = ROWS, names: str = "abcd") -> Path:
    (root / "images").mkdir(parents=True)
    for name in names:
        Image.new("RGB", (32, 32), (ord(name), 0, 0)).save(root / "images" / f"{name}.png")
    (root / "labels.csv").write_text(rows)
    return root


def load(at: Path, *, options: dict[str, object] | None = None, **changes: object) -> LoadedDataset:
    entry = conf_entry("folder")
    values: dict[str, object] = {
        "root": str(at),
        "bounds": (0.0, 1.0),
        "higher_is_better": True,
    }
    merged = {**entry.options, "score_column": "mos", **(options or {})}
    return load_dataset_entry(
        "folder",
        conf_entry("folder", **{**values, **changes, "options": merged}),
        cache=at / "cache",
        progress=no_progress,
    )


def test_column_split_and_bounds(tmp_path: Path) -> None:
    loaded = load(folder(tmp_path))
    assert {split: [example.id for example in part] for split, part in loaded.examples.items()} == {
        "train": ["a.png", "b.png"], "validation": ["c.png"], "test": ["d.png"],
    }  # fmt: skip
    assert [example.mos for example in loaded.examples["train"]] == pytest.approx([1.8, 4.6])
    assert loaded.examples["train"][0].mos_native == 0.2


def test_dmos_is_inverted(tmp_path: Path) -> None:
    loaded = load(folder(tmp_path), higher_is_better=False)
    assert [example.mos for example in loaded.examples["train"]] == pytest.approx([4.2, 1.4])
    assert loaded.examples["train"][0].mos_native == 0.2


def test_fraction_split_keeps_scenes_together(tmp_path: Path) -> None:
    options: dict[str, object] = {"reference_column": "scene", "test_fraction": 0.34, "split_column": None}
    seen = set()
    for seed in range(12):
        loaded = load(
            folder(tmp_path / str(seed)), protocol="by_reference", options={**options, "split_seed": seed}
        )
        test = {example.reference for example in loaded.examples["test"]}
        assert len(test) == 1
        assert test.isdisjoint(example.reference for example in loaded.examples["train"])
        seen |= test
    assert seen == {"s1", "s2", "s3"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"root": None}, r"dataset\.folder\.root is null: give the folder"),
        ({"higher_is_better": None}, r"dataset\.folder\.higher_is_better is null: say true \(MOS\) or false"),
        ({"bounds": None}, r"dataset\.folder\.bounds is null: give the native range"),
        ({"options": {"score_column": None}}, r"options\.score_column must be given as text, got None"),
        (
            {"options": {"score_column": "score"}},
            "no column 'score'; columns present: image, mos, split, scene",
        ),
        ({"options": {"colour": 1}}, r"dataset\.folder\.options\.colour is unknown: folder takes"),
        ({"bounds": (0.0, 0.9)}, r"line 5: score 1\.0 is outside bounds \[0\.0, 0\.9\]"),
        ({"protocol": "deqa"}, "protocol is 'deqa': folder offers column, all, names, by_reference"),
        (
            {"protocol": "by_reference", "options": {"test_fraction": 1.5}},
            "test_fraction must be a number from 0 to 1",
        ),
        ({"protocol": "by_reference", "options": {"split_seed": None}}, "split_seed must be a whole number"),
        (
            {"options": {"labels": "none.csv"}},
            r"no .*none\.csv; put the set there, .*expected layout: a folder of images",
        ),
    ],
)
def test_refusals(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(folder(tmp_path), **changes)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        (ROWS, "abc", r"labels\.csv line 5: no image 'd\.png' below"),
        (ROWS, "abcde", r"1 images have no label, first .*e\.png: add rows"),
        (
            ROWS + "A.png,0.1,train,s1\n",
            "abcd",
            r"line 6: image 'a\.png' is listed twice \(first .*line 2; 1 names",
        ),
        ("image,mos,split\n", "abcd", "the label file has no rows"),
        ("image,mos,split\na.png,0.1,dev\n", "a", "line 2: split is 'dev', expected train, val"),
        ("image,mos,split\na.png,nan,train\n", "a", "line 2: mos is 'nan'"),
        ("image,mos,split\n,0.1,train\n", "a", "line 2: image is empty"),
        (
            "image,mos,split\na.png,0.1,train\na.jpg,0.2,train\n",
            "a",
            r"line 3: .*a\.png already belongs to .*line 2",
        ),
    ],
)
def test_bad_tables(tmp_path: Path, rows: str, names: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(folder(tmp_path, rows, names))


def test_unlabelled_images_can_be_allowed(tmp_path: Path) -> None:
    assert len(load(folder(tmp_path, names="abcde"), options={"allow_unlabelled": True}).examples) == 3


@pytest.mark.skipif(not (REAL_DATA / "biq2021").is_dir(), reason="BIQ2021 is not beside this checkout")
def test_real_photographs() -> None:
    loaded = load(REAL_DATA / "biq2021")
    assert Counter({split: len(part) for split, part in loaded.examples.items()}) == {
        "train": 440, "validation": 60, "test": 100,
    }  # fmt: skip
    assert all(1.0 <= example.mos <= 5.0 for part in loaded.examples.values() for example in part)


def test_blanks_brackets_and_empty_trailing_columns(tmp_path: Path) -> None:
    """As BIQ2021 has them: ``.JPG`` on disk, ``.jpg`` in a table that ends in two empty columns."""
    root = folder(
        tmp_path / "a set (1)", "Image Name,MOS,,\nss02 (1014).jpg,0.5,,\nüß.png,0.25,,\n", names=""
    )
    for name in ("ss02 (1014).JPG", "üß.png"):
        Image.new("RGB", (32, 32)).save(root / "images" / name)
    options: dict[str, object] = {"image_column": "Image Name", "score_column": "MOS", "split_column": None}
    loaded = load(root, protocol="all", options=options)
    assert [(e.image.name, e.mos) for e in loaded.examples["test"]] == [
        ("ss02 (1014).JPG", 3.0),
        ("üß.png", 2.0),
    ]


def test_lists_of_names_keep_their_folders(tmp_path: Path) -> None:
    root = folder(tmp_path, "image,mos\na/1.png,0.2\nb/1.png,0.4\n2.png,0.6\n", names="")
    for name in ("a/1.png", "b/1.png", "2.png"):
        (root / "images" / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32)).save(root / "images" / name)
    (root / "train.txt").write_text("images/a/1.jpg\n")
    (root / "test.txt").write_text("b\\1\nimages/2.png\n")
    options: dict[str, object] = {
        "train_names": "train.txt", "test_names": "test.txt", "split_column": None,
    }  # fmt: skip
    loaded = load(root, protocol="names", options=options)
    assert {split: [e.id for e in part] for split, part in loaded.examples.items()} == {
        "train": ["a/1.png"], "test": ["b/1.png", "2.png"],
    }  # fmt: skip
    for line, message in (
        ("1.png", r"train_names lists '1\.png', which fits a/1\.png and b/1\.png: write its folder"),
        ("c/1.png", r"train_names lists 'c/1\.png' \(1 in all\), which has no label"),
        ("b/1.png", r"b/1\.png is in both options\.train_names and options\.test_names"),
    ):
        (root / "train.txt").write_text(f"{line}\n")
        with pytest.raises(ValueError, match=message):
            load(root, protocol="names", options=options)


def test_roots_and_names_may_be_spelled_in_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative root, a linked one, an absolute path in the table and decomposed accents are one set."""
    root = folder(
        tmp_path / "real", f"image,mos,split\n{tmp_path}/real/images/a.png,0.2,train\né.png,1,test\n"
    )
    for name in "bcd":
        (root / "images" / f"{name}.png").unlink()
    Image.new("RGB", (32, 32), (1, 2, 3)).save(root / "images" / unicodedata.normalize("NFD", "é.png"))
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    found = [load(Path(at)) for at in ("real", "link", "./real/../link")]
    assert len({each.fingerprint for each in found}) == 1
    with pytest.raises(ValueError, match=r"link/images/.*\.png is also trained on"):
        refuse_leakage(found[0].examples["test"], {"folder": found[1].examples["test"]}, files=found[0].files)
    twice = "image,mos,split\na.png,0.2,train\n" + f"{tmp_path}/link/images/a.png,0.3,train\n"
    (root / "labels.csv").write_text(twice)
    with pytest.raises(ValueError, match=r"line 3: .*a\.png already belongs to .*line 2"):
        load(Path("real"), options={"allow_unlabelled": True})


def test_a_table_without_a_split_column_needs_one_override(tmp_path: Path) -> None:
    names = "abcdefghij"
    root = folder(tmp_path, "image,mos\n" + "".join(f"{name}.png,0.5\n" for name in names), names)
    with pytest.raises(ValueError, match=r"line 2: no column 'split' .*or choose protocol=random"):
        load(root)
    drawn = [load(root, protocol="random", options={"split_seed": seed}).examples for seed in (0, 0, 1)]
    parts = [{split: {e.id for e in part} for split, part in each.items()} for each in drawn]
    assert {split: len(part) for split, part in parts[0].items()} == {"train": 8, "test": 2}
    assert parts[0] == parts[1] != parts[2]
    assert len(load(root, protocol="all").examples["test"]) == 10
    twice = folder(tmp_path / "twice", "image,mos,split,split\na.png,0.5,train,test\n", "a")
    with pytest.raises(ValueError, match="2 columns are called 'split'"):
        load(twice)
