"""Pristine pictures: eight procedural families, all sharp, well exposed and rich in fine detail.

Quality has to be visible in the pixels alone, so nothing pristine may look degraded: every picture is
brought to a common range of brightness, contrast and fine-detail energy.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

FloatImage = NDArray[np.float64]
Generator = np.random.Generator

LUMA = np.array([0.299, 0.587, 0.114])
SUPERSAMPLING = 2


def render_content(rng: Generator, size: int) -> FloatImage:
    """Return one pristine picture, ``(size, size, 3)`` in [0, 255], of a family drawn uniformly."""
    family = FAMILIES[list(FAMILIES)[int(rng.integers(len(FAMILIES)))]]
    return _standardise(family(rng, size), rng)


def fractal(rng: Generator, size: int, slope: float) -> FloatImage:
    """Return noise ``(size, size)`` of mean 0 and deviation 1, with amplitude ~ 1 / frequency**slope."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency**slope
    spectrum[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return np.asarray(noise / noise.std())


def _standardise(image: FloatImage, rng: Generator) -> FloatImage:
    """The picture with brightness, contrast and fine detail moved into the range of good photographs."""
    luma = image @ LUMA
    image = (image - luma.mean()) * (rng.normal(52.0, 5.0) / max(float(luma.std()), 8.0)) + rng.normal(
        122.0, 8.0
    )
    smooth = gaussian_filter(image, (1.0, 1.0, 0.0))
    detail = image - smooth
    energy = float((detail @ LUMA).std())
    grain = fractal(rng, len(image), 0.4)[..., None]
    if energy < 12.0:
        detail = detail + grain * (12.0 - energy)
        energy = float((detail @ LUMA).std())
    return np.clip(smooth + detail * (rng.uniform(15.0, 23.0) / energy), 0.0, 255.0)


def _colour(
    rng: Generator, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]
) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(
        rng.uniform(*hue) % 1.0, rng.uniform(*saturation), rng.uniform(*value)
    )
    return int(255 * red), int(255 * green), int(255 * blue)


def _canvas(size: int, colour: tuple[int, int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (size * SUPERSAMPLING, size * SUPERSAMPLING), colour)
    return image, ImageDraw.Draw(image)


def _settle(image: Image.Image) -> FloatImage:
    return np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float64)


def _grid(size: int) -> tuple[FloatImage, FloatImage]:
    rows, columns = np.mgrid[0:size, 0:size] / size
    return rows, columns


