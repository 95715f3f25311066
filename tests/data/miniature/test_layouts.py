"""The miniature sets look like the official downloads, quirks included, byte by byte where it matters."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image
from scipy.io import loadmat

from qhk.data.miniature import miniature_folder


@pytest.fixture
def root(miniature_cache: Path) -> Path:
    return miniature_folder(miniature_cache, seed=0, size=64)


def test_koniq_two_label_files(root: Path) -> None:
    text = (root / "koniq/koniq10k_scores_and_distributions.csv").read_text()
    assert text.splitlines()[0] == ('"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"')
    scores = {row["image_name"]: row for row in csv.DictReader(text.splitlines())}
    sets = list(csv.DictReader((root / "koniq/koniq10k_distributions_sets.csv").open()))
    assert len(scores) == len(sets) == 560
    for row in sets:
        other = scores[row["image_name"]]
        counts = np.array([int(other[f"c{grade}"]) for grade in range(1, 6)])
        assert float(other["MOS"]) == pytest.approx((counts * range(1, 6)).sum() / counts.sum())
        assert [float(row[f"c{grade}"]) for grade in range(1, 6)] == pytest.approx(counts / counts.sum())
        assert float(row["MOS"]) == float(other["MOS_zscore"])


def test_kadid_names_and_deviation(root: Path) -> None:
    rows = list(csv.DictReader((root / "kadid/dmos.csv").open()))
    assert len(rows) == 600
    assert max(float(row["var"]) for row in rows) < 1.6  # a deviation on a five-point scale
    names = {path.name for path in (root / "kadid/images").iterdir()}
    assert {"I01.png", "I73.png", rows[0]["dist_img"]} <= names


def test_csiq_header_is_not_in_the_first_row(root: Path) -> None:
    sheet = openpyxl.load_workbook(root / "csiq/csiq.DMOS.xlsx")["all_by_image"]
    assert [sheet.cell(4, column).value for column in range(4, 10)] == [
        "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos",
    ]  # fmt: skip
    assert sheet.cell(5, 4).value == 1600
    by_level = {sheet.cell(row, 7).value: sheet.cell(row, 9).value for row in range(5, 10)}
    assert by_level[5] > by_level[1] + 0.3  # lower is better
    assert {path.name for path in (root / "csiq/dst_imgs").iterdir()} == {
        "awgn", "blur", "contrast", "fnoise", "jpeg", "jpeg2000",
    }  # fmt: skip


def test_tid_case_and_line_ends(root: Path) -> None:
    raw = (root / "tid2013/mos_with_names.txt").read_bytes()
    lines = raw.decode().split("\r\n")
    assert lines[-1] == ""
    names = [line.split(" ")[1] for line in lines[:-1]]
    assert any(name.startswith("I") for name in names)
    assert any(name.endswith(".BMP") for name in names)
    on_disk = {path.name for path in (root / "tid2013/distorted_images").iterdir()}
    assert not set(names) <= on_disk  # the text and the disk disagree on case
    assert {name.lower() for name in names} == {name.lower() for name in on_disk}
    assert (root / "tid2013/reference_images/i25.bmp").is_file()


def test_live_arrays_and_extensions(root: Path) -> None:
    names = loadmat(root / "live_wild/Data/AllImages_release.mat")["AllImages_release"]
    scores = loadmat(root / "live_wild/Data/AllMOS_release.mat")["AllMOS_release"]
    assert names.shape == (127, 1) and scores.shape == (1, 127)
    assert [str(names[row][0][0]) for row in range(7)] == [f"t{row}.bmp" for row in range(1, 8)]
    assert {path.suffix for path in (root / "live_wild/Images").iterdir() if path.is_file()} == {
        ".bmp",
        ".JPG",
    }


def test_pipal_folders_follow_the_reference(root: Path) -> None:
    lines = (root / "pipal/Train_Label/A0060.txt").read_text().splitlines()
    assert len(lines) == 10
    assert (root / "pipal/Distortion_2" / lines[0].split(",")[0]).is_file()
    assert {path.name for path in (root / "pipal").iterdir() if path.is_dir()} == {
        "Distortion_1", "Distortion_2", "Distortion_3", "Distortion_4", "Train_Label", "Train_Ref",
    }  # fmt: skip


def test_spaq_and_agiqa(root: Path) -> None:
    sheet = openpyxl.load_workbook(root / "spaq/Annotations/MOS and Image attribute scores.xlsx").worksheets[
        0
    ]
    assert sheet.cell(1, 1).value == "Image name"
    names = [row["name"] for row in csv.DictReader((root / "agiqa_3k/data.csv").open())]
    assert "sd1.5_lowstep_000.jpg" in names and "xl2.2_normal_000.jpg" in names


def test_pictures_have_the_size_asked_for(root: Path) -> None:
    pictures = [path for path in root.rglob("*") if path.suffix.lower() in (".png", ".bmp", ".jpg")]
    assert len(pictures) > 2100
    assert {Image.open(path).size for path in pictures[::29]} == {(64, 64)}
