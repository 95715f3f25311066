from __future__ import annotations

from pathlib import Path

import pytest

from qhk.data.adapter import IMAGE_ENDINGS, name_key
from qhk.data.matching import index_images


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("name", "key"),
    [("I01_01_1.BMP", "i01_01_1"), ("sd1.5_low_000.jpg", "sd1.5_low_000"), ("1600.AWGN.1.png", "1600.awgn.1"),
     ("A0006", "a0006"), ("a/b/C.Jpeg", "c"), ("xl2.2_normal_1", "xl2.2_normal_1")],
)  # fmt: skip
def test_name_key(name: str, key: str) -> None:
    assert name_key(name) == key


def test_case_and_extension_do_not_matter(tmp_path: Path) -> None:
    index = index_images(
        [tree(tmp_path, "i01_01_1.bmp", "100.JPG", "notes.txt", ".hidden/x.png")], endings=IMAGE_ENDINGS
    )
    assert index.find("I01_01_1.BMP", "row").name == "i01_01_1.bmp"
    assert index.find("100.bmp", "row").name == "100.JPG"
    assert len(index.all_images()) == 2


def test_exact_spelling_wins_over_another_case(tmp_path: Path) -> None:
    index = index_images([tree(tmp_path, "a.png", "A.png", "a.jpg")], endings=IMAGE_ENDINGS)
    assert index.find("A.png", "row").name == "A.png"
    assert index.find("a.jpg", "row").name == "a.jpg"


def test_relative_paths_tell_equal_names_apart(tmp_path: Path) -> None:
    index = index_images([tree(tmp_path, "x/a.png", "y/a.png")], endings=IMAGE_ENDINGS)
    assert index.find("y/a.png", "row") == tmp_path / "y" / "a.png"
    with pytest.raises(ValueError, match="row 5: image 'a.png' fits 2 files"):
        index.find("a.png", "row 5")


def test_ambiguous_stem_and_missing(tmp_path: Path) -> None:
    index = index_images([tree(tmp_path, "a.png", "a.jpg")], endings=IMAGE_ENDINGS)
    with pytest.raises(ValueError, match="row 5: image 'a.bmp' fits 2 files"):
        index.find("a.bmp", "row 5")
    with pytest.raises(ValueError, match="row 6: no image 'b.png' below"):
        index.find("b.png", "row 6")
