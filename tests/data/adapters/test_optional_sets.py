"""FLIVE, BID and LIVE release 2 in their official form, with the published numbers where present."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from scipy.io import savemat

from qhk.data.adapters import find_adapter
from qhk.data.adapters.live import FOLDERS
from qhk.data.protocols import assign_splits
from tests.data.conftest import REAL_DATA, conf_entry

OPTIONAL = REAL_DATA / "labels" / "official_format" / "optional"
real = pytest.mark.skipif(not OPTIONAL.is_dir(), reason="the real label files are not beside this checkout")


def live_files(root: Path, **changes: object) -> Path:
    """The three arrays of release 2: file k of a folder scores k, the last 20 of each are copies."""
    numbers = [(number, count) for count in FOLDERS.values() for number in range(1, count + 1)]
    values: dict[str, object] = {
        "dmos_new": np.array([[number / 3 for number, _ in numbers]]),
        "orgs": np.array([[int(number > count - 20) for number, count in numbers]], dtype=np.uint8),
        "dmos_std": np.full((1, len(numbers)), 2.0),
    } | changes
    savemat(root / "dmos_realigned.mat", values)
    names = np.empty((1, len(numbers)), dtype=object)
    names[0] = [f"scene{number % 29}.bmp" for number, _ in numbers]
    savemat(root / "refnames_all.mat", {"refnames_all": names})
    return root


def test_live_drops_copies_and_names_files_by_folder(tmp_path: Path) -> None:
    rows = find_adapter("live").read_labels(live_files(tmp_path), {})
    assert len(rows) == 982 - 5 * 20
    assert Counter(row.name.partition("/")[0] for row in rows) == {
        folder: count - 20 for folder, count in FOLDERS.items()
    }
    first, jpeg = rows[0], rows[227 - 20]
    assert (first.name, first.score, first.std, first.reference) == ("jp2k/img1.bmp", 1 / 3, 2.0, "scene1")
    assert (jpeg.name, jpeg.score, jpeg.labels["distortion"]) == ("jpeg/img1.bmp", 1 / 3, "jpeg")
    assert find_adapter("live").higher_is_better is False


def test_live_refuses_other_arrays_and_the_scores_before_realignment(tmp_path: Path) -> None:
    live_files(tmp_path, dmos_new=np.ones((1, 779)))
    with pytest.raises(ValueError, match="dmos_new has 779 values, not 982"):
        find_adapter("live").read_labels(tmp_path, {})
    live_files(tmp_path, dmos_new=np.full((1, 982), np.nan))
    with pytest.raises(ValueError, match=r"dmos_realigned\.mat value 1: dmos_new is nan, not a number"):
        find_adapter("live").read_labels(tmp_path, {})
    savemat(tmp_path / "dmos_realigned.mat", {"dmos": np.ones((1, 982)), "orgs": np.ones((1, 982))})
    with pytest.raises(ValueError, match="no variable 'dmos_new'; variables present: dmos, orgs"):
        find_adapter("live").read_labels(tmp_path, {})


@real
def test_live_of_the_published_scores(tmp_path: Path) -> None:
    listed = [line.split("\t") for line in (OPTIONAL / "live_all_liqe.txt").read_text().splitlines()]
    quality = {name: float(score) for name, score, _ in listed}
    names = [f"{folder}/img{k}.bmp" for folder, count in FOLDERS.items() for k in range(1, count + 1)]
    scores = [111.7747 - quality[name] if name in quality else 0.0 for name in names]
    originals = [int(name not in quality) for name in names]
    rows = find_adapter("live").read_labels(
        live_files(tmp_path, dmos_new=np.array([scores]), orgs=np.array([originals])), {}
    )
    expected = conf_entry("live").expected
    assert expected is not None and len(rows) == expected.rows == 779
    assert Counter(row.name.partition("/")[0] for row in rows) == {
        "jp2k": 169, "jpeg": 175, "wn": 145, "gblur": 145, "fastfading": 145,
    }  # fmt: skip
    assert {row.name: row.score for row in rows} == pytest.approx(
        {name: 111.7747 - score for name, score in quality.items()}
    )
    assert min(row.score or 0 for row in rows) == pytest.approx(expected.low, abs=expected.tolerance)
    assert max(row.score or 0 for row in rows) == pytest.approx(expected.high, abs=expected.tolerance)


def bid_file(root: Path, cells: list[list[object]]) -> Path:
    book = openpyxl.Workbook()
    for row in cells:
        assert book.active is not None
        book.active.append(row)
    book.save(root / "DatabaseGrades.xlsx")
    return root


def test_bid_by_the_place_of_its_columns(tmp_path: Path) -> None:
    rows = find_adapter("bid").read_labels(
        bid_file(tmp_path, [["Image Number", "Average"], [1, 3.5], [None, None], [590, 0.2]]), {}
    )
    assert [(row.name, row.score) for row in rows] == [
        ("DatabaseImage0001.JPG", 3.5), ("DatabaseImage0590.JPG", 0.2),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"row 2: the grade \(second column\) is '', not a number"):
        find_adapter("bid").read_labels(bid_file(tmp_path, [["Image", "Grade"], [7, None]]), {})


@real
def test_bid_of_the_published_scores(tmp_path: Path) -> None:
    listed = [line.split("\t") for line in (OPTIONAL / "bid_all_liqe.txt").read_text().splitlines()]
    cells: list[list[object]] = [["Image", "Grade"]]
    cells += [[int(name[-8:-4]), float(score)] for name, score, _ in listed]
    rows = find_adapter("bid").read_labels(bid_file(tmp_path, cells), {})
    expected = conf_entry("bid").expected
    assert expected is not None and len(rows) == expected.rows
    assert {row.name for row in rows} == {name.rpartition("/")[2] for name, _, _ in listed}
    assert min(row.score or 0 for row in rows) == expected.low
    assert max(row.score or 0 for row in rows) == expected.high


@real
def test_flive_of_the_published_file(tmp_path: Path) -> None:
    (tmp_path / "database").mkdir()
    source = (OPTIONAL / "flive_labels_image.csv").resolve()
    (tmp_path / "database" / "labels_image.csv").symlink_to(source)
    rows = find_adapter("flive").read_labels(tmp_path, {})
    expected = conf_entry("flive").expected
    assert expected is not None and len(rows) == expected.rows == 39810
    assert (min(row.score or 0 for row in rows), max(row.score or 0 for row in rows)) == (
        expected.low,
        expected.high,
    )
    assert Counter(row.name.partition("/")[0] for row in rows) == {
        "voc_emotic_ava": 38808, "blur_dataset": 999, "EE371R": 3,
    }  # fmt: skip


def test_flive_official_parts(tmp_path: Path) -> None:
    (tmp_path / "labels_image.csv").write_text("name,mos\na/1.jpg,70\na/2.jpg,60\nb/3.jpg,50\nb/4.jpg,40\n")
    (tmp_path / "labels640.csv").write_text("mos_image,name_image\n50,b/3.jpg\n")
    (tmp_path / "labels=640_padded.csv").write_text("name_image,is_valid\na/1.jpg,False\na/2.jpg,True\n")
    rows = find_adapter("flive").read_labels(tmp_path, {})
    parts = assign_splits(find_adapter("flive"), rows, "official", tmp_path, {})
    assert parts == ["train", "validation", "test", None]
    (tmp_path / "labels=640_padded.csv").write_text("name_image,is_valid\na/1.jpg,no\n")
    with pytest.raises(
        ValueError, match="padded.csv line 2: is_valid is 'no', expected one of true, 1, false"
    ):
        assign_splits(find_adapter("flive"), rows, "official", tmp_path, {})
