from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
from PIL import Image
from pyarrow import parquet

from qhk.data.check import check_set
from qhk.data.datasets import LoadedDataset, load_dataset_entry
from qhk.settings.data import DatasetSettings
from tests.data.conftest import conf_entry, no_progress


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 32, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=71)
    return file.getvalue()


def entry_of(root: Path, *, options: dict[str, object] | None = None, **changes: object) -> DatasetSettings:
    entry = conf_entry("hugging_face")
    values: dict[str, object] = {"root": str(root), "bounds": (0.0, 10.0), "higher_is_better": True} | changes
    merged = {**entry.options, "score_column": "mos", **(options or {})}
    return conf_entry("hugging_face", **values, options=merged)


def load(
    root: Path, cache: Path, *, options: dict[str, object] | None = None, **changes: object
) -> LoadedDataset:
    spec = entry_of(root, options=options, **changes)
    return load_dataset_entry("hugging_face", spec, cache=cache, progress=no_progress)


def saved(root: Path, **splits: list[dict[str, object]]) -> Path:
    """A DatasetDict as save_to_disk writes it, with encoded images inside."""
    from datasets import Dataset, DatasetDict, Features, Value
    from datasets import Image as ImageFeature

    features = Features({"image": ImageFeature(), "mos": Value("float64"), "scene": Value("string")})
    DatasetDict(
        {name: Dataset.from_list(rows, features=features) for name, rows in splits.items()}
    ).save_to_disk(str(root))
    return root


def rows(*seeds: int) -> list[dict[str, object]]:
    return [
        {"image": {"bytes": jpeg(seed), "path": f"{seed}.jpg"}, "mos": float(seed), "scene": f"s{seed % 3}"}
        for seed in seeds
    ]


def test_saved_splits_keep_every_byte(tmp_path: Path) -> None:
    root = saved(tmp_path / "set", train=rows(1, 2, 3), validation=rows(4), test=rows(5, 6))
    loaded = load(root, tmp_path / "cache")
    assert {split: [e.mos_native for e in part] for split, part in loaded.examples.items()} == {
        "train": [1.0, 2.0, 3.0], "validation": [4.0], "test": [5.0, 6.0],
    }  # fmt: skip
    for part in loaded.examples.values():
        for example in part:
            assert example.image.read_bytes() == jpeg(int(example.mos_native or 0))
            assert example.image.suffix == ".jpg"
    assert loaded.examples["train"][1].id == "train/1"
    assert loaded.examples["train"][1].mos == pytest.approx(1.8)


def test_what_was_unpacked_is_used_again_until_the_files_change(tmp_path: Path) -> None:
    root = saved(tmp_path / "set", train=rows(1, 2))
    first = load(root, tmp_path / "cache")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "unpacked").rglob("*")}
    assert load(root, tmp_path / "cache").fingerprint == first.fingerprint
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "unpacked").rglob("*")} == written
    other = saved(tmp_path / "other", train=rows(7, 8))
    for path in root.rglob("*"):
        if path.is_file():
            path.write_bytes((other / path.relative_to(root)).read_bytes())
    assert load(root, tmp_path / "cache").examples["train"][0].mos_native == 7.0


def test_half_unpacked_is_begun_again(tmp_path: Path) -> None:
    root = saved(tmp_path / "set", train=rows(1, 2))
    load(root, tmp_path / "cache")
    folder = next((tmp_path / "cache" / "unpacked").iterdir())
    (folder / "rows.jsonl").unlink()
    next((folder / "images").iterdir()).unlink()
    assert len(load(root, tmp_path / "cache").examples["train"]) == 2


def table(path: Path, **columns: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table(columns), path)
    return path


def test_parquet_with_lists_of_one_image_references_and_paths(tmp_path: Path) -> None:
    outside = tmp_path / "outside é.jpg"
    outside.write_bytes(jpeg(9))
    cells = [[{"bytes": jpeg(1), "path": None}], [{"bytes": None, "path": str(outside)}]]
    table(
        tmp_path / "set" / "data" / "train-00000-of-00001.parquet",
        image=cells,
        mos=["1.0", "9.0"],
        scene=["a", "b"],
    )
    with pytest.raises(ValueError, match="outside é.jpg lies outside the set"):
        load(tmp_path / "set", tmp_path / "cache", options={"reference_column": "scene"})
    loaded = load(
        tmp_path / "set", tmp_path / "cache", options={"reference_column": "scene"}, roots=[str(tmp_path)]
    )
    assert [(e.mos_native, e.reference) for e in loaded.examples["train"]] == [(1.0, "a"), (9.0, "b")]
    assert loaded.examples["train"][1].image == outside


