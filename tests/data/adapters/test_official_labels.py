"""Label reading and normalisation against the real label files and the DeQA-Score metas, where present."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from qhk.data.adapter import LabelRow, Options
from qhk.data.adapters import find_adapter
from qhk.data.protocols import assign_splits
from qhk.data.scale import fit_scale
from tests.data.conftest import REAL_DATA

LABELS = REAL_DATA / "labels"
KONIQ: Options = {"score_column": "MOS", "image_folder": "512x384"}

pytestmark = pytest.mark.skipif(
    not LABELS.is_dir(), reason="the real label files are not beside this checkout"
)

CASES = [
    ("koniq", "koniq10k", KONIQ, 10073, "test_koniq_2k"),
    ("spaq", "spaq", {}, 11125, "full_spaq_11k"),
    ("kadid", "kadid10k", {}, 10125, "full_kadid_10k"),
    ("pipal", "pipal", {}, 23200, "test_pipal_5k"),
    ("live_wild", "live_challenge", {}, 1162, "test_livew_1k"),
    ("agiqa_3k", "agiqa3k", {}, 2982, "test_agiqa_3k"),
    ("csiq", "csiq", {}, 866, "test_csiq_866"),
    ("tid2013", "tid2013", {}, 3000, "test_tid2013_3k"),
]


def read(name: str, folder: str, options: Options) -> list[LabelRow]:
    return find_adapter(name).read_labels(LABELS / "official_format" / folder, options)


@pytest.mark.parametrize(
    ("name", "folder", "options", "count", "metas"), CASES, ids=[case[0] for case in CASES]
)
def test_scores_and_normalisation_agree_with_deqa(
    name: str, folder: str, options: Options, count: int, metas: str
) -> None:
    rows = read(name, folder, options)
    assert len(rows) == count
    polarity = find_adapter(name).higher_is_better
    assert polarity is not None
    scale = fit_scale(
        [(row.score, None) for row in rows],
        ["test"] * len(rows),
        name=name,
        normalisation="whole_set",
        bounds=None,
        higher_is_better=polarity,
    )
    by_name = {row.name.lower(): row for row in rows}
    for record in json.loads((LABELS / "deqa_metas" / f"{metas}.json").read_text()):
        row = by_name[record["image"].rsplit("/", 1)[-1].lower()]
        assert scale.mos(row.score) == pytest.approx(record["gt_score_norm"], abs=1e-9)
        if name in ("koniq", "live_wild", "agiqa_3k", "csiq", "tid2013"):
            assert scale.deviation(row.std) == pytest.approx(record["std_norm"], abs=1e-6)
        if name == "kadid":  # the metas hold the root of a number that is a deviation already
            assert row.std is not None
            assert row.std**0.5 == pytest.approx(record["std"], abs=1e-9)


def splits(
    name: str, folder: str, protocol: str, options: Options
) -> tuple[list[LabelRow], list[str | None]]:
    rows = read(name, folder, options)
    root = LABELS / "official_format" / folder
    return rows, assign_splits(find_adapter(name), rows, protocol, root, options)


def names_of(rows: Iterable[LabelRow], split: Iterable[str | None], wanted: str) -> set[str]:
    return {row.name for row, part in zip(rows, split, strict=True) if part == wanted}


def listed(name: str) -> set[str]:
    return set((LABELS / "splits" / name).read_text().split())


def test_koniq_official_split() -> None:
    rows, split = splits("koniq", "koniq10k", "official", KONIQ)
    assert Counter(split) == {"train": 7058, "validation": 1000, "test": 2015}
    assert listed("koniq10k_test_qalign.txt") < names_of(rows, split, "test")
    assert listed("koniq10k_train_qalign.txt") < names_of(rows, split, "train")


def test_koniq_z_scores_are_another_column() -> None:
    rows = read("koniq", "koniq10k", {**KONIQ, "score_column": "MOS_zscore"})
    assert (min(row.score for row in rows), max(row.score for row in rows)) == pytest.approx(
        (3.912, 88.389), abs=1e-3
    )
    assert all(row.std is None for row in rows)


@pytest.mark.parametrize(
    ("name", "folder", "options", "train", "test"),
    [("koniq", "koniq10k", KONIQ, "koniq10k_train_qalign", "koniq10k_test_qalign"),
     ("spaq", "spaq", {}, "spaq_train_qalign", "spaq_test_qalign"),
     ("kadid", "kadid10k", {}, "kadid10k_train_qalign", "kadid10k_test_qalign")],
)  # fmt: skip
def test_published_name_lists(name: str, folder: str, options: Options, train: str, test: str) -> None:
    lists = {f"{split}_names": str((LABELS / "splits" / f"{file}.txt").resolve())
             for split, file in (("train", train), ("test", test))}  # fmt: skip
    rows, split = splits(name, folder, "names", {**options, **lists})
    assert names_of(rows, split, "train") == listed(f"{train}.txt")
    assert names_of(rows, split, "test") == listed(f"{test}.txt")


def test_pipal_by_a_list_of_references() -> None:
    path = (LABELS / "splits" / "pipal_test_refs_deqa.txt").resolve()
    _, split = splits("pipal", "pipal", "names", {"train_names": None, "test_names": str(path)})
    assert Counter(split) == {"test": 4640, None: 18560}


def test_kadid_protocols() -> None:
    rows, split = splits("kadid", "kadid10k", "deqa", {})
    assert Counter(split) == {"train": 8106, "test": 2000, None: 19}
    assert names_of(rows, split, "test") == listed("kadid10k_test_qalign.txt")
    assert names_of(rows, split, "train") == listed("kadid10k_train_qalign.txt")
    assert Counter(splits("kadid", "kadid10k", "references", {})[1]) == {"train": 8125, "test": 2000}
    _, split = splits("kadid", "kadid10k", "visualquality_r1", {})
    assert Counter(split) == {"train": 6125, "validation": 2000, "test": 2000}


def test_koniq_and_spaq_by_the_lists_of_deqa() -> None:
    for name, folder, options in (("koniq", "koniq10k", KONIQ), ("spaq", "spaq", {})):
        rows, split = splits(name, folder, "deqa", options)
        for part in ("train", "test"):
            assert names_of(rows, split, part) == listed(f"{folder}_{part}_qalign.txt")


def test_pipal_by_the_references_of_deqa() -> None:
    rows, split = splits("pipal", "pipal", "deqa", {})
    assert Counter(split) == {"test": 4640, "train": 18560}
    metas = json.loads((LABELS / "deqa_metas" / "test_pipal_5k.json").read_text())
    assert names_of(rows, split, "test") == {record["image"].rsplit("/", 1)[-1] for record in metas}


def test_drawn_by_reference() -> None:
    options = {"split_seed": 0, "test_fraction": 0.2, "validation_fraction": 0.2}
    rows, split = splits("kadid", "kadid10k", "by_reference", options)
    assert Counter(split) == {"train": 6125, "validation": 2000, "test": 2000}  # 49, 16, 16 of 81 references
    seen = {
        part: {row.reference for row, own in zip(rows, split, strict=True) if own == part}
        for part in set(split)
    }
    assert sum(map(len, seen.values())) == len(set().union(*seen.values())) == 81
    again = assign_splits(find_adapter("kadid"), rows[::-1], "by_reference", LABELS, options)
    assert again[::-1] == split
    other = assign_splits(find_adapter("kadid"), rows, "by_reference", LABELS, {**options, "split_seed": 1})
    assert other != split


def test_spaq_hash_split_is_about_a_fifth() -> None:
    _, split = splits("spaq", "spaq", "hash_80_20", {})
    assert Counter(split)["test"] == pytest.approx(0.2 * 11125, abs=130)


def test_spaq_workbook_and_csv_copy_agree(tmp_path: Path) -> None:
    source = LABELS / "official_format" / "spaq" / "MOS_and_Image_attribute_scores.csv"
    (tmp_path / source.name).symlink_to(source.resolve())
    copy = find_adapter("spaq").read_labels(tmp_path, {})
    assert [(row.name, row.score) for row in copy] == [
        (row.name, row.score) for row in read("spaq", "spaq", {})
    ]


def test_csiq_workbook_and_flat_copy_agree(tmp_path: Path) -> None:
    source = LABELS / "official_format" / "csiq" / "csiq_label.txt"
    (tmp_path / source.name).symlink_to(source.resolve())
    flat = {row.name: row.score for row in find_adapter("csiq").read_labels(tmp_path, {})}
    for row in read("csiq", "csiq", {}):
        assert flat[row.name] == pytest.approx(row.score, abs=1e-6)


def test_a_validation_list_inside_the_test_part_is_refused() -> None:
    names = {"train": "koniq10k_train7000_mriqa", "validation": "koniq10k_val200_mriqa_SUBSET_OF_TEST",
             "test": "koniq10k_test_qalign"}  # fmt: skip
    lists = {
        f"{part}_names": str((LABELS / "splits" / f"{file}.txt").resolve()) for part, file in names.items()
    }
    with pytest.raises(ValueError, match=r"is in both options\.validation_names and options\.test_names"):
        splits("koniq", "koniq10k", "names", {**KONIQ, **lists})
