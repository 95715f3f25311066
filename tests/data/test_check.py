"""What a check finds, and that every fault is listed by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qhk.data import inventory
from qhk.data.check import Images, Report, check_set
from qhk.data.datasets import load_dataset_entry
from qhk.data.finding import Finding
from qhk.data.miniature import miniature_folder
from qhk.settings.data import DatasetSettings, ExpectedSettings
from tests.data.conftest import REAL_DATA, conf_entry, no_progress

LABELS = REAL_DATA / "labels" / "official_format"
FOLDERS = {
    "koniq": "koniq10k", "spaq": "spaq", "kadid": "kadid10k", "pipal": "pipal", "live_wild": "live_challenge",
    "agiqa_3k": "agiqa3k", "csiq": "csiq", "tid2013": "tid2013",
}  # fmt: skip

Make = Callable[..., DatasetSettings]


def run(
    name: str, spec: DatasetSettings, cache: Path, *, images: Images = "decode", near_duplicates: bool = False
) -> Report:
    return check_set(
        name,
        spec,
        cache=cache,
        images=images,
        near_duplicates=near_duplicates,
        workers=0,
        progress=no_progress,
    )


def finding(report: Report, subject: str) -> Finding:
    (found,) = [found for found in report.findings if found.subject == subject]
    return found


def noise(path: Path, seed: int, *, size: tuple[int, int] = (48, 40), **options: object) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A folder of six pictures with blanks and other letters in its name, and its entry."""
    root = tmp_path / "Bilder für Q"
    (root / "images").mkdir(parents=True)
    rows = ["image,mos,split"]
    for number in range(6):
        noise(root / "images" / f"图 {number}.png", number)
        rows.append(f"图 {number}.png,{number / 5},{'train' if number < 4 else 'test'}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")

    def entry(**changes: object) -> DatasetSettings:
        options = {**conf_entry("folder").options, "score_column": "mos", **changes.pop("options", {})}  # type: ignore[dict-item]
        values = {"root": str(root), "bounds": (0.0, 1.0), "higher_is_better": True, "options": options}
        return conf_entry("folder", **(values | changes))

    return entry


def expected_of(name: str) -> ExpectedSettings:
    expected = conf_entry(name).expected
    assert expected is not None
    return expected


def pictures(spec: DatasetSettings) -> Path:
    assert spec.root is not None
    return Path(spec.root) / "images"


@pytest.mark.skipif(not LABELS.is_dir(), reason="the real label files are not beside this checkout")
@pytest.mark.parametrize("name", FOLDERS)
def test_real_label_files_are_as_expected(name: str, tmp_path: Path) -> None:
    for protocol in {"all", *expected_of(name).parts}:
        spec = conf_entry(name, root=str(LABELS / FOLDERS[name]), protocol=protocol)
        report = run(name, spec, tmp_path, images="skip")
        assert not report.failed and report.fingerprint is None
        for subject in ("labelled images", "native scores", f"parts of {protocol}"):
            assert finding(report, subject).expected
        assert finding(report, "score on 1 to 5").found == "1 to 5"


def test_numbers_follow_the_options_that_a_set_is_read_with() -> None:
    read = {"score_column": "MOS_zscore", "image_folder": "512x384"}
    found = expected_of("koniq").under(read)
    assert (found.low, found.high, found.size) == (3.91176470588235, 88.3888888888889, (512, 384))
    usual = expected_of("koniq").under({"score_column": "MOS", "image_folder": "mine"})
    assert (usual.low, usual.high, usual.size) == (1.09615384615385, 4.31, None)


def test_a_whole_set_is_ok_and_has_the_fingerprint_of_a_run(make: Make, tmp_path: Path) -> None:
    report = run("folder", make(), tmp_path / "cache")
    assert [found.verdict for found in report.findings] == ["ok"] * len(report.findings)
    loaded = load_dataset_entry("folder", make(), cache=tmp_path / "cache", progress=no_progress)
    assert report.fingerprint == loaded.fingerprint