@pytest.mark.parametrize(
    ("image", "mos", "message"),
    [
        ({"bytes": b"text", "path": None}, 1.0, "split train row 1: the image: not a readable image"),
        (
            {"bytes": None, "path": "gone.jpg"},
            1.0,
            "row 1: the image has no bytes, and there is no file 'gone.jpg'",
        ),
        ({"bytes": jpeg(1), "path": None}, float("nan"), "row 1: mos is nan, not a finite number"),
        ({"bytes": jpeg(1), "path": None}, None, "row 1: mos is missing, not a finite number"),
        ({"bytes": jpeg(1), "path": None}, 11.0, r"row 1: score 11\.0 is outside bounds \[0\.0, 10\.0\]"),
    ],
)
def test_bad_rows(tmp_path: Path, image: object, mos: float | None, message: str) -> None:
    table(tmp_path / "set" / "train.parquet", image=[image], mos=arrow.array([mos], arrow.float64()))
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "set", tmp_path / "cache")


def test_bad_sources(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected layout: a folder written by save_to_disk"):
        load(tmp_path / "empty", tmp_path / "cache")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "train.parquet").write_bytes(b"PAR1 not a table")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        load(tmp_path / "torn", tmp_path / "cache")
    cells = [[{"bytes": jpeg(1), "path": None}, {"bytes": jpeg(2), "path": None}]]
    table(tmp_path / "pairs" / "train.parquet", image=cells, mos=[1.0])
    with pytest.raises(ValueError, match="row 1: the image column holds 2 values, expected one image"):
        load(tmp_path / "pairs", tmp_path / "cache")
    with pytest.raises(
        ValueError, match=r"no column 'score' \(options\.score_column\); columns present: image, mos"
    ):
        load(tmp_path / "pairs", tmp_path / "cache", options={"score_column": "score"})


def test_images_in_tables_are_labelled_below_a_relative_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table(Path("set/train.parquet"), image=[{"bytes": jpeg(1), "path": None}], mos=[1.0])
    spec = entry_of(Path("set"))
    report = check_set(
        "hugging_face",
        spec,
        cache=Path("cache"),
        images="header",
        near_duplicates=False,
        workers=0,
        progress=no_progress,
    )
    (spare,) = [found for found in report.findings if found.subject == "images without label"]
    assert (spare.found, spare.verdict) == ("0", "ok")


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ("default/train/0000 default/test/0000", "train test"),
        ("train-00000-of-00002 train-00001-of-00002 test-00000-of-00001", "train train test"),
        ("data/train-00000-of-00001 data/validation-00000-of-00001", "train validation"),
        ("cfg/dev-00000-of-00001 cfg/eval-00000-of-00001", "validation test"),
        ("myset_test myset_val myset.training", "test validation train"),
        ("Test/part0 train2/deep/part1", "test train"),
        (".cache/test __old/test train", "- - train"),
    ],
)
def test_parquet_splits_are_told_as_on_the_hub(tmp_path: Path, files: str, parts: str) -> None:
    wanted: dict[str, list[float]] = {}
    for place, (file, part) in enumerate(zip(files.split(), parts.split(), strict=True)):
        table(tmp_path / "set" / f"{file}.parquet", image=[{"bytes": jpeg(place), "path": None}], mos=[place])
        wanted.setdefault(part, []).append(place)
    wanted.pop("-", None)
    loaded = load(tmp_path / "set", tmp_path / "cache")
    assert {split: sorted(e.mos_native for e in part) for split, part in loaded.examples.items()} == wanted


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("latest", "split 'latest' says none of train, validation, test: rename"),
        ("train extra", "split extra row 1: split 'extra' says none of"),
        ("train/test", "split 'train_test' says test and train of"),
        ("a_train_b_val", "split 'train_validation' says train and validation of"),
        ("one/train two/train", "set/one and .*set/two both have a split train: give one as root"),
    ],
)
def test_splits_that_no_word_or_two_words_tell_are_refused(tmp_path: Path, files: str, message: str) -> None:
    for place, file in enumerate(files.split()):
        table(tmp_path / "set" / f"{file}.parquet", image=[{"bytes": jpeg(place), "path": None}], mos=[1.0])
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "set", tmp_path / "cache")
    if len(files.split()) == 1:
        assert [*load(tmp_path / "set", tmp_path / "cache", protocol="all").examples] == ["test"]


def test_saved_splits_are_never_taken_for_training_by_default(tmp_path: Path) -> None:
    from datasets import Dataset

    for split, part in (("test", "test"), (None, "train")):
        columns = {"image": [{"bytes": jpeg(1), "path": None}], "mos": [1.0]}
        Dataset.from_dict(columns, split=split).save_to_disk(str(tmp_path / f"{split}"))
        assert [*load(tmp_path / f"{split}", tmp_path / "cache").examples] == [part]
    root = saved(tmp_path / "set", train=rows(1), unlabelled=rows(2))
    with pytest.raises(ValueError, match="split 'unlabelled' says none of train, validation, test"):
        load(root, tmp_path / "cache")
