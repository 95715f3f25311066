from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qhk.data.degrade import KINDS, eased_strength
from qhk.data.image import load_image
from qhk.data.twin import attach_others, attach_twins, make_twin, twin_kind
from qhk.types import Example

STRENGTHS = {"noise": 45.0, "blur": 2.0, "jpeg": 5.0, "darken": 0.6}


def example(name: str, folder: Path = Path(), dataset: str = "set") -> Example:
    return Example(
        id=name, dataset=dataset, image=folder / name, mos=3.0, mos_native=3.0, higher_is_better=True
    )


def test_kinds_are_uniform_and_per_image() -> None:
    kinds = [twin_kind(example(f"{i}.png"), kinds=KINDS, seed=0, epoch=None) for i in range(4000)]
    assert all(count == pytest.approx(1000, abs=100) for count in Counter(kinds).values())
    again = [twin_kind(example(f"{i}.png"), kinds=KINDS, seed=0, epoch=None) for i in range(4000)]
    assert kinds == again


def test_kind_depends_on_seed_set_and_epoch_only_where_asked() -> None:
    def row(**changes: object) -> list[str]:
        settings: dict[str, object] = {"seed": 0, "epoch": None, "dataset": "set"} | changes
        return [
            twin_kind(
                example(f"{i}.png", dataset=str(settings["dataset"])),
                kinds=KINDS,
                seed=int(str(settings["seed"])),
                epoch=settings["epoch"],  # type: ignore[arg-type]
            )
            for i in range(60)
        ]

    assert row() == row()
    assert (
        len(
            {
                tuple(row(**change))
                for change in ({}, {"seed": 1}, {"epoch": 0}, {"epoch": 1}, {"dataset": "b"})
            }
        )
        == 5
    )


def test_generated_twin_is_pure() -> None:
    image = Image.effect_noise((64, 48), 60).convert("RGB")
    first, again, later = (
        make_twin(example("a.png"), image, kinds=["noise"], strengths=STRENGTHS, seed=3, epoch=epoch)
        for epoch in (0, 0, 1)
    )
    assert first.size == (64, 48)
    assert first.tobytes() == again.tobytes() != later.tobytes()


def write_pairs(folder: Path, lines: list[object], twin_size: tuple[int, int] = (40, 40)) -> Path:
    Image.new("RGB", (40, 40), (9, 9, 9)).save(folder / "a.png")
    (folder / "twins").mkdir(exist_ok=True)
    Image.new("RGB", twin_size, (1, 2, 3)).save(folder / "twins" / "a.png")
    manifest = folder / "pairs.jsonl"
    manifest.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n"
    )
    return manifest


def test_manifest_pairs_are_attached_and_read(tmp_path: Path) -> None:
    manifest = write_pairs(
        tmp_path, [{"id": "a.png", "twin": "twins/a.png"}, {"id": "unused.png", "twin": "x.png"}]
    )
    (paired,) = attach_twins([example("a.png", tmp_path)], manifest, missing="refuse")
    assert paired.twin == tmp_path / "twins" / "a.png"
    image = Image.open(tmp_path / "a.png").convert("RGB")
    twin = make_twin(paired, image, kinds=KINDS, strengths=STRENGTHS, seed=0, epoch=None)
    assert twin.getpixel((0, 0)) == (1, 2, 3)


def test_dataset_key_wins_over_a_bare_id(tmp_path: Path) -> None:
    lines = [
        {"id": "a.png", "twin": "twins/none.png"},
        {"id": "a.png", "twin": "twins/a.png", "dataset": "set"},
    ]
    (paired,) = attach_twins(
        [example("a.png", tmp_path)], write_pairs(tmp_path, list(lines)), missing="refuse"
    )
    assert paired.twin == tmp_path / "twins" / "a.png"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"id": "b.png", "twin": "twins/a.png"}], r"no twin for 'a\.png' \(1 of 1"),
        (["{oops"], "line 1: not JSON"),
        (["[" * 100_000], "line 1: brackets are nested too deeply"),
        (["7"], r'line 1: expected {"id": text, "twin": path}, .* got 7'),
        (['{"id": "a.png", "twin": "b.png", "twin": "c.png"}'], "line 1: key 'twin' is twice in one object"),
        ([{"id": "a.png"}], 'expected {"id": text, "twin": path}'),
        ([{"id": "a.png", "twin": "twins/a.png"}] * 2, "line 2: 'a.png' has a twin already"),
        ([{"id": "a.png", "twin": "gone.png"}], "gone.png: no such image file"),
    ],
)
def test_broken_manifest(tmp_path: Path, lines: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attach_twins([example("a.png", tmp_path)], write_pairs(tmp_path, lines), missing="refuse")


def test_an_upright_twin_of_a_turned_original(tmp_path: Path) -> None:
    """Copies are stored upright, originals as the camera held them; what is compared is what is seen."""
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=turned)
    Image.new("RGB", (40, 60)).save(tmp_path / "twin.png")
    manifest = tmp_path / "pairs.jsonl"
    manifest.write_text(json.dumps({"id": "a.jpg", "twin": "twin.png"}) + "\n")
    (paired,) = attach_twins([example("a.jpg", tmp_path)], manifest, missing="refuse")
    image = load_image(paired.image)
    assert make_twin(paired, image, kinds=KINDS, strengths=STRENGTHS, seed=0, epoch=None).size == (40, 60)
    Image.new("RGB", (60, 40)).save(tmp_path / "twin.png")
    with pytest.raises(ValueError, match="twin.png: 60x40, its original .* is 40x60"):
        attach_twins([example("a.jpg", tmp_path)], manifest, missing="refuse")


