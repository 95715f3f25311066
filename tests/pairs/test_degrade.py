from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qhk.data.image import load_image
from qhk.data.seeds import stream_generator
from qhk.pairs import degrade as module
from qhk.pairs.build import select_pairs
from qhk.pairs.degrade import CopyCounts, degrade_examples
from qhk.pairs.manifest import PairManifest, open_pairs
from qhk.pairs.operations import apply_operation
from qhk.pairs.records import group_id
from qhk.pairs.similarity import structural
from tests.pairs.conftest import Pictures, a_plan, contents, example, no_progress, scene


def run(manifest: PairManifest, examples: list[Any], *, workers: int = 0, **plan: Any) -> CopyCounts:
    return degrade_examples(
        manifest, {"train": examples}, plan=a_plan(**plan), workers=workers, progress=no_progress
    )


def test_a_pair_tells_where_it_comes_from(manifest: PairManifest, pictures: Pictures) -> None:
    examples = pictures(5)
    assert run(manifest, examples, seed=7) == CopyCounts(made=5, failed=0, before=0)
    for pair, one in zip(manifest, examples, strict=True):
        assert pair.group_id == group_id("set", one.id)
        assert manifest.source_path(pair).resolve() == one.image.resolve()
        assert pair.source.sha256 == hashlib.sha256(one.image.read_bytes()).hexdigest()
        copy = manifest.copy_path(pair)
        assert pair.copy.sha256 == hashlib.sha256(copy.read_bytes()).hexdigest()
        (step,) = pair.copy.degradations
        assert (step.seed, step.level) == (7, "stage_1")
        source = load_image(one.image)
        rng = stream_generator(7, "pair pixels", pair.group_id, 1)
        expected = apply_operation(source, kind=step.type, strength=step.strength, rng=rng)
        assert load_image(copy).tobytes() == expected.tobytes(), step.type
        assert pair.copy.ssim == pytest.approx(structural(source, expected), abs=1e-6)
        assert (pair.source.mos, pair.source.mos_native) == (one.mos, one.mos_native)
        assert (pair.source.width, pair.source.height) == source.size == load_image(copy).size
        assert pair.source.reference == "content 7" and pair.source.labels == dict(one.labels)
    lines = [json.loads(line) for line in manifest.path.read_text().splitlines()]
    assert all({"time", "step", "kind"} <= line.keys() for line in lines[1:])
    assert not any(str(manifest.folder.parent) in line for line in manifest.path.read_text().splitlines())


