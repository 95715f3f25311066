from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from scipy.stats import spearmanr

from qhk.data.adapters import adapter_names, find_adapter
from qhk.data.datasets import LoadedDataset, load_dataset_entry
from qhk.data.labels import label_problems
from qhk.data.miniature import SETS, TASK_SETS, miniature_folder
from qhk.data.miniature.tasks import video
from qhk.data.protocols import offered_protocols
from qhk.data.selection import check_images, refuse_leakage
from tests.data.conftest import ENTRIES, REPOSITORY, conf_entry, no_progress

COUNTS = {
    "koniq": {"train": 400, "validation": 40, "test": 120}, "kadid": {"train": 480, "test": 120},
    "pipal": {"test": 120}, "live_wild": {"test": 120}, "agiqa_3k": {"test": 117}, "csiq": {"test": 116},
    "tid2013": {"test": 120},
}  # fmt: skip


def load(name: str, cache: Path, **changes: object) -> LoadedDataset:
    return load_dataset_entry(name, conf_entry(name, **changes), cache=cache, progress=no_progress)


@pytest.mark.parametrize("name", SETS)
def test_miniature_sets_pass_through_the_real_adapters(miniature_cache: Path, name: str) -> None:
    loaded = load(f"miniature_{name}", miniature_cache)
    everything = [example for part in loaded.examples.values() for example in part]
    assert loaded.miniature
    if name in COUNTS:
        assert {split: len(part) for split, part in loaded.examples.items()} == COUNTS[name]
    assert min(example.mos for example in everything) == pytest.approx(1.0)
    assert max(example.mos for example in everything) == pytest.approx(5.0)
    assert len({example.id.lower() for example in everything}) == len(everything)
    assert len({example.image for example in everything}) == len(everything)
    assert {example.dataset for example in everything} == {f"miniature_{name}"}
    rank = spearmanr([e.mos for e in everything], [e.mos_native for e in everything]).statistic
    assert rank == pytest.approx(1.0 if name != "csiq" else -1.0)


def test_distortions_are_labelled_where_names_tell_them(miniature_cache: Path) -> None:
    for name in ("kadid", "csiq", "tid2013"):
        part = load(f"miniature_{name}", miniature_cache).examples["test"]
        faint = [example.mos for example in part if example.labels["severity"] == "faint"]
        severe = [example.mos for example in part if example.labels["severity"] == "severe"]
        assert sum(faint) / len(faint) > 1.5 + sum(severe) / len(severe)
    assert load("miniature_koniq", miniature_cache).examples["test"][0].labels == {}


def test_references_never_cross_the_split(miniature_cache: Path) -> None:
    for protocol in ("references", "visualquality_r1"):
        examples = load("miniature_kadid", miniature_cache, protocol=protocol).examples
        seen = [{example.reference for example in part} for part in examples.values()]
        assert len(set().union(*seen)) == sum(len(part) for part in seen) == 40
        refuse_leakage(examples["train"], {"miniature_kadid": examples["test"]}, files={})


def test_fingerprint_follows_scores_and_files(miniature_cache: Path, tmp_path: Path) -> None:
    first = load("miniature_csiq", miniature_cache)
    assert first.fingerprint == load("miniature_csiq", miniature_cache).fingerprint
    given = load("miniature_csiq", miniature_cache, normalisation="given")
    assert given.fingerprint != first.fingerprint
    copy = tmp_path / "csiq"
    shutil.copytree(miniature_folder(miniature_cache, seed=0, size=64) / "csiq", copy)
    (copy / "MINIATURE").unlink()
    options: Mapping[str, object] = {}
    plain = load("csiq", miniature_cache, root=str(copy), options=options)
    assert plain.fingerprint == first.fingerprint
    image = next(copy.glob("dst_imgs/*/*.png"))
    image.write_bytes(image.read_bytes() + b"x")
    assert load("csiq", miniature_cache, root=str(copy), options=options).fingerprint != first.fingerprint


def test_a_generated_set_cannot_pass_for_the_real_one(miniature_cache: Path, tmp_path: Path) -> None:
    generated = miniature_folder(miniature_cache, seed=0, size=64) / "csiq"
    with pytest.raises(
        ValueError, match=r"dataset\.csiq\.miniature must be true: the folder holds a generated set"
    ):
        load("csiq", miniature_cache, root=str(generated))


