"""What each official reader refuses, on sets of a few rows, and the alternative layouts it accepts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from qhk.data.adapters import find_adapter
from qhk.data.miniature import miniature_folder
from qhk.data.protocols import assign_splits

KONIQ = {"score_column": "MOS", "image_folder": "512x384"}


def koniq(root: Path, sets: str) -> Path:
    (root / "koniq10k_scores_and_distributions.csv").write_text(
        '"image_name","c1","MOS","SD","MOS_zscore"\n"1.jpg",0,3.5,0.5,60\n"2.jpg",0,2.5,0.5,40\n'
    )
    (root / "koniq10k_distributions_sets.csv").write_text("image_name,MOS,set\n" + sets)
    return root


@pytest.mark.parametrize(
    ("sets", "message"),
    [("1.jpg,60,training\n", r"no row for 2\.jpg \(1 in all\)"),
     ("1.jpg,60,training\n2.jpg,40,dev\n", "line 3: set is 'dev'")],
)  # fmt: skip
def test_koniq_sets_file(tmp_path: Path, sets: str, message: str) -> None:
    root = koniq(tmp_path, sets)
    rows = find_adapter("koniq").read_labels(root, KONIQ)
    with pytest.raises(ValueError, match=message):
        assign_splits(find_adapter("koniq"), rows, "official", root, KONIQ)


def test_koniq_score_columns(tmp_path: Path) -> None:
    root = koniq(tmp_path, "")
    z_scores = find_adapter("koniq").read_labels(root, {**KONIQ, "score_column": "MOS_zscore"})
    assert [(row.score, row.std) for row in z_scores] == [(60.0, None), (40.0, None)]
    with pytest.raises(ValueError, match="score_column must be MOS or MOS_zscore, got 'SD'"):
        find_adapter("koniq").read_labels(root, {**KONIQ, "score_column": "SD"})


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        (
            "kadid",
            "dmos.csv",
            "dist_img,ref_img,dmos,var\nI01_99_01.png,I01.png,3,1\n",
            "line 2: dist_img is",
        ),
        ("kadid", "dmos.csv", "dist_img,ref_img,mos,var\n", "no column 'dmos'; columns present"),
        (
            "pipal",
            "Train_Label/A0001.txt",
            "A0001_00_00.bmp 1500\n",
            "expected a line like A0001_00_00.bmp,1520",
        ),
        ("tid2013", "mos_with_names.txt", "I01_01_1.bmp 5.5\n", "expected a line like 5.51429 I01_01_1.bmp"),
        ("csiq", "csiq_label.txt", "1600.AWGN.9.png 0.5\n", "expected a name like 1600.AWGN.1.png"),
        (
            "agiqa_3k",
            "data.csv",
            "name,mos_quality,std_quality\na.jpg,nan,0\n",
            "line 2: mos_quality is 'nan'",
        ),
    ],
)
def test_broken_rows(tmp_path: Path, name: str, file: str, content: str, message: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        find_adapter(name).read_labels(tmp_path, {})


def test_tid_errors_must_match_in_number(tmp_path: Path) -> None:
    (tmp_path / "mos_with_names.txt").write_bytes(b"5.5 I01_01_1.bmp\r\n4.5 i01_01_2.bmp\r\n")
    assert [row.std for row in find_adapter("tid2013").read_labels(tmp_path, {})] == [None, None]
    (tmp_path / "mos_std.txt").write_bytes(b"0.1\r\n")
    with pytest.raises(ValueError, match="1 lines, mos_with_names.txt has 2"):
        find_adapter("tid2013").read_labels(tmp_path, {})


def test_live_arrays_must_agree(tmp_path: Path) -> None:
    (tmp_path / "Data").mkdir()
    for variable, count in (("AllImages_release", 9), ("AllMOS_release", 9), ("AllStdDev_release", 8)):
        savemat(tmp_path / "Data" / f"{variable}.mat", {variable: np.ones((1, count))})
    with pytest.raises(ValueError, match="9 names, 9 scores, 8 deviations"):
        find_adapter("live_wild").read_labels(tmp_path, {})
    savemat(tmp_path / "Data" / "AllMOS_release.mat", {"scores": np.ones((1, 9))})
    with pytest.raises(ValueError, match="no variable 'AllMOS_release'; variables present: scores"):
        find_adapter("live_wild").read_labels(tmp_path, {})
    (tmp_path / "Data" / "AllMOS_release.mat").write_text("text")
    with pytest.raises(ValueError, match="not a readable MATLAB file"):
        find_adapter("live_wild").read_labels(tmp_path, {})


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        ("spaq", {"TestImage": "Dataset/TestImage", "Annotations": "Dataset/Annotations"}),
        ("live_wild", {"Images": "ChallengeDB_release/Images", "Data": "ChallengeDB_release/Data"}),
        ("pipal", {"Train_Label": "training/MOS_Scores_train",
                   **{f"Distortion_{k}": f"training/Distortion/Distortion_{k}" for k in range(1, 5)}}),
        ("csiq", {"dst_imgs": "dst_imgs_all"}),
    ],
)  # fmt: skip
def test_other_known_layouts(miniature_cache: Path, tmp_path: Path, name: str, moves: dict[str, str]) -> None:
    adapter, source = find_adapter(name), miniature_folder(miniature_cache, seed=0, size=64) / name
    root = tmp_path / name
    shutil.copytree(source, root)
    for old, new in moves.items():
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)
    assert all(any(path.exists() for path in options) for options in adapter.expected(root, "all", {}))
    assert len(adapter.read_labels(root, {})) == len(adapter.read_labels(source, {}))
    assert all(folder.is_dir() for folder in adapter.images(root, {}))


def test_name_lists(tmp_path: Path) -> None:
    root = koniq(tmp_path, "")
    adapter, rows = find_adapter("koniq"), find_adapter("koniq").read_labels(root, KONIQ)
    (root / "train.txt").write_bytes(b'\xef\xbb\xbf"1.JPG"\r\n')
    (root / "test.txt").write_text("2.jpg\n")
    options = {**KONIQ, "train_names": "train.txt", "test_names": None}
    assert assign_splits(adapter, rows, "names", root, options) == ["train", None]
    options["test_names"] = "test.txt"
    assert assign_splits(adapter, rows, "names", root, options) == ["train", "test"]
    (root / "test.txt").write_text("1.jpg\n")
    with pytest.raises(ValueError, match=r"1\.jpg is in both"):
        assign_splits(adapter, rows, "names", root, options)
    (root / "test.txt").write_text("9.jpg\n")
    with pytest.raises(ValueError, match=r"test_names lists '9\.jpg' \(1 in all\), which has no label"):
        assign_splits(adapter, rows, "names", root, options)
    with pytest.raises(ValueError, match="options.test_names: no file"):
        assign_splits(adapter, rows, "names", root, {**options, "test_names": "none.txt"})
    with pytest.raises(ValueError, match="needs options.train_names or options.test_names"):
        assign_splits(adapter, rows, "names", root, KONIQ)
