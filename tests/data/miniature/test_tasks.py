from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from qhk.data.datasets import LoadedDataset, load_dataset_entry
from qhk.data.miniature import MARKER, TASK_SETS, miniature_folder, task_folder
from qhk.data.miniature.tasks import comparison, degradation, video
from qhk.data.selection import check_images, refuse_leakage
from tests.data.conftest import conf_entry, no_progress


@pytest.fixture(scope="session")
def task_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder whose task sets are 32 pixels wide, which is quick to draw."""
    return tmp_path_factory.mktemp("tasks")


def load(name: str, cache: Path) -> LoadedDataset:
    entry = conf_entry(f"miniature_{name}")
    spec = conf_entry(f"miniature_{name}", options={**entry.options, "size": 32})
    return load_dataset_entry(f"miniature_{name}", spec, cache=cache, progress=no_progress)


def test_degradations_are_balanced_and_split_by_content(task_cache: Path) -> None:
    loaded = load("degradation", task_cache)
    for split, per_cell in (("train", 30), ("test", 8)):
        part = loaded.examples[split]
        cells = Counter((e.labels["distortion_class"], e.labels["severity"]) for e in part)
        assert cells.pop(("null", "null")) == 4 * per_cell
        assert set(cells.values()) == {per_cell} and len(cells) == 20
    refuse_leakage(loaded.examples["train"], {"test": loaded.examples["test"]}, files={})
    check_images([e for part in loaded.examples.values() for e in part], files=loaded.files)


def test_severities_grow(task_cache: Path) -> None:
    part = load("degradation", task_cache).examples["train"]
    levels: dict[str, list[float]] = {}
    clean = {e.reference: e.image for e in part if e.labels["severity"] == "null"}
    for example in part:
        difference = _pixels(example.image) - _pixels(clean[example.reference])
        levels.setdefault(str(example.labels["severity"]), []).append(float(np.abs(difference).mean()))
    means = [np.mean(levels[word]) for word in ("null", "slight", "moderate", "obvious", "serious")]
    assert means == sorted(means) and means[0] == 0.0 < means[1]


def test_comparisons_show_three_pictures_and_three_labels(task_cache: Path) -> None:
    loaded = load("comparison", task_cache)
    for split, count in (("train", 150), ("test", 40)):
        part = loaded.examples[split]
        choices = Counter(example.labels["choice"] for example in part)
        assert choices == {"Image A": 2 * count, "Image B": 2 * count, "Similar": count}
        assert all(len(example.images) == 3 for example in part)
    refuse_leakage(loaded.examples["train"], {"test": loaded.examples["test"]}, files={})


def test_the_better_picture_is_nearer_to_its_reference(task_cache: Path) -> None:
    right, total = 0, 0
    for example in load("comparison", task_cache).examples["test"]:
        reference, a, b = (_pixels(image) for image in example.images)
        if example.labels["choice"] != "Similar":
            closer = "Image A" if np.abs(a - reference).mean() < np.abs(b - reference).mean() else "Image B"
            right, total = right + (closer == example.labels["choice"]), total + 1
    assert total == 160 and 0.6 < right / total < 1.0


@pytest.mark.parametrize("name", ["degradation", "comparison"])
def test_marker_and_place(task_cache: Path, name: str) -> None:
    load(name, task_cache)
    root = task_folder(task_cache, seed=0, size=32) / name
    note = json.loads((root / MARKER).read_text())
    assert note["note"].startswith("Synthetic.") and note["pictures"] == TASK_SETS[name].count
    assert not miniature_folder(task_cache, seed=0, size=32).exists()


@pytest.mark.parametrize("module", [degradation, comparison])
def test_same_seed_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    monkeypatch.setattr(module, "CONTENTS", {"train": 2, "test": 1})
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        np.random.seed(len(folder) + seed)
        module.write(tmp_path / folder, seed, 32, lambda done: None)
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b") != _digest(tmp_path / "c")


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=np.float64)


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def test_videos_are_real_files_with_opinions(
    task_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "SPLITS", {"train": 9, "test": 3})
    root = tmp_path / "video"
    video.write(root, 0, 32, lambda done: None)
    entry = conf_entry("miniature_video")
    options = {k: v for k, v in entry.options.items() if k not in ("generator_seed", "size")}
    spec = conf_entry("miniature_video", root=str(root), options=options, miniature=False)
    loaded = load_dataset_entry("miniature_video", spec, cache=tmp_path, progress=no_progress)
    assert {split: len(part) for split, part in loaded.examples.items()} == {"train": 9, "test": 3}
    assert {path.suffix for path in (root / "videos").iterdir()} == {".mp4", ".mkv"}
    assert all(len(example.images) == 4 for part in loaded.examples.values() for example in part)


def test_temporal_defects_grow_with_strength() -> None:
    rng = np.random.default_rng(0)
    scene = [np.full((32, 32, 3), 100.0 + place) for place in range(video.FRAMES)]
    for name, defect in video.DEFECTS.items():
        changes = []
        for strength in (0.1, 0.5, 1.0):
            frames = defect(scene, strength, rng)
            assert len(frames) == video.FRAMES
            changes.append(float(np.mean([np.abs(a - b).mean() for a, b in zip(frames, scene, strict=True)])))
        assert 0.0 < changes[0] < changes[1] < changes[2], name