def without_times(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def test_output_does_not_follow_the_number_of_workers(tmp_path: Path, pictures: Pictures) -> None:
    examples = pictures(9)
    manifests = [open_pairs(tmp_path / name / "pairs.jsonl", create=True) for name in ("one", "three")]
    for manifest, workers in zip(manifests, (0, 3), strict=True):
        run(manifest, examples, workers=workers)
    assert without_times(manifests[0].path) == without_times(manifests[1].path)
    assert contents(tmp_path / "one" / "copies") == contents(tmp_path / "three" / "copies")


def test_an_interrupted_run_goes_on(
    manifest: PairManifest, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    examples = pictures(8)
    made = module.in_order

    def interrupted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for number, done in enumerate(made(*args, **kwargs)):
            if number == 3:
                raise KeyboardInterrupt
            yield done

    monkeypatch.setattr(module, "in_order", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(manifest, examples)
    monkeypatch.undo()
    left = open_pairs(manifest.path)
    assert len(left) == 3, "what was done before the interruption is recorded"
    untried = select_pairs(left, human_review="skipped", unjudged="keep").dropped
    assert [drop.example_id for drop in untried] == [one.id for one in examples[3:]]
    assert {drop.reason for drop in untried} == {"not degraded yet: run qhk data degrade to its end"}
    kept = contents(manifest.folder / "copies")
    assert run(open_pairs(manifest.path), examples) == CopyCounts(made=5, failed=0, before=3)
    assert kept.items() <= contents(manifest.folder / "copies").items()
    whole = open_pairs(tmp_path / "whole" / "pairs.jsonl", create=True)
    run(whole, examples)
    assert list(whole.pairs) == list(open_pairs(manifest.path).pairs)
    assert contents(whole.folder / "copies") == contents(manifest.folder / "copies")
    assert run(open_pairs(manifest.path), examples) == CopyCounts(made=0, failed=0, before=8)


def test_bad_images_are_listed_and_never_replaced(
    manifest: PairManifest, pictures: Pictures, tmp_path: Path
) -> None:
    """Release defect: a missing or unreadable file silently became a grey 224 x 224 picture."""
    examples = pictures(2)
    cut = tmp_path / "cut.jpg"
    scene(300, 200).save(cut)
    cut.write_bytes(cut.read_bytes()[:2000])
    text = tmp_path / "text.png"
    text.write_text("no picture")
    bad = [example(path) for path in (cut, text, tmp_path / "gone.png")]
    assert run(manifest, [*bad, *examples]) == CopyCounts(made=2, failed=3, before=0)
    reasons = {item: reason for (_, item), reason in open_pairs(manifest.path).failures.items()}
    assert set(reasons) == {"set/cut.jpg", "set/text.png", "set/gone.png"}
    assert "no such image file" in reasons["set/gone.png"]
    scene().save(tmp_path / "gone.png")
    assert run(manifest, [*bad, *examples]) == CopyCounts(made=1, failed=2, before=2), (
        "failures are tried again"
    )


def test_equal_base_names_make_two_copies(manifest: PairManifest, tmp_path: Path) -> None:
    examples = []
    for number, folder in enumerate(("a", "b", "A")):
        (tmp_path / "x" / folder).mkdir(parents=True)
        scene(seed=number).save(tmp_path / "x" / folder / "1.png")
        examples.append(example(tmp_path / "x" / folder / "1.png", id_=f"{folder}/1.png"))
    run(manifest, examples, kinds=("blur",))
    assert len({load_image(manifest.copy_path(pair)).tobytes() for pair in manifest}) == 3


def test_sources_of_every_form_keep_their_upright_grid(manifest: PairManifest, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    scene(90, 40).save(tmp_path / "turned.jpg", exif=turned)
    scene().convert("CMYK").save(tmp_path / "cmyk.jpg")
    scene().convert("RGBA").save(tmp_path / "alpha.png")
    Image.new("I;16", (50, 40), 30000).save(tmp_path / "sixteen.png")
    names = ("turned.jpg", "cmyk.jpg", "alpha.png", "sixteen.png")
    assert run(manifest, [example(tmp_path / name) for name in names]).made == 4
    for pair in manifest:
        source, copy = load_image(manifest.source_path(pair)), load_image(manifest.copy_path(pair))
        assert source.size == copy.size == (pair.source.width, pair.source.height)
    assert manifest.pairs[group_id("set", "turned.jpg")].source.width == 40


def test_calibrated_pairs_lie_around_the_target(manifest: PairManifest, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (120, 120, 120)).save(tmp_path / "flat.png")
    examples = [example(tmp_path / "flat.png")]
    for number in range(4):
        scene(120, 96, seed=number).save(tmp_path / f"{number}.png")
        examples.append(example(tmp_path / f"{number}.png"))
    run(manifest, examples, target=0.8, tolerance=0.03, kinds=("blur", "noise", "low_contrast"))
    assert len(manifest) == 5
    for pair in manifest:
        assert pair.copy.ssim == pytest.approx(0.8, abs=0.03)
        assert pair.copy.degradations[0].level == "ssim=0.8"
    assert manifest.pairs[group_id("set", "flat.png")].copy.type == "noise", "the only kind a flat one shows"


def test_an_unreachable_target_is_a_failure_that_says_why(manifest: PairManifest, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (120, 120, 120)).save(tmp_path / "flat.png")
    counts = run(manifest, [example(tmp_path / "flat.png")], target=0.8, kinds=("blur",))
    assert counts == CopyCounts(made=0, failed=1, before=0)
    assert "no kind of blur reaches SSIM 0.8" in next(iter(manifest.failures.values()))


def test_what_a_full_disk_refused_is_the_error(
    manifest: PairManifest, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that were written in part before the disk was full must not come back as doubles."""
    append = manifest.append

    def half(rows: Sequence[Mapping[str, Any]]) -> None:
        append(rows[: len(rows) // 2 + 1])
        if rows[0]["kind"] == "pair":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "FLUSH_ROWS", 2)
    monkeypatch.setattr(manifest, "append", half)
    with pytest.raises(OSError, match="No space left"):
        degrade_examples(manifest, {"train": pictures(4)}, plan=a_plan(), workers=0, progress=no_progress)


def test_other_values_need_another_manifest(manifest: PairManifest, pictures: Pictures) -> None:
    examples = pictures(2)
    run(manifest, examples)
    for change in ({"seed": 1}, {"kinds": ("blur",)}, {"target": 0.8}, {"storage": "published"}):
        with pytest.raises(ValueError, match="was begun with .*another pairs.manifest"):
            run(manifest, examples, **change)


def test_images_that_no_pair_can_be_made_of(manifest: PairManifest, pictures: Pictures) -> None:
    (one,) = pictures(1)
    with pytest.raises(ValueError, match=r"set/000\.png occurs twice"):
        run(manifest, [one, one])
    with pytest.raises(ValueError, match="shows 2 pictures"):
        run(manifest, [replace(one, more_images=(one.image,))])


def test_a_set_with_labels_only_makes_pairs_without_score(manifest: PairManifest, pictures: Pictures) -> None:
    run(manifest, [replace(pictures(1)[0], mos=None, mos_native=None)])
    (pair,) = open_pairs(manifest.path)
    assert pair.source.mos is None