def _landscape(rng: Generator, size: int) -> FloatImage:
    rows, columns = _grid(size)
    sky = np.array(_colour(rng, (0.54, 0.62), (0.35, 0.7), (0.7, 0.95)), dtype=float)
    cloud = np.clip(fractal(rng, size, 1.7) - 0.2, 0.0, 1.0)[..., None]
    image = sky * (1.1 - 0.4 * rows[..., None]) * (1 - cloud) + 245.0 * cloud
    steps = gaussian_filter(rng.standard_normal(size), 1.0)
    for depth, hue in ((0.35, (0.58, 0.68)), (0.55, (0.2, 0.38))):
        ridge = (
            depth
            + 0.06 * np.cumsum(steps) / np.sqrt(size) * 2
            + 0.05 * np.sin(columns[0] * rng.uniform(4, 12))
        )
        ground = np.array(_colour(rng, hue, (0.3, 0.65), (0.3, 0.55)), dtype=float)
        texture = 1.0 + 0.45 * fractal(rng, size, 0.7)[..., None]
        image = np.where((rows > ridge[None, :])[..., None], ground * texture, image)
        steps = np.roll(steps, size // 3)
    return image


def _foliage(rng: Generator, size: int) -> FloatImage:
    image, draw = _canvas(size, _colour(rng, (0.2, 0.4), (0.4, 0.7), (0.1, 0.25)))
    hue = rng.uniform(0.05, 0.4)
    length = size * SUPERSAMPLING / 16
    for _ in range(260):
        x, y = rng.uniform(0, size * SUPERSAMPLING, 2)
        angle, reach = rng.uniform(0, np.pi), rng.uniform(0.5, 1.4) * length
        dx, dy = np.cos(angle) * reach, np.sin(angle) * reach
        leaf = [
            (x - dx, y - dy),
            (x - dy * 0.35, y + dx * 0.35),
            (x + dx, y + dy),
            (x + dy * 0.35, y - dx * 0.35),
        ]
        draw.polygon(leaf, fill=_colour(rng, (hue - 0.06, hue + 0.06), (0.4, 0.85), (0.3, 0.95)))
    return _settle(image)


def _street(rng: Generator, size: int) -> FloatImage:
    side = size * SUPERSAMPLING
    image, draw = _canvas(size, _colour(rng, (0.53, 0.62), (0.15, 0.45), (0.75, 0.95)))
    left = 0.0
    while left < side:
        width, top = rng.uniform(0.2, 0.4) * side, rng.uniform(0.05, 0.35) * side
        draw.rectangle(
            (left, top, left + width, side), fill=_colour(rng, (-0.05, 0.14), (0.2, 0.55), (0.4, 0.8))
        )
        pitch = side / rng.uniform(11, 17)
        dark, lit = (
            _colour(rng, (0.5, 0.7), (0.1, 0.4), (0.08, 0.25)),
            _colour(rng, (0.1, 0.16), (0.2, 0.6), (0.9, 1)),
        )
        for x in np.arange(left + pitch * 0.4, left + width - pitch * 0.6, pitch):
            for y in np.arange(top + pitch * 0.5, side - pitch, pitch * 1.25):
                draw.rectangle(
                    (x, y, x + pitch * 0.5, y + pitch * 0.7), fill=lit if rng.random() < 0.25 else dark
                )
        left += width
    return _settle(image) * (1.0 + 0.06 * fractal(rng, size, 0.3)[..., None])


def _page(rng: Generator, size: int) -> FloatImage:
    side = size * SUPERSAMPLING
    image, draw = _canvas(size, _colour(rng, (0.08, 0.16), (0.02, 0.25), (0.85, 1.0)))
    ink = _colour(rng, (0.55, 0.75), (0.1, 0.8), (0.05, 0.25))
    line = side / rng.uniform(9, 13)
    box = rng.uniform(0, 0.5, 2) * side
    for y in np.arange(line * 0.3, side, line):
        x = line * 0.4
        while x < side - line * 0.4:
            width = rng.uniform(0.15, 0.5) * line
            if rng.random() > 0.18:
                height = rng.uniform(0.35, 0.65) * line
                draw.line(
                    (x, y, x + rng.uniform(-0.2, 0.2) * line, y + height), fill=ink, width=SUPERSAMPLING
                )
                draw.line(
                    (x, y + height * rng.random(), x + width, y + height * rng.random()), fill=ink, width=2
                )
            x += width + 0.14 * line
    picture = _colour(rng, (0, 1), (0.5, 0.9), (0.4, 0.9))
    draw.rectangle((box[0], box[1], box[0] + side * 0.35, box[1] + side * 0.3), fill=picture, outline=ink)
    return _settle(image) * (1.0 + 0.03 * fractal(rng, size, 0.3)[..., None])


def _portrait(rng: Generator, size: int) -> FloatImage:
    side = size * SUPERSAMPLING
    image, draw = _canvas(size, _colour(rng, (0, 1), (0.1, 0.4), (0.3, 0.8)))
    x = 0.0
    while x < side:  # a shelf of books behind the head
        width = rng.uniform(0.03, 0.08) * side
        draw.rectangle((x, 0, x + width, side), fill=_colour(rng, (0, 1), (0.3, 0.7), (0.25, 0.85)))
        x += width
    skin = _colour(rng, (0.03, 0.09), (0.3, 0.6), (0.55, 0.95))
    cx, cy, rx = rng.uniform(0.4, 0.6) * side, rng.uniform(0.4, 0.5) * side, rng.uniform(0.2, 0.26) * side
    shirt = _colour(rng, (0, 1), (0.3, 0.8), (0.3, 0.8))
    draw.ellipse((cx - 2.1 * rx, cy + 1.1 * rx, cx + 2.1 * rx, cy + 4 * rx), fill=shirt)
    for offset in np.arange(-2.0, 2.0, 0.25):
        draw.line((cx + offset * rx, cy + 1.4 * rx, cx + offset * rx * 1.1, side), fill=skin, width=2)
    hair = _colour(rng, (0.02, 0.12), (0.2, 0.7), (0.08, 0.5))
    draw.ellipse((cx - 1.15 * rx, cy - 1.5 * rx, cx + 1.15 * rx, cy + rx), fill=hair)
    draw.ellipse((cx - 0.9 * rx, cy - 1.05 * rx, cx + 0.9 * rx, cy + 1.3 * rx), fill=skin)
    for turn in np.linspace(np.pi, 2 * np.pi, 40):
        tone = tuple(int(channel * rng.uniform(0.6, 2.0)) for channel in hair)
        tip = (cx + 1.15 * rx * np.cos(turn), cy + 1.5 * rx * np.sin(turn))
        draw.line((cx + 0.7 * rx * np.cos(turn), cy + 0.9 * rx * np.sin(turn), *tip), fill=tone)
    for sign in (-1, 1):
        eye = cx + sign * 0.38 * rx
        draw.ellipse((eye - 0.2 * rx, cy - 0.2 * rx, eye + 0.2 * rx, cy + 0.05 * rx), fill=(240, 240, 240))
        draw.ellipse((eye - 0.09 * rx, cy - 0.17 * rx, eye + 0.09 * rx, cy + 0.03 * rx), fill=(25, 20, 20))
        draw.line((eye - 0.25 * rx, cy - 0.35 * rx, eye + 0.25 * rx, cy - 0.38 * rx), fill=hair, width=3)
    draw.line((cx, cy, cx - 0.1 * rx, cy + 0.4 * rx, cx + 0.08 * rx, cy + 0.42 * rx), fill=hair, width=2)
    draw.ellipse((cx - 0.3 * rx, cy + 0.65 * rx, cx + 0.3 * rx, cy + 0.85 * rx), fill=(170, 60, 65))
    return _settle(image) * (1.0 + 0.05 * fractal(rng, size, 0.4)[..., None])


def _fabric(rng: Generator, size: int) -> FloatImage:
    rows, columns = _grid(size)
    angle = rng.uniform(0, np.pi)
    bend = 0.02 * fractal(rng, size, 1.8)
    along = columns * np.cos(angle) + rows * np.sin(angle) + bend
    across = rows * np.cos(angle) - columns * np.sin(angle) + bend
    threads = np.sign(np.sin(along * rng.uniform(60, 110))) * np.sign(np.sin(across * rng.uniform(60, 110)))
    wide = np.sin(along * rng.uniform(8, 22)) > rng.uniform(-0.5, 0.5)
    cross = np.sin(across * rng.uniform(8, 22)) > rng.uniform(-0.3, 0.7)
    first, second, third = (
        np.array(_colour(rng, (0, 1), (0.3, 0.8), span), dtype=float)
        for span in ((0.2, 0.5), (0.6, 0.95), (0.4, 0.95))
    )
    image = np.where(wide[..., None], first, second)
    image = np.where(cross[..., None], 0.5 * image + 0.5 * third, image)
    return np.asarray(image * (1.0 + 0.22 * threads + 0.06 * fractal(rng, size, 0.4))[..., None])


def _objects(rng: Generator, size: int) -> FloatImage:
    rows, columns = _grid(size)
    rings = np.sin((columns + 0.06 * fractal(rng, size, 1.6)) * rng.uniform(50, 90))
    wood = np.array(_colour(rng, (0.05, 0.1), (0.4, 0.7), (0.45, 0.75)), dtype=float)
    image = wood * (1.0 + 0.25 * rings + 0.12 * fractal(rng, size, 0.5))[..., None]
    for _ in range(int(rng.integers(3, 6))):
        cy, cx, radius = rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85), rng.uniform(0.12, 0.26)
        dy, dx = (rows - cy) / radius, (columns - cx) / radius
        inside = dy**2 + dx**2 < 1
        height = np.sqrt(np.clip(1 - dy**2 - dx**2, 0, 1))
        light = np.clip(0.35 + 0.5 * height - 0.35 * dx - 0.35 * dy, 0.1, 1.3)
        speckle = 1.0 + 0.35 * np.sign(np.sin(dx * rng.uniform(6, 16)) * np.sin(dy * rng.uniform(6, 16)))
        paint = np.array(_colour(rng, (0, 1), (0.5, 0.9), (0.5, 0.95)), dtype=float)
        ball = paint * (light * speckle)[..., None] + 200.0 * (light[..., None] > 1.05)
        shadow = (dy - 0.25) ** 2 + (dx - 0.25) ** 2 < 1
        image = np.where(inside[..., None], ball, image * np.where(shadow, 0.55, 1.0)[..., None])
    return image


