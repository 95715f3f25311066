"""Label files of other projects: what is read, and what is refused with which words."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from qhk.data.adapters import find_adapter
from qhk.data.datasets import LoadedDataset, load_dataset_entry
from tests.data.conftest import REAL_DATA, conf_entry, no_progress

LABELS = REAL_DATA / "labels"


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(folder / name)
    return folder


def load(name: str, root: Path, *, options: dict[str, object], **changes: object) -> LoadedDataset:
    entry = conf_entry(name)
    spec = conf_entry(name, **({"root": str(root)} | changes), options={**entry.options, **options})
    return load_dataset_entry(name, spec, cache=root / "cache", progress=no_progress)


def deqa_record(name: str, score: float, norm: float, **changes: object) -> dict[str, object]:
    record: dict[str, object] = {
        "id": f"{name}->{score}", "image": f"KONIQ/images/{name}", "gt_score": score, "gt_score_norm": norm,
        "std": 0.5, "std_norm": 1.0,
    }  # fmt: skip
    return record | changes


@pytest.fixture
def deqa(tmp_path: Path) -> Path:
    pictures(tmp_path / "KONIQ" / "images", "a.jpg", "b c.jpg", "dé.jpg")
    train = [deqa_record("a.jpg", 2.0, 2.0), deqa_record("b c.jpg", 3.0, 4.0)]
    (tmp_path / "train.json").write_text(json.dumps(train))
    (tmp_path / "test.json").write_text(json.dumps([deqa_record("dé.jpg", 2.5, 3.0)]))
    return tmp_path


FILES: dict[str, object] = {"train_labels": "train.json", "test_labels": "test.json"}


def test_deqa_keeps_the_native_score_and_reads_the_map_off_the_pairs(deqa: Path) -> None:
    loaded = load("deqa", deqa, options=FILES)
    assert (loaded.scale.low, loaded.scale.high) == (1.5, 3.5)
    found = [(e.mos_native, e.mos, e.mos_std) for part in ("train", "test") for e in loaded.examples[part]]
    assert found == [(2.0, 2.0, 1.0), (3.0, 4.0, 1.0), (2.5, 3.0, 1.0)]
    assert loaded.examples["test"][0].image.name == "dé.jpg"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gt_score_norm": 3.9}, r"native score 2\.5 has the normalised score 3\.0, .*gives|native score"),
        ({"id": "b c.jpg->9"}, r"train\.json row 2: id says 9, gt_score 3\.0"),
        ({"gt_score": None}, r"train\.json row 2: gt_score is missing, not a finite number"),
        ({"gt_score": float("inf")}, r"row 2: gt_score is inf, not a finite number"),
        (
            {"image": ["x.jpg", "y.jpg"]},
            r"row 2: image is \['x\.jpg', 'y\.jpg'\], expected the path of one",
        ),
        ({"image": "KONIQ/images/gone.jpg"}, r"row 2: no image 'KONIQ/images/gone\.jpg' below"),
        (
            {"image": "KONIQ/images/a.jpg"},
            r"row 2: image 'koniq/images/a\.jpg' is listed twice \(first .*row 1",
        ),
    ],
)
def test_deqa_records_that_are_refused(deqa: Path, change: dict[str, object], message: str) -> None:
    records = json.loads((deqa / "train.json").read_text())
    records[1] |= change
    (deqa / "train.json").write_text(json.dumps(records))
    with pytest.raises(ValueError, match=message):
        load("deqa", deqa, options=FILES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{]", r"train\.json line 1: not JSON"),
        ('{"train": []}', r"train\.json row 1: gt_score is missing"),
        ("[3]", r"train\.json row 1: expected an object with named fields, got 3"),
        ("7\n", r"train\.json row 1: expected an object with named fields, got 7"),
        ('{"id": 1}\n["a"]\n', r"row 1: gt_score is missing|row 2: expected an object with named fields"),
        ("[" * 100_000, r"train\.json line 1: brackets are nested too deeply"),
        ('{"a": ' * 100_000, r"train\.json line 1: brackets are nested too deeply"),
        ('[{"gt_score": ' + "9" * 400 + "}]", r"row 1: gt_score is 9{57}\.\.\., not a finite number"),
        ("[" + "9" * 5000 + "]", r"train\.json line 1: Exceeds the limit \(4300 digits\)"),
        ('{"gt_score": 1}\n{"gt_score": 2, "gt_score": 3}', r"train\.json line 2: key 'gt_score' is twice"),
        ("[]", None),
    ],
)
def test_deqa_files_that_are_refused(deqa: Path, content: str, message: str | None) -> None:
    (deqa / "train.json").write_text(content)
    if message is None:
        message = "has no rows|run from|normalised"
    with pytest.raises(ValueError, match=message):
        load("deqa", deqa, options={"train_labels": "train.json"})


def test_files_must_be_named_and_there(deqa: Path) -> None:
    with pytest.raises(ValueError, match=r"options\.train_labels and options\.test_labels are both null"):
        load("deqa", deqa, options={})
    with pytest.raises(ValueError, match=r"no .*gone\.json; put the set there, .*expected layout"):
        load("deqa", deqa, options={"train_labels": "gone.json"})


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_json_rows(tmp_path: Path, ending: str) -> None:
    pictures(tmp_path / "images", "x/a.jpg")
    outside = pictures(tmp_path / "elsewhere", "b.jpg") / "b.jpg"
    records = [
        {
            "id": "one",
            "images": ["x/a.jpg"],
            "gt_score": "3.5",
            "group_id": "group_000000",
            "is_degraded": False,
        },
        {"id": "two", "images": [str(outside)], "gt_score": 1, "degradation_level": None, "step": 2},
    ]
    text = json.dumps(records) if ending == "json" else "\n".join(map(json.dumps, records)) + "\n"
    (tmp_path / f"rows.{ending}").write_text(text)
    found = load("json_rows", tmp_path, options={"train_labels": f"rows.{ending}"}).examples["train"]
    assert [(e.id, e.mos, e.labels) for e in found] == [
        ("one", 3.5, {"group_id": "group_000000"}), ("two", 1.0, {"step": 2.0}),
    ]  # fmt: skip
    assert found[1].image == outside


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"id": "a_noise", "images": ["a.jpg"], "gt_score": 3.0, "is_degraded": True},
            "a_noise is a degraded copy",
        ),
        ({"id": "", "images": ["a.jpg"], "gt_score": 3.0}, "id is '', expected text"),
        ({"images": ["a.jpg"], "gt_score": 3.0}, "id is missing, expected text"),
        ({"id": "a", "images": [], "gt_score": 3.0}, r"images is \[\], expected the path of one image"),
        ({"id": "a", "gt_score": 3.0}, "images is missing, expected the path of one image"),
        ({"id": "a", "images": ["a.jpg"], "gt_score": True}, "gt_score is true, not a finite number"),
        ({"id": "a", "images": ["a.jpg"], "gt_score": "good"}, "gt_score is 'good', not a finite number"),
        ({"id": "a", "images": ["a.jpg"], "gt_score": "3_5"}, "gt_score is '3_5', not a finite number"),
        ({"id": "a", "images": ["a.jpg"], "gt_score": 3, "step": 10**400}, "step is 1000*.*, not a finite"),
        ({"id": "a", "images": ["a.jpg"], "gt_score": 72.0}, r"score 72\.0 is outside bounds \[1\.0, 5\.0\]"),
        ({"id": "a", "images": ["/gone/a.jpg"], "gt_score": 3.0}, r"no image '/gone/a\.jpg' below"),
    ],
)
def test_json_rows_that_are_refused(tmp_path: Path, record: dict[str, object], message: str) -> None:
    pictures(tmp_path / "images", "a.jpg")
    (tmp_path / "rows.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(ValueError, match=message) as caught:
        load("json_rows", tmp_path, options={"train_labels": "rows.jsonl"})
    assert "rows.jsonl row 1" in str(caught.value)


def test_text_lists_by_their_columns(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "a b.png", "c.png")
    (tmp_path / "one.txt").write_text("a b.png 70.5 1.5\nc.png 20 2\n")
    options: dict[str, object] = {"test_labels": "one.txt"}
    found = load("visualquality_r1", tmp_path, options=options, bounds=(0.0, 100.0)).examples["test"]
    assert [(e.id, e.mos_native) for e in found] == [("a b.png", 70.5), ("c.png", 20.0)]
    (tmp_path / "one.txt").write_text("images/ref.png,c.png,3.5\n\n")
    options |= {"columns": "reference image score"}
    found = load("visualquality_r1", tmp_path, options=options, bounds=(1.0, 5.0)).examples["test"]
    assert [(e.id, e.reference, e.mos_std) for e in found] == [("c.png", "images/ref.png", None)]


@pytest.mark.parametrize(
    ("line", "columns", "message"),
    [
        (
            "c.png 3.5",
            "image score std",
            r"one\.txt line 1: 'c\.png 3\.5' has 2 cells, options\.columns has 3",
        ),
        ("ref.png c.png 3.5", "image score std", r"line 1: score is 'c\.png', not a number"),
        ("c.png nan", "image score", "line 1: score is 'nan'"),
        ("c.png 3.5", "picture score", r"options\.columns is 'picture score': name image and score"),
    ],
)
def test_text_lists_that_are_refused(tmp_path: Path, line: str, columns: str, message: str) -> None:
    pictures(tmp_path / "images", "c.png")
    (tmp_path / "one.txt").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=message):
        load(
            "visualquality_r1",
            tmp_path,
            options={"test_labels": "one.txt", "columns": columns},
            bounds=(1.0, 5.0),
        )


def test_training_lines(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "c.png")
    turns = [{"from": "human", "value": "<image>Rate it."}, {"from": "gpt", "value": "3.25"}]
    record = {"id": 1, "dataset_name": "KADID-10K", "image": ["c.png"], "conversations": turns}
    (tmp_path / "train.jsonl").write_text(json.dumps(record) + "\n")
    options: dict[str, object] = {"train_labels": "train.jsonl"}
    found = load("visualquality_r1_lines", tmp_path, options=options).examples["train"][0]
    assert (found.id, found.mos, found.labels) == ("c.png", 3.25, {"dataset_name": "KADID-10K"})
    record["conversations"] = turns[:1]
    (tmp_path / "train.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(ValueError, match=r"train\.jsonl row 1: conversations has 0 turns from gpt"):
        load("visualquality_r1_lines", tmp_path, options=options)


@pytest.mark.skipif(not LABELS.is_dir(), reason="the real label files are not beside this checkout")
def test_real_files_of_the_projects() -> None:
    root = LABELS.resolve()
    metas = {"train_labels": None, "images": "."}
    for path in sorted((root / "deqa_metas").glob("*_*.json")):
        if path.name != "soft_label_examples.json":
            rows = find_adapter("deqa").read_labels(root, {**metas, "test_labels": f"deqa_metas/{path.name}"})
            assert all(row.normalised is not None and 1.0 <= row.normalised <= 5.0 for row in rows)
    lists = {
        "preresq_ground_truth/GT_KonIQ.txt": ("image score std", 10073),
        "preresq_ground_truth/GT_PIPAL.txt": ("image score", 23200),
        "preresq_ground_truth/GT_BID.txt": ("image score", 586),
        "preresq_ground_truth/GT_Liu.txt": ("reference image score", 1199),
        "preresq_ground_truth/KADID-10K/KADID-10K_test_set.txt": ("reference image score std", 2000),
        "visualquality_r1/LIVEC_test_all.txt": ("image score std", 1169),
        "official_format/optional/bid_all_liqe.txt": ("image score std", 586),
    }
    for name, (columns, count) in lists.items():
        options = {"columns": columns, "test_labels": name, "images": "."}
        rows = find_adapter("visualquality_r1").read_labels(root, options)
        assert len(rows) == count
        if "KADID" in name:
            assert Counter(row.reference for row in rows).most_common(1)[0][1] == 125
