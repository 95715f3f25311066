from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from qhk.data.datasets import LoadedDataset, load_dataset_entry
from qhk.data.selection import check_images, refuse_leakage
from tests.data.conftest import conf_entry, no_progress

DAMAGED = {"image": "a.png", "distortion_class": "noise", "severity": "obvious", "scene": "s1"}
CLEAN = {"image": "sub/b.png", "distortion_class": None, "severity": "null", "scene": "s2"}
PAIRS = [
    {"ref_image": "r.png", "ImageA": "a.png", "ImageB": "b.png", "result": "Image A"},
    {"ref_image": "r.png", "ImageA": "b.png", "ImageB": "a.png", "result": "Similar"},
    {"ref_image": "s.png", "ImageA": "a.png", "ImageB": "b.png", "result": "Image B"},
]


def write(root: Path, files: Mapping[str, object], *names: str) -> Path:
    for name in names:
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(root / "images" / name)
    for name, rows in files.items():
        (root / name).write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return root


def load(entry: str, root: Path, **changes: object) -> LoadedDataset:
    options: dict[str, object] = {**conf_entry(entry).options, "images": "images"}
    options |= changes.pop("options", {})  # type: ignore[operator]
    spec = conf_entry(entry, root=str(root), options=options, **changes)
    return load_dataset_entry(entry, spec, cache=root / "cache", progress=no_progress)


def test_degradations_have_labels_and_no_score(tmp_path: Path) -> None:
    root = write(tmp_path, {"train.json": [DAMAGED], "test.json": [CLEAN]}, "a.png", "sub/b.png")
    loaded = load("dq_495k", root)
    (train,), (test,) = loaded.examples["train"], loaded.examples["test"]
    assert loaded.scale is None and train.mos is None and train.mos_native is None
    assert train.labels == {"distortion_class": "noise", "severity": "obvious"}
    assert test.labels == {"distortion_class": "null", "severity": "null"}
    assert test.images == (root / "images" / "sub" / "b.png",)
    with pytest.raises(AssertionError, match="has no score"):
        _ = train.opinion