def test_every_missing_unreadable_and_spare_image_is_listed(make: Make, tmp_path: Path) -> None:
    spec = make()
    folder = pictures(spec)
    whole = (folder / "图 3.png").read_bytes()
    (folder / "图 3.png").write_bytes(whole[: len(whole) // 2])
    (folder / "图 0.png").unlink()
    (folder / "图 5.png").unlink()
    noise(folder / "spare.jpg", 9)
    report = run("folder", spec, tmp_path / "cache")
    assert report.failed and report.fingerprint is None
    lost = finding(report, "images of labels")
    assert (lost.found, lost.expected, lost.verdict) == ("4", "6", "error")
    assert len(lost.details) == 2 and "labels.csv line 2" in lost.details[0] and "line 7" in lost.details[1]
    broken = finding(report, "unreadable images")
    assert broken.verdict == "error" and "图 3.png: not a readable image" in broken.details[0]
    spare = finding(report, "images without label")
    assert (spare.found, spare.verdict) == ("1", "warning") and spare.details[0].endswith("spare.jpg")


def test_a_truncated_picture_needs_decoding_to_be_found(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "SETTLED_S", -3600.0)  # the picture was written just now
    spec = make()
    path = pictures(spec) / "图 2.png"
    path.write_bytes(path.read_bytes()[:2000])
    assert not run("folder", spec, tmp_path / "cache", images="header").failed
    assert run("folder", spec, tmp_path / "cache", images="decode").failed
    # what the check found is remembered: from now on a run refuses the picture before it starts
    files = load_dataset_entry("folder", spec, cache=tmp_path / "cache", progress=no_progress).files
    assert "图 2.png: not a readable image" in str(files[path].problem)


def test_copies_across_parts_are_errors_and_within_a_part_warnings(make: Make, tmp_path: Path) -> None:
    spec = make()
    folder = pictures(spec)
    shutil.copyfile(folder / "图 0.png", folder / "图 1.png")
    report = run("folder", spec, tmp_path / "cache")
    assert not report.failed
    within = finding(report, "copies within a part")
    assert within.details == ("图 0.png (train, 0.0) = 图 1.png (train, 0.2)",)
    shutil.copyfile(folder / "图 0.png", folder / "图 4.png")
    report = run("folder", spec, tmp_path / "cache")
    assert report.failed and "图 4.png (test, 0.8)" in finding(report, "copies across parts").details[0]


def test_look_alikes_across_parts_are_warned_of(make: Make, tmp_path: Path) -> None:
    spec = make()
    folder = pictures(spec)
    for name, quality in (("图 0.png", 90), ("图 5.png", 60)):
        smooth = Image.fromarray(np.random.default_rng(3).integers(0, 256, (9, 12, 3), dtype=np.uint8))
        smooth.resize((96, 72)).save(folder / name, format="JPEG", quality=quality)
    report = run("folder", spec, tmp_path / "cache", near_duplicates=True)
    alike = finding(report, "look-alikes across parts")
    assert (alike.verdict, alike.details) == ("warning", ("图 0.png (train) ~ 图 5.png (test)",))
    assert finding(report, "endings of names").found == "2 differ"
    assert not report.failed


def published(**changes: object) -> ExpectedSettings:
    values: dict[str, object] = {
        "rows": 6, "low": 0.0, "high": 1.0, "references": None, "parts": {"column": {"train": 4, "test": 2}},
        "formats": {"PNG": 6}, "size": (48, 40),
    }  # fmt: skip
    return expected_of("csiq").model_copy(update=values | changes)


@pytest.mark.parametrize(
    ("changes", "subject", "fix"),
    [
        ({}, None, ""),
        ({"rows": 7}, "labelled images", "cut or of another version"),
        ({"rows": 7, "traps": {"6": "the short list"}}, "labelled images", "this is the short list"),
        ({"high": 1.1}, "native scores", "the scores are DMOS"),
        ({"references": 3}, "references", "not complete"),
        ({"parts": {"column": {"train": 5, "test": 1}}}, "parts of column", "do not fit"),
        ({"formats": {"BMP": 6}}, "file formats", "a converted copy"),
        ({"size": (96, 80)}, "image size", "6 differ, first .*48x40: a resized copy"),
    ],
)
def test_published_numbers(
    make: Make, tmp_path: Path, changes: dict[str, object], subject: str | None, fix: str
) -> None:
    report = run("folder", make(expected=published(**changes)), tmp_path / "cache")
    wrong = [found for found in report.findings if found.verdict == "error"]
    assert [found.subject for found in wrong] == ([subject] if subject else [])
    if subject:
        import re

        assert re.search(fix, wrong[0].fix)


@pytest.mark.parametrize(
    ("changes", "found", "verdict"),
    [
        ({"unlabelled": 0}, "0", "ok"),
        ({"unlabelled": 81}, "0", "ok"),
        ({"median_side": 30, "size": None}, "48x40", "ok"),
        ({"median_side": 1000, "size": None}, "48x40", "warning"),
    ],
)
def test_published_numbers_that_warn(
    make: Make, tmp_path: Path, changes: dict[str, object], found: str, verdict: str
) -> None:
    subject = "image size" if "size" in changes else "images without label"
    one = finding(run("folder", make(expected=published(**changes)), tmp_path / "cache"), subject)
    assert (one.found, one.verdict) == (found, verdict)


def test_labels_that_cannot_be_used_are_one_error_with_what_goes_wrong_most(tmp_path: Path) -> None:
    scores = "koniq10k_scores_and_distributions.csv"
    (tmp_path / "1024x768").mkdir()
    (tmp_path / scores).write_text("image_name,MOS,SD\n1.jpg,63.0,0.5\n")
    (tmp_path / "koniq10k_distributions_sets.csv").write_text("image_name,set\n1.jpg,test\n")
    report = run("koniq", conf_entry("koniq", root=str(tmp_path)), tmp_path / "cache")
    (only,) = report.findings
    assert report.failed and "line 2: score 63.0 is outside bounds [1.0, 5.0]" in only.fix
    assert "MOS is the z-score mean" in only.fix


def test_layout_faults_are_told_one_by_one(tmp_path: Path) -> None:
    report = run("csiq", conf_entry("csiq", root=str(tmp_path)), tmp_path / "cache")
    assert [found.subject for found in report.findings] == ["layout", "layout"]
    only_labels = run("csiq", conf_entry("csiq", root=str(tmp_path)), tmp_path / "cache", images="skip")
    assert len(only_labels.findings) == 1
    none = run("csiq", conf_entry("csiq", root=str(tmp_path / "none")), tmp_path / "cache", images="skip")
    assert none.failed and "no folder" in none.findings[0].found


@pytest.mark.parametrize("name", ["kadid", "degradation"])
def test_generated_sets_are_held_against_no_published_numbers(miniature_cache: Path, name: str) -> None:
    report = run(f"miniature_{name}", conf_entry(f"miniature_{name}"), miniature_cache)
    assert not report.failed and report.fingerprint is not None
    if name == "kadid":
        assert finding(report, "labelled images").expected == ""


def test_a_part_of_a_download_does_not_pass_for_the_set(miniature_cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "csiq"
    shutil.copytree(miniature_folder(miniature_cache, seed=0, size=64) / "csiq", copy)
    (copy / "MINIATURE").unlink()
    report = run("csiq", conf_entry("csiq", root=str(copy)), tmp_path / "cache")
    wrong = {found.subject for found in report.findings if found.verdict == "error"}
    assert {"labelled images", "native scores", "references", "parts of all", "image size"} == wrong
