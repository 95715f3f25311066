"""Short real video files with a simulated opinion each: the folder and CSV that ``video_folder`` reads.

A camera pans over a procedural scene. Spatial defects (blur, noise, coding, darkness) are in every frame;
temporal ones are a frozen picture, flickering brightness and bursts of broken blocks. Quality is the
product of what both leave; contents of their own, files in two containers and codecs.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from qhk.data.miniature.content import FloatImage, Generator, render_content
from qhk.data.miniature.distort import as_pixels, distort
from qhk.data.miniature.opinion import collect_opinions, latent_quality
from qhk.data.seeds import stream_generator
from qhk.errors import UserError

SPATIAL = ("gaussian_blur", "white_noise", "jpeg", "darken")
TEMPORAL = ("freeze", "flicker", "blocks")
TEMPORAL_ANNOYANCE = 0.8
"""Loss of quality that a temporal defect of full strength causes."""

SPLITS = {"train": 200, "test": 50}
COUNT = sum(SPLITS.values())
FRAMES, RATE = 24, 12
CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    "mp4": ("libx264", "yuv420p", {"crf": "8", "preset": "veryfast", "x264-params": "asm=0"}),
    "mkv": ("ffv1", "yuv444p", {}),
}
"""Container -> codec, pixel format and options; both keep what the defects did.

One seed must give one set. x264's assembly, its threads and the conversion of colours inside the encoder
come to other pictures in some processes, and a Matroska file carries a random number: hence ``asm=0``, and
one thread, a conversion of our own and ``bitexact`` in ``_encode``.
"""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The frames of one video and its quality in [0, 1]."""

    frames: list[FloatImage]
    quality: float


def write(root: Path, seed: int, size: int, report: Callable[[int], None]) -> None:
    """Write ``videos/`` and ``labels.csv``: mean of 24 opinions on a scale from 0 to 100."""
    (root / "videos").mkdir(parents=True)
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    names, qualities = [], []
    for index in range(len(splits)):
        clip = _draw(stream_generator(seed, "miniature", "video", index), size)
        container = list(CODECS)[index % len(CODECS)]
        names.append(f"clip_{index:04d}.{container}")
        _encode(root / "videos" / names[-1], clip.frames, container)
        qualities.append(clip.quality)
        report(index + 1)
    opinions = collect_opinions(
        np.array(qualities),
        stream_generator(seed, "miniature", "video", "raters"),
        num_raters=24,
        bias=0.06,
        noise=0.12,
    )
    with (root / "labels.csv").open("w", newline="") as file:
        rows = zip(names, splits, (100 * opinions.mean(axis=1)).round(3).tolist(), strict=True)
        csv.writer(file, lineterminator="\n").writerows([("video", "split", "mos"), *rows])


def _draw(rng: Generator, size: int) -> Clip:
    """A pan with a spatial defect (four in five) and a temporal one (seven in ten)."""
    scene = render_content(rng, size + size // 2)
    clean = list(_pan(scene, size, rng))
    frames, left = clean, 1.0
    if rng.random() < 0.8:
        kind, strength = SPATIAL[int(rng.integers(len(SPATIAL)))], rng.uniform(0.08, 1.0)
        frames = [distort(frame, kind, strength, rng) for frame in clean]
        middle = FRAMES // 2
        left *= latent_quality(clean[middle], frames[middle], [(kind, strength)])
    if rng.random() < 0.7:
        kind, strength = TEMPORAL[int(rng.integers(len(TEMPORAL)))], rng.uniform(0.1, 1.0)
        frames = DEFECTS[kind](frames, strength, rng)
        left *= 1.0 - TEMPORAL_ANNOYANCE * strength
    return Clip(frames=frames, quality=left)


def _pan(scene: FloatImage, size: int, rng: Generator) -> Iterator[FloatImage]:
    """The window moves straight across the scene, by at least half of the room that there is."""
    room = len(scene) - size
    start = np.array([rng.uniform(0, 0.25 * room), rng.uniform(0, 0.25 * room)])
    end = np.array([rng.uniform(0.75 * room, room), rng.uniform(0.75 * room, room)])
    turned = rng.random(2) < 0.5
    start, end = np.where(turned, room - start, start), np.where(turned, room - end, end)
    for share in np.linspace(0.0, 1.0, FRAMES):
        row, column = np.rint(start + (end - start) * share).astype(int)
        yield scene[row : row + size, column : column + size]


def _freeze(frames: list[FloatImage], strength: float, rng: Generator) -> list[FloatImage]:
    """The picture stands still for up to nine tenths of the time."""
    length = max(2, round(0.9 * strength * FRAMES))
    first = int(rng.integers(0, FRAMES - length + 1))
    return [frames[first] if first <= place < first + length else frames[place] for place in range(FRAMES)]


def _flicker(frames: list[FloatImage], strength: float, rng: Generator) -> list[FloatImage]:
    """Brightness jumps from frame to frame."""
    gains = 1.0 - 0.75 * strength * rng.random(FRAMES)
    return [frame * gain for frame, gain in zip(frames, gains, strict=True)]


def _blocks(frames: list[FloatImage], strength: float, rng: Generator) -> list[FloatImage]:
    """Broken blocks in up to all frames."""
    hit = rng.permutation(FRAMES)[: max(2, round(strength * FRAMES))]
    return [
        distort(frame, "colour_blocks", 0.2 + 0.6 * strength, rng) if place in hit else frame
        for place, frame in enumerate(frames)
    ]


DEFECTS: dict[str, Callable[[list[FloatImage], float, Generator], list[FloatImage]]] = {
    "freeze": _freeze,
    "flicker": _flicker,
    "blocks": _blocks,
}


def _encode(path: Path, frames: list[FloatImage], container: str) -> None:
    try:
        import av
    except ImportError:
        raise UserError(f"{path.name}: no video encoder is installed: run pip install 'qhk[video]'") from None
    codec, pixel_format, options = CODECS[container]
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream(codec, rate=Fraction(RATE), options=dict(options))
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.thread_count = 1
        stream.width, stream.height = frames[0].shape[1], frames[0].shape[0]
        stream.pix_fmt = pixel_format
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.asarray(as_pixels(pixels)), format="rgb24")
            output.mux(stream.encode(frame))  # which converts it, in the one thread that the codec has
        output.mux(stream.encode())
