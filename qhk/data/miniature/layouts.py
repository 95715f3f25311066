"""Writes each miniature set in the official folder layout and label format of its namesake.

Every writer takes the set's folder, its stimuli and a generator for the raters, and publishes the
scores on the set's native scale with its native polarity and its known quirks.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from openpyxl.workbook.workbook import Workbook
from PIL import Image
from scipy.io import savemat

from qhk.data.miniature.content import Generator
from qhk.data.miniature.distort import as_pixels
from qhk.data.miniature.opinion import collect_opinions
from qhk.data.miniature.recipes import Stimulus

Array = NDArray[np.float64]
CSIQ_CONTENTS = (
    "1600",
    "alley",
    "blanket",
    "canopy",
    "desk",
    "facade",
    "ledger",
    "marbles",
    "portal",
    "ridge",
    "shelf",
    "weave",
)


def _save(image: Image.Image, path: Path) -> None:
    if path.suffix.lower() in (".jpg", ".jpeg"):
        image.save(path, "JPEG", quality=95, subsampling=0)
    else:
        image.save(path, compress_level=1) if path.suffix == ".png" else image.save(path)


def _write_lines(path: Path, lines: Sequence[str], end: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())


def _write_workbook(
    path: Path, title: str, rows: Sequence[Sequence[str | int | float]], *, corner: tuple[int, int]
) -> None:
    book = Workbook()  # type: ignore[no-untyped-call]
    sheet = book.worksheets[0]
    sheet.title = title
    for row, cells in enumerate(rows, start=corner[0]):
        for column, value in enumerate(cells, start=corner[1]):
            sheet.cell(row=row, column=column, value=value)
    book.save(path)  # type: ignore[no-untyped-call]


def _opinions(stimuli: Sequence[Stimulus], rng: Generator, raters: int, noise: float) -> Array:
    quality = np.array([stimulus.quality for stimulus in stimuli])
    return collect_opinions(quality, rng, num_raters=raters, bias=0.06, noise=noise)


def _write_pristine(folder: Path, stimuli: Sequence[Stimulus], name: Callable[[int], str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for reference, pristine in {stimulus.reference: stimulus.pristine for stimulus in stimuli}.items():
        _save(as_pixels(pristine), folder / name(reference))


def write_koniq(root: Path, stimuli: Sequence[Stimulus], rng: Generator) -> None:
    """Write two label files: counts with the ACR mean, and proportions with the z-score mean and the sets."""
    opinions = _opinions(stimuli, rng, 100, 0.16)
    grades = 1 + np.rint(4 * opinions)
    names = [f"{int(number)}.jpg" for number in rng.choice(10**9, len(stimuli), replace=False) + 10**6]
    sets = rng.permutation(["training"] * 400 + ["validation"] * 40 + ["test"] * (len(stimuli) - 440))
    scores: list[list[str | float]] = []
    parts: list[list[str | float]] = []
    folder = root / "512x384"
    folder.mkdir(parents=True)
    for row, (name, stimulus) in enumerate(zip(names, stimuli, strict=True)):
        _save(as_pixels(stimulus.pixels), folder / name)
        counts = [int((grades[row] == grade).sum()) for grade in range(1, 6)]
        total, mean = sum(counts), float(grades[row].mean())
        deviation, z_score = float(grades[row].std(ddof=1)), float(100 * opinions[row].mean())
        scores.append([name, *counts, total, mean, deviation, z_score])
        parts.append([name, *(count / total for count in counts), total, z_score, deviation, str(sets[row])])
    header = ["image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD"]
    with (root / "koniq10k_scores_and_distributions.csv").open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows(
            [[*header, "MOS_zscore"], *scores]
        )
    with (root / "koniq10k_distributions_sets.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([[*header, "set"], *parts])


def write_spaq(root: Path, stimuli: Sequence[Stimulus], rng: Generator) -> None:
    """Write a workbook of means on 0-100 with attribute columns, no deviations."""
    opinions = _opinions(stimuli, rng, 16, 0.12)
    (root / "TestImage").mkdir(parents=True)
    (root / "Annotations").mkdir()
    rows: list[list[str | int | float]] = [
        ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"]
    ]
    for row, stimulus in enumerate(stimuli):
        name = f"{row + 1:05d}.jpg"
        _save(as_pixels(stimulus.pixels), root / "TestImage" / name)
        mean = round(float(100 * opinions[row].mean()), 2)
        attributes = np.clip(mean + rng.normal(0, 8, 5), 0, 100).round(2).tolist()
        rows.append([name, mean, *attributes])
    path = root / "Annotations" / "MOS and Image attribute scores.xlsx"
    _write_workbook(path, "Sheet1", rows, corner=(1, 1))


def write_kadid(root: Path, stimuli: Sequence[Stimulus], rng: Generator) -> None:
    """Write ``dmos.csv``: mean of 30 integer grades (higher is better) and their deviation as ``var``."""
    grades = 1 + np.rint(4 * _opinions(stimuli, rng, 30, 0.13))
    _write_pristine(root / "images", stimuli, lambda reference: f"I{reference:02d}.png")
    lines = ["dist_img,ref_img,dmos,var"]
    for row, stimulus in enumerate(stimuli):
        name = f"I{stimulus.reference:02d}_{stimulus.kind}_{stimulus.level:02d}.png"
        _save(as_pixels(stimulus.pixels), root / "images" / name)
        lines.append(f"{name},I{stimulus.reference:02d}.png,{grades[row].mean():.2f},{grades[row].std():.3f}")
    _write_lines(root / "dmos.csv", lines, "\n")


def write_pipal(root: Path, stimuli: Sequence[Stimulus], rng: Generator) -> None:
    """Write one label file per reference, Elo-like scores; the folder follows the reference number."""
    scores = 880.0 + 980.0 * _opinions(stimuli, rng, 40, 0.12).mean(axis=1)
    _write_pristine(root / "Train_Ref", stimuli, lambda reference: f"A{reference:04d}.bmp")
    lines: dict[int, list[str]] = {}
    for row, stimulus in enumerate(stimuli):
        part = 1 + sum(stimulus.reference >= first for first in (60, 121, 185))
        folder = root / f"Distortion_{part}"
        folder.mkdir(exist_ok=True)
        name = f"A{stimulus.reference:04d}_{stimulus.kind}_{stimulus.level:02d}.bmp"
        _save(as_pixels(stimulus.pixels), folder / name)
        lines.setdefault(stimulus.reference, []).append(f"{name},{scores[row]:.4f}")
    for reference, rows in lines.items():
        _write_lines(root / "Train_Label" / f"A{reference:04d}.txt", rows, "\n")


def write_live_wild(root: Path, stimuli: Sequence[Stimulus], rng: Generator) -> None:
    """Write three MATLAB arrays; seven training rows first; extensions mixed."""
    ratings = 100 * _opinions(stimuli, rng, 60, 0.16)
    (root / "Images" / "trainingImages").mkdir(parents=True)
    (root / "Data").mkdir()
    names = np.empty((len(stimuli), 1), dtype=object)
    for row, stimulus in enumerate(stimuli):
        training = row < 7
        name = f"t{row + 1}.bmp" if training else f"{row - 4}{'.bmp' if row % 2 else '.JPG'}"
        folder = root / "Images" / "trainingImages" if training else root / "Images"
        _save(as_pixels(stimulus.pixels), folder / name)
        names[row, 0] = name
    for variable, value in (
        ("AllImages_release", names),
        ("AllMOS_release", ratings.mean(axis=1)[None, :]),
        ("AllStdDev_release", ratings.std(axis=1, ddof=1)[None, :]),
    ):
        savemat(root / "Data" / f"{variable}.mat", {variable: value})


def write_agiqa_3k(root: Path, stimuli: Sequence[Stimulus], rng: Generator) -> None:
    """Write ``data.csv`` beside the pictures: quality and alignment, prompts with commas, names with dots."""
    ratings = 4.8 * _opinions(stimuli, rng, 21, 0.14)
    numbers: dict[str, int] = {}
    rows: list[list[str | float]] = []
    for row, stimulus in enumerate(stimuli):
        number = numbers[stimulus.kind] = numbers.get(stimulus.kind, -1) + 1
        name = f"{stimulus.kind}_{number:03d}.jpg"
        _save(as_pixels(stimulus.pixels), root / name)
        align = np.clip(rng.normal(2.4, 0.9, 2), 0.0, 5.0).round(9).tolist()
        mean, deviation = float(ratings[row].mean()), float(ratings[row].std())
        rows.append(
            [
                name,
                "a small procedural scene, sharp",
                "detailed",
                "",
                "",
                round(mean, 9),
                round(deviation, 9),
                *align,
            ]
        )
    header = [
        "name",
        "prompt",
        "adj1",
        "adj2",
        "style",
        "mos_quality",
        "std_quality",
        "mos_align",
        "std_align",
    ]
    with (root / "data.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def write_csiq(root: Path, stimuli: Sequence[Stimulus], rng: Generator) -> None:
    """Write a workbook whose header stands in row 4, column D; DMOS in [0, 1], lower is better."""
    ratings = 1.0 - _opinions(stimuli, rng, 30, 0.12)
    _write_pristine(root / "src_imgs", stimuli, lambda reference: f"{CSIQ_CONTENTS[reference]}.png")
    words = {
        "AWGN": "noise",
        "JPEG": "jpeg",
        "jpeg2000": "jpeg 2000",
        "fnoise": "fnoise",
        "BLUR": "blur",
        "contrast": "contrast",
    }
    rows: list[list[str | int | float]] = [["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]]
    for row, stimulus in enumerate(stimuli):
        content, token = CSIQ_CONTENTS[stimulus.reference], stimulus.kind
        folder = root / "dst_imgs" / token.lower()
        folder.mkdir(parents=True, exist_ok=True)
        _save(as_pixels(stimulus.pixels), folder / f"{content}.{token}.{stimulus.level}.png")
        mean, deviation = float(ratings[row].mean()), float(ratings[row].std())
        rows.append(
            [
                int(content) if content.isdigit() else content,
                1 + list(words).index(token),
                words[token],
                stimulus.level,
                round(deviation, 9),
                round(mean, 9),
            ]
        )
    _write_workbook(root / "csiq.DMOS.xlsx", "all_by_image", rows, corner=(4, 4))


def write_tid2013(root: Path, stimuli: Sequence[Stimulus], rng: Generator) -> None:
    """Write ``mos_with_names.txt`` (score first, CRLF) with upper and lower case mixed as in the original."""
    opinions = _opinions(stimuli, rng, 40, 0.12)
    scores, errors = 7.4 * opinions.mean(axis=1), 7.4 * opinions.std(axis=1) / np.sqrt(40)
    _write_pristine(
        root / "reference_images",
        stimuli,
        lambda reference: "i25.bmp" if reference == 25 else f"I{reference:02d}.BMP",
    )
    folder = root / "distorted_images"
    folder.mkdir()
    lines = []
    for row, stimulus in enumerate(stimuli):
        loud = stimulus.level == 1 and stimulus.kind in ("01", "11")
        ending = "BMP" if loud and stimulus.kind == "11" else "bmp"
        body = f"{stimulus.reference:02d}_{stimulus.kind}_{stimulus.level}"
        _save(
            as_pixels(stimulus.pixels),
            folder / f"{'i' if loud and row % 2 else 'I' if loud else 'i'}{body}.bmp",
        )
        lines.append(f"{scores[row]:.5f} {'I' if loud else 'i'}{body}.{ending}")
    _write_lines(root / "mos_with_names.txt", lines, "\r\n")
    _write_lines(root / "mos.txt", [f"{score:.5f}" for score in scores], "\r\n")
    _write_lines(root / "mos_std.txt", [f"{error:.5f}" for error in errors], "\r\n")


WRITERS: dict[str, Callable[[Path, Sequence[Stimulus], Generator], None]] = {
    "koniq": write_koniq,
    "spaq": write_spaq,
    "kadid": write_kadid,
    "pipal": write_pipal,
    "live_wild": write_live_wild,
    "agiqa_3k": write_agiqa_3k,
    "csiq": write_csiq,
    "tid2013": write_tid2013,
}