def test_images_without_a_pair_are_left_out_where_asked(tmp_path: Path) -> None:
    manifest = write_pairs(tmp_path, [{"id": "a.png", "twin": "twins/a.png"}])
    examples = [example("a.png", tmp_path), example("b.png", tmp_path)]
    assert [one.id for one in attach_twins(examples, manifest, missing="leave_out")] == ["a.png"]
    with pytest.raises(ValueError, match="no twin for 'b.png'"):
        attach_twins(examples[1:], manifest, missing="leave_out")


def test_other_size_and_missing_manifest(tmp_path: Path) -> None:
    manifest = write_pairs(tmp_path, [{"id": "a.png", "twin": "twins/a.png"}], twin_size=(40, 41))
    with pytest.raises(ValueError, match="40x41, its original .* is 40x40"):
        attach_twins([example("a.png", tmp_path)], manifest, missing="refuse")
    prepared = replace(example("a.png", tmp_path), twin=tmp_path / "twins" / "a.png")
    with pytest.raises(ValueError, match="a twin needs the same size"):
        make_twin(prepared, Image.new("RGB", (40, 40)), kinds=KINDS, strengths=STRENGTHS, seed=0, epoch=None)
    with pytest.raises(ValueError, match="twin.manifest: no file"):
        attach_twins([], tmp_path / "none.jsonl", missing="refuse")


def test_strengths_rise_from_no_harm_to_full() -> None:
    """By hand, half way: noise 22.5, blur 1, jpeg 95 - 45, darken .8."""
    half = {kind: eased_strength(kind, strength, 0.5) for kind, strength in STRENGTHS.items()}
    assert half == pytest.approx({"noise": 22.5, "blur": 1.0, "jpeg": 50.0, "darken": 0.8})
    none = {kind: eased_strength(kind, strength, 0.0) for kind, strength in STRENGTHS.items()}
    assert none == {"noise": 0.0, "blur": 0.0, "jpeg": 95.0, "darken": 1.0}
    assert all(eased_strength(kind, strength, 1.0) == strength for kind, strength in STRENGTHS.items())
    assert eased_strength("jpeg", 5.0, 0.333) == 65.0


@pytest.mark.parametrize("kind", KINDS)
def test_harm_grows_with_the_factor_and_ends_at_the_full_twin(kind: str) -> None:
    row = 128 + 60 * np.sin(np.arange(64) / 5)
    image = Image.fromarray((row[:, None] + row[None, :] - 128).clip(0, 255).astype(np.uint8)).convert("RGB")
    pixels = np.asarray(image, dtype=float)

    def twin(**factor: float) -> Image.Image:
        return make_twin(
            example("a.png"), image, kinds=[kind], strengths=STRENGTHS, seed=0, epoch=None, **factor
        )

    harm = [
        float(np.abs(np.asarray(twin(factor=factor), dtype=float) - pixels).mean())
        for factor in (0.0, 0.25, 0.5, 1.0)
    ]
    assert harm == sorted(harm) and harm[0] < 12 and harm[-1] > harm[1] > harm[0]
    assert twin().tobytes() == twin(factor=1.0).tobytes()


def test_the_other_image_is_of_another_content_seeded_and_of_the_same_size(tmp_path: Path) -> None:
    examples = []
    for number in range(8):
        Image.new("RGB", (40 + number, 50), (10 * number, 0, 0)).save(tmp_path / f"{number}.png")
        examples.append(replace(example(f"{number}.png", tmp_path), reference=f"content {number // 2}"))
    paired = attach_others(examples, seed=0)
    assert paired == attach_others(examples, seed=0) != attach_others(examples, seed=1)
    for one, before in zip(paired, examples, strict=True):
        assert one.twin is not None and replace(one, twin=None) == before
        assert int(one.twin.stem) // 2 != int(Path(one.id).stem) // 2
    drawn = [one.twin.stem for seed in range(20) for one in attach_others(examples, seed=seed) if one.twin]
    assert not any(int(a) // 2 == n % 8 // 2 for n, a in enumerate(drawn)) and len({*drawn}) == 8
    assert len({one.twin for one in paired}) > 3
    image = load_image(paired[0].image)
    twin = make_twin(paired[0], image, kinds=KINDS, strengths=STRENGTHS, seed=0, epoch=None, fit=True)
    assert twin.size == image.size and paired[0].twin is not None
    assert twin.getpixel((3, 3)) == load_image(paired[0].twin).getpixel((3, 3))
    with pytest.raises(ValueError, match="another needs two contents, but the 2 training examples show one"):
        attach_others(examples[:2], seed=0)