@pytest.mark.parametrize("name", SETS)
def test_missing_root_tells_the_layout(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"dataset\.{name}\.root: no folder .*expected layout: .*README"
    ) as caught:
        load(name, tmp_path, root=str(tmp_path / "none"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SETS)
def test_missing_files_of_an_empty_folder(tmp_path: Path, name: str) -> None:
    lines = label_problems(name, conf_entry(name, root=str(tmp_path)), cache=tmp_path)
    assert lines and all(line.startswith(f"dataset.{name}.root: no {tmp_path}") for line in lines)
    with pytest.raises(ValueError, match="expected layout"):
        load(name, tmp_path, root=str(tmp_path))


def test_a_dry_run_reads_the_labels_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "csiq_label.txt").write_text("1600.AWGN.1.png 0.1\n1600.AWGN.2.png 1.5\n")
    spec = conf_entry("csiq", root=str(tmp_path))
    lines = label_problems("csiq", spec, cache=tmp_path)
    assert len(lines) == 2 and "no " in lines[0] and "dst_imgs" in lines[0]
    assert "csiq_label.txt line 2: score 1.5 is outside bounds [0.0, 1.0]" in lines[1]
    (tmp_path / "csiq_label.txt").write_text("1600.AWGN.1.png 0.1\n1600.AWGN.2.png 0.5\n")
    assert len(label_problems("csiq", spec, cache=tmp_path)) == 1


def test_missing_files_generates_nothing(tmp_path: Path) -> None:
    assert label_problems("miniature_csiq", conf_entry("miniature_csiq"), cache=tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_label_without_image_and_scores_out_of_bounds(miniature_cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "kadid"
    shutil.copytree(miniature_folder(miniature_cache, seed=0, size=64) / "kadid", copy)
    (copy / "MINIATURE").unlink()
    with pytest.raises(ValueError, match=r"dmos\.csv line \d+: score .* is outside bounds \[0\.0, 1\.0\]"):
        load("kadid", tmp_path, root=str(copy), bounds=(0.0, 1.0))
    (copy / "images" / "I01_01_01.png").unlink()
    with pytest.raises(ValueError, match=r"dmos\.csv line 2: no image 'I01_01_01\.png' below"):
        load("kadid", tmp_path, root=str(copy))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": "other"}, r"dataset\.csiq\.adapter is 'other': choose one of agiqa_3k"),
        ({"higher_is_better": True}, r"dataset\.csiq\.higher_is_better must be false"),
        ({"protocol": "official"}, "protocol is 'official': csiq offers all, names"),
        ({"options": {"size": 64}}, r"options\.size is unknown"),
    ],
)
def test_wrong_values(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_problems("csiq", conf_entry("csiq", **changes), cache=tmp_path)


def test_images_are_checked_by_header(miniature_cache: Path) -> None:
    loaded = load("miniature_csiq", miniature_cache)
    check_images(loaded.examples["test"], files=loaded.files)
    with pytest.raises(ValueError, match="64x64 is too small"):
        check_images(loaded.examples["test"], files=loaded.files, min_side=65)


def test_every_entry_of_the_config_is_known_to_its_adapter(tmp_path: Path) -> None:
    names = {path.stem for path in (REPOSITORY / "conf" / "dataset").glob("*.yaml")}
    assert names == {*ENTRIES}
    for name in sorted(names - {"lsvq"}):
        entry = conf_entry(name)
        if entry.root is not None:
            label_problems(name, conf_entry(name, root=str(tmp_path)), cache=tmp_path)
        if entry.expected is not None:
            assert {*entry.expected.parts} <= {*offered_protocols(find_adapter(entry.adapter))}
            assert {*entry.expected.by_option} <= {*entry.options}
    assert {*(f"miniature_{name}" for name in [*SETS, *TASK_SETS])} <= names
    adapters = {conf_entry(name).adapter for name in names}
    assert adapters == {*adapter_names()}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "miniature_video" else [])
        for name in ENTRIES
        if name.startswith("miniature_")
    ],
)
def test_generated_sets_have_the_parts_that_are_expected(name: str, miniature_cache: Path) -> None:
    entry, loaded = conf_entry(name), load(name, miniature_cache)
    assert entry.expected is not None
    parts = {split: len(examples) for split, examples in loaded.examples.items()}
    assert parts == entry.expected.of_protocol(entry.protocol)
    assert sum(parts.values()) == entry.expected.rows


def test_as_many_videos_are_drawn_as_are_expected() -> None:
    """What a smaller set of videos shows of parts and files stands in ``miniature/test_tasks.py``."""
    entry = conf_entry("miniature_video")
    assert entry.expected is not None
    assert entry.expected.of_protocol(entry.protocol) == video.SPLITS
    assert entry.expected.rows == video.COUNT