def test_fingerprint_follows_labels(tmp_path: Path) -> None:
    files = {"train.json": [DAMAGED], "test.json": [CLEAN]}
    first = load("dq_495k", write(tmp_path, files, "a.png", "sub/b.png")).fingerprint
    changed = load("dq_495k", write(tmp_path, {"train.json": [DAMAGED | {"severity": "slight"}]}))
    assert changed.fingerprint != first


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"distortion_class": "gaussian"},
            r"row 1: distortion_class is 'gaussian', expected one of noise, c",
        ),
        ({"severity": "Obvious"}, r"row 1: severity is 'Obvious', expected one of slight, moderate"),
        ({"severity": "null"}, r"row 1: distortion_class is 'noise' and severity is 'null'"),
        ({"severity": 3}, r"row 1: severity is 3: give it as text"),
        ({"image": "z.png"}, r"train\.json row 1: no image 'z\.png' below .*images"),
    ],
)
def test_wrong_degradation_rows(tmp_path: Path, row: dict[str, object], message: str) -> None:
    root = write(tmp_path, {"train.json": [DAMAGED | row], "test.json": [CLEAN]}, "a.png", "sub/b.png")
    with pytest.raises(ValueError, match=rf"dataset\.dq_495k: .*{message}") as caught:
        load("dq_495k", root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"image": "a.png",\n oops}]', r"train\.json line 2: not JSON"),
        ('{"image": "a.png"}', r"train\.json row 1: no field 'distortion_class'; fields present: image"),
        ('{"image": 1}\n{"image"', r"train\.json line 2: not JSON"),
        ('["a"]', r"train\.json row 1: expected an object with named fields, got 'a'"),
        ("[]", "the label file has no rows"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    root = write(tmp_path, {"train.json": text}, "a.png")
    with pytest.raises(ValueError, match=message):
        load("dq_495k", root, options={"test_labels": None})


def test_fraction_keeps_contents_together(tmp_path: Path) -> None:
    names = [f"{index}.png" for index in range(12)]
    rows = [DAMAGED | {"image": name, "scene": f"s{index // 3}"} for index, name in enumerate(names)]
    root = write(tmp_path, {"train.json": rows}, *names)
    options = {"test_labels": None, "reference_field": "scene", "test_fraction": 0.25}
    loaded = load("dq_495k", root, protocol="by_reference", options=options)
    assert {split: len(part) for split, part in loaded.examples.items()} == {"train": 9, "test": 3}
    refuse_leakage(loaded.examples["train"], {"dq_495k": loaded.examples["test"]}, files={})


def test_comparisons_show_reference_a_and_b(tmp_path: Path) -> None:
    root = write(tmp_path, {"train_comparison.json": PAIRS}, "a.png", "b.png", "r.png", "s.png")
    loaded = load("diffiqa", root, protocol="all")
    part = loaded.examples["test"]
    assert [[image.name for image in example.images] for example in part] == [
        ["r.png", "a.png", "b.png"], ["r.png", "b.png", "a.png"], ["s.png", "a.png", "b.png"],
    ]  # fmt: skip
    assert [example.labels["choice"] for example in part] == ["Image A", "Similar", "Image B"]
    assert [example.reference for example in part] == ["r.png", "r.png", "s.png"]
    assert len({example.id for example in part}) == 3
    check_images(part, files=loaded.files)
    (root / "images" / "b.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"b\.png: not a readable image"):
        check_images(part, files=load("diffiqa", root, protocol="all").files)


def test_without_reference_similar_rows_are_left_out_and_listed(tmp_path: Path) -> None:
    root = write(tmp_path, {"train_comparison.json": PAIRS}, "a.png", "b.png", "r.png", "s.png")
    loaded = load("diffiqa", root, protocol="all", options={"show_reference": False})
    names = [[image.name for image in example.images] for example in loaded.examples["test"]]
    assert names == [["a.png", "b.png"], ["a.png", "b.png"]]
    (line,) = loaded.left_out
    assert line.endswith("row 2: result is Similar, which is no answer without a reference")


def test_comparisons_split_by_reference(tmp_path: Path) -> None:
    root = write(tmp_path, {"train_comparison.json": PAIRS}, "a.png", "b.png", "r.png", "s.png")
    loaded = load("diffiqa", root, options={"test_fraction": 0.5})
    assert sorted(len(part) for part in loaded.examples.values()) == [1, 2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"result": "A"}, r"row 1: result is 'A', expected one of Image A, Image B, Similar"),
        ({"ImageB": "z.png"}, r"train_comparison\.json row 1: no image 'z\.png'"),
    ],
)
def test_wrong_comparison_rows(tmp_path: Path, row: dict[str, object], message: str) -> None:
    root = write(tmp_path, {"train_comparison.json": [PAIRS[0] | row]}, "a.png", "b.png", "r.png", "s.png")
    with pytest.raises(ValueError, match=message):
        load("diffiqa", root, protocol="all")


@pytest.mark.parametrize(
    ("key", "value"), [("bounds", (0.0, 1.0)), ("normalisation", "given"), ("higher_is_better", True)]
)
def test_a_set_without_scores_has_no_scale(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"dataset\.diffiqa\.{key} is .*: set it to null"):
        load("diffiqa", tmp_path, **{key: value})


def test_a_scored_set_needs_a_normalisation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset\.csiq\.normalisation is null: choose"):
        spec = conf_entry("csiq", root=str(tmp_path), normalisation=None)
        load_dataset_entry("csiq", spec, cache=tmp_path, progress=no_progress)


def test_a_pair_never_shows_a_namesake_of_another_folder(tmp_path: Path) -> None:
    """As in DiffIQA, whose candidates lie in folders of equal file names."""
    pairs = [
        {"ref_image": f"ref/{n}.png", "ImageA": f"a/{n}.png", "ImageB": f"b/{n}.png", "result": "Image A"}
        for n in ("000", "003")
    ]
    names = [f"{folder}/{n}.png" for folder in ("ref", "a", "b") for n in ("000", "003")]
    root = write(tmp_path, {"train_comparison.json": pairs}, *names)
    shown = [example.images for example in load("diffiqa", root, protocol="all").examples["test"]]
    assert shown[1] == tuple(root / "images" / folder / "003.png" for folder in ("ref", "a", "b"))
    (root / "images" / "b" / "003.png").unlink()
    with pytest.raises(ValueError, match=r"row 2: no image 'b/003\.png' below .*is in another folder"):
        load("diffiqa", root, protocol="all")
