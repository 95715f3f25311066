from __future__ import annotations

import unicodedata
from functools import partial
from pathlib import Path

import pytest

from qhk.data.adapter import IMAGE_ENDINGS, LabelRow
from qhk.data.matching import index_images
from qhk.data.names import name_key
from qhk.data.rows import find_pictures
from qhk.errors import UserError

NFC, NFD = partial(unicodedata.normalize, "NFC"), partial(unicodedata.normalize, "NFD")


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
    assert len(index.images_beside([])) == 2


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


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("./sub/A.JPG", "sub/A.JPG"),
        ("sub//A.JPG", "sub/A.JPG"),
        ("other/../sub/A.JPG", "sub/A.JPG"),
        ("images/sub/A.JPG", "sub/A.JPG"),
        ("C:\\data\\sub\\A.JPG", "sub/A.JPG"),
        ("/home/authors/SUB/a.jpg", "sub/A.JPG"),
        ("sub/A.png", "sub/A.JPG"),
        ("images/top.png", "top.png"),
        ("../images/top.png", "top.png"),
        ("top.png", "top.png"),
        ("deep/only.png", "x/deep/only.png"),
        ("only.png", "x/deep/only.png"),
        ("x/sub/A.JPG", "x/sub/A.JPG"),
    ],
)
def test_the_tail_of_a_written_path_decides(tmp_path: Path, written: str, file: str) -> None:
    root = tree(tmp_path / "images", "sub/A.JPG", "other/A.JPG", "x/sub/A.JPG", "top.png", "x/deep/only.png")
    assert index_images([root], endings=IMAGE_ENDINGS).find(written, "row") == root / file


@pytest.mark.parametrize(
    "written", ["b/003.png", "b/a/003.png", "C:\\b\\003.png", "b/001.png", "b/sub/004.png"]
)
def test_a_written_folder_is_never_left_out(tmp_path: Path, written: str) -> None:
    root = tree(tmp_path / "images", "c/a/003.png", "001.png", "a/sub/004.png")
    with pytest.raises(ValueError, match=r"row 4: no image .*is in another folder"):
        index_images([root], endings=IMAGE_ENDINGS).find(written, "row 4")


def test_accents_have_two_spellings_and_one_name(tmp_path: Path) -> None:
    index = index_images([tree(tmp_path, NFD("é/ü.png"))], endings=IMAGE_ENDINGS)
    assert index.find(NFC("é/ü.png"), "row") == tmp_path / NFD("é/ü.png")
    assert index.images_beside([tmp_path / NFC("é/ü.png")]) == []
    both = index_images([tree(tmp_path / "both", NFC("é.png"), NFD("é.png"))], endings=IMAGE_ENDINGS)
    assert both.find(NFD("é.png"), "row") == tmp_path / "both" / NFD("é.png")


def test_links_and_relative_roots_lead_to_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tree(tmp_path / "real", "a.png", "b.png"))
    monkeypatch.chdir(tmp_path)
    index = index_images([Path("link")], endings=IMAGE_ENDINGS)
    assert index.images_beside([tmp_path / "real" / "a.png"]) == [Path("link/b.png")]


def test_an_absolute_path_leads_to_the_set_or_its_roots_alone(tmp_path: Path) -> None:
    """Else the label file of somebody else has any picture of this machine read."""
    root, elsewhere = tree(tmp_path / "set", "x/a.png"), tree(tmp_path / "elsewhere", "p.png", "x/a.png")
    rows = {
        name: LabelRow(name=str(name), score=1.0, where="row 1")
        for name in (root / "x" / "a.png", elsewhere / "p.png", elsewhere / "x" / "a.png")
    }
    index = index_images([root], endings=IMAGE_ENDINGS)
    assert find_pictures(rows[root / "x" / "a.png"], index) == (root / "x" / "a.png",)
    assert find_pictures(rows[elsewhere / "x" / "a.png"], index) == (root / "x" / "a.png",), (
        "the tail decides"
    )
    for path in (elsewhere / "p.png", root / ".." / "elsewhere" / "p.png"):
        row = LabelRow(name=str(path), score=1.0, where="row 1")
        with pytest.raises(
            UserError, match=r"row 1: \S+ lies outside the set; if it may be read, add .* roots"
        ):
            find_pictures(row, index)
    allowed = index_images([root], endings=IMAGE_ENDINGS, roots=[str(elsewhere)])
    assert find_pictures(rows[elsewhere / "p.png"], allowed) == (elsewhere / "p.png",)


def test_links_and_parents_in_a_path_do_not_lead_out_of_the_set(tmp_path: Path) -> None:
    inside, outside = tmp_path / "set", tmp_path / "out"
    (outside / "deep").mkdir(parents=True)
    inside.mkdir()
    for folder in (inside, outside):
        (folder / "a.png").write_bytes(b"")
    (inside / "link").symlink_to(outside / "deep")
    (inside / "linked.png").symlink_to(outside / "a.png")
    index = index_images([inside], endings={".png"})
    assert index.holds(inside / "a.png") and index.holds(inside / "linked.png")
    assert not index.holds(inside / "link" / ".." / "a.png")
    assert not index.holds(outside / "a.png")
    linked = tmp_path / "linked"
    linked.symlink_to(inside)
    assert index_images([linked], endings={".png"}).holds(inside / "a.png")