def _wall(rng: Generator, size: int) -> FloatImage:
    rows, columns = _grid(size)
    courses, per_course = rng.uniform(8, 14), rng.uniform(4, 7)
    course = np.floor(rows * courses + 0.03 * fractal(rng, size, 1.5))
    along = columns * per_course + 0.5 * (course % 2) + 0.02 * fractal(rng, size, 1.2)
    key = (course.astype(int) * 31 + np.floor(along).astype(int) * 17) % 64
    tint = rng.uniform(0.55, 1.25, 64)[key]
    mortar = ((rows * courses) % 1 < 0.16) | (along % 1 < 0.07)
    brick = np.array(_colour(rng, (-0.04, 0.12), (0.3, 0.75), (0.4, 0.75)), dtype=float)
    stone = np.array(_colour(rng, (0.05, 0.15), (0.02, 0.2), (0.7, 0.95)), dtype=float)
    image = np.where(mortar[..., None], stone, brick * tint[..., None])
    return image * (1.0 + 0.16 * fractal(rng, size, 0.5))[..., None]


FAMILIES: dict[str, Callable[[Generator, int], FloatImage]] = {
    "landscape": _landscape,
    "foliage": _foliage,
    "street": _street,
    "page": _page,
    "portrait": _portrait,
    "fabric": _fabric,
    "objects": _objects,
    "wall": _wall,
}
