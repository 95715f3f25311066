"""What each miniature set shows: which contents, which distortions, how strong.

Authentic sets (koniq, spaq, live_wild) are mixtures on contents of their own; kadid, csiq and tid2013
damage few references with one distortion at a time and graded levels; pipal shows restoration and GAN
artefacts; agiqa_3k shows the habits of several picture generators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from qhk.data.miniature.content import FloatImage, Generator, render_content
from qhk.data.miniature.distort import distort
from qhk.data.miniature.opinion import latent_quality
from qhk.data.seeds import stream_generator

Damage = list[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class Stimulus:
    """One picture to be judged. ``reference``, ``kind`` and ``level`` fill the set's own file names."""

    pixels: FloatImage
    pristine: FloatImage
    quality: float
    reference: int
    kind: str
    level: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A set to be drawn: number of pictures, and the function that draws them one by one."""

    count: int
    draw: Callable[[int, int], Iterator[Stimulus]]


KADID_REFERENCES = (*range(1, 33), *range(66, 74))
KADID_TYPES = {
    "01": "gaussian_blur",
    "02": "lens_blur",
    "03": "motion_blur",
    "09": "wavelet",
    "10": "jpeg",
    "11": "white_noise",
    "12": "colour_noise",
    "13": "impulse",
    "14": "multiplicative",
    "15": "smear",
    "16": "brighten",
    "17": "darken",
    "21": "pixelate",
    "22": "quantise",
    "24": "oversharpen",
    "25": "low_contrast",
}
CSIQ_REFERENCES = tuple(range(12))
CSIQ_TYPES = {
    "AWGN": "white_noise",
    "BLUR": "gaussian_blur",
    "contrast": "low_contrast",
    "fnoise": "correlated_noise",
    "JPEG": "jpeg",
    "jpeg2000": "wavelet",
}
TID_REFERENCES = (*range(1, 12), 25)
TID_TYPES = {
    "01": "white_noise",
    "02": "colour_noise",
    "03": "correlated_noise",
    "06": "impulse",
    "07": "quantise",
    "08": "gaussian_blur",
    "09": "smear",
    "10": "jpeg",
    "11": "wavelet",
    "15": "colour_blocks",
    "16": "brighten",
    "17": "low_contrast",
    "19": "multiplicative",
}
PIPAL_REFERENCES = (1, 21, 41, 60, 80, 100, 121, 142, 163, 185, 206, 227)
PIPAL_TYPES = {
    "00": "gaussian_blur",
    "01": "white_noise",
    "02": "ringing",
    "03": "smear",
    "04": "pixelate",
    "05": "checkerboard",
    "06": "fake_texture",
}
GENERATORS: dict[str, tuple[tuple[str, ...], float, float]] = {
    "AttnGAN_normal": (("blotches", "gaussian_blur", "jitter"), 0.45, 1.0),
    "glide_normal": (("lens_blur", "smear", "blotches"), 0.3, 0.85),
    "DALLE2_normal": (("smear", "gaussian_blur"), 0.1, 0.55),
    "midjourney_lowstep": (("colour_noise", "gaussian_blur"), 0.25, 0.8),
    "midjourney_normal": (("oversaturate", "smear"), 0.04, 0.4),
    "sd1.5_lowstep": (("colour_noise", "blotches", "lens_blur"), 0.35, 0.95),
    "sd1.5_highcorr": (("checkerboard", "gaussian_blur"), 0.1, 0.6),
    "sd1.5_normal": (("smear", "jitter"), 0.1, 0.6),
    "xl2.2_normal": (("low_contrast", "gaussian_blur"), 0.04, 0.4),
}
"""Generator name -> its artefacts, and the range of their strength."""

WILD = {
    "gaussian_blur": 2.0,
    "lens_blur": 1.5,
    "motion_blur": 1.5,
    "white_noise": 1.5,
    "colour_noise": 1.0,
    "darken": 1.5,
    "brighten": 0.8,
    "low_contrast": 1.2,
    "jpeg": 1.5,
    "smear": 0.7,
    "colour_cast": 0.5,
}
PHONE = {
    "darken": 2.5,
    "colour_noise": 2.0,
    "motion_blur": 1.8,
    "lens_blur": 1.5,
    "smear": 1.5,
    "white_noise": 1.2,
    "low_contrast": 0.8,
    "jpeg": 0.8,
    "brighten": 0.6,
}
SPORT = {
    "motion_blur": 2.5,
    "gaussian_blur": 2.0,
    "darken": 1.8,
    "brighten": 1.2,
    "white_noise": 1.5,
    "low_contrast": 1.5,
    "jpeg": 0.7,
    "colour_cast": 0.8,
}


def _stimulus(
    pristine: FloatImage,
    damage: Damage,
    rng: Generator,
    *,
    reference: int,
    kind: str,
    level: int,
    look: Callable[[FloatImage], FloatImage] | None = None,
) -> Stimulus:
    shown = pristine if look is None else look(pristine)
    pixels = shown
    for name, strength in damage:
        pixels = distort(pixels, name, strength, rng)
    quality = latent_quality(shown, pixels, damage)
    return Stimulus(
        pixels=pixels, pristine=pristine, quality=quality, reference=reference, kind=kind, level=level
    )


def _mixture(weights: Mapping[str, float], rng: Generator) -> Damage:
    """One to three distortions, the first the strongest; one picture in twelve is left pristine."""
    if rng.random() < 1 / 12:
        return []
    names, shares = list(weights), list(weights.values())
    number = 1 + int(rng.choice(3, p=(0.4, 0.4, 0.2)))
    chances = [share / sum(shares) for share in shares]
    chosen = rng.choice(len(names), size=number, replace=False, p=chances)
    main = rng.uniform(0.08, 1.0)
    strengths = [main, *(main * rng.uniform(0.15, 0.8) for _ in range(number - 1))]
    return [(names[index], strength) for index, strength in zip(chosen, strengths, strict=True)]


def _phone_look(pixels: FloatImage) -> FloatImage:
    """A darker, warmer rendition, as small sensors give it."""
    return pixels * (0.84, 0.8, 0.74)


def _authentic(
    name: str, count: int, weights: Mapping[str, float], look: Callable[[FloatImage], FloatImage] | None
) -> Recipe:
    def draw(seed: int, size: int) -> Iterator[Stimulus]:
        for index in range(count):
            rng = stream_generator(seed, "miniature", name, index)
            pristine = render_content(rng, size)
            damage = _mixture(weights, rng)
            yield _stimulus(pristine, damage, rng, reference=index, kind="", level=0, look=look)

    return Recipe(count=count, draw=draw)


def _graded(
    name: str,
    references: Sequence[int],
    types: Mapping[str, str],
    *,
    per_reference: int,
    strengths: Sequence[float],
    skip: frozenset[tuple[str, int]] = frozenset(),
) -> Recipe:
    codes = list(types)
    cells = [
        (reference, codes[(position * per_reference + turn) % len(codes)], level)
        for position, reference in enumerate(references)
        for turn in range(per_reference)
        for level in range(1, len(strengths) + 1)
    ]
    cells = [cell for cell in cells if cell[1:] not in skip]

    def draw(seed: int, size: int) -> Iterator[Stimulus]:
        for reference, versions in groupby(cells, key=itemgetter(0)):
            pristine = render_content(stream_generator(seed, "miniature", name, "content", reference), size)
            for _, code, level in versions:
                rng = stream_generator(seed, "miniature", name, reference, code, level)
                damage = [(types[code], strengths[level - 1])]
                yield _stimulus(pristine, damage, rng, reference=reference, kind=code, level=level)

    return Recipe(count=len(cells), draw=draw)


def _restored(
    name: str, references: Sequence[int], types: Mapping[str, str], *, per_reference: int
) -> Recipe:
    """Restoration results: a main artefact, often over a remnant of blur or noise."""
    codes = list(types)

    def draw(seed: int, size: int) -> Iterator[Stimulus]:
        for position, reference in enumerate(references):
            pristine = render_content(stream_generator(seed, "miniature", name, "content", reference), size)
            for turn in range(per_reference):
                rng = stream_generator(seed, "miniature", name, reference, turn)
                code = codes[(position + turn) % len(codes)]
                damage = [(types[code], rng.uniform(0.08, 1.0))]
                if rng.random() < 0.4:
                    damage.insert(0, ("gaussian_blur", damage[0][1] * rng.uniform(0.2, 0.7)))
                yield _stimulus(pristine, damage, rng, reference=reference, kind=code, level=turn)

    return Recipe(count=len(references) * per_reference, draw=draw)


def _generated(name: str, count: int) -> Recipe:
    def draw(seed: int, size: int) -> Iterator[Stimulus]:
        for index in range(count):
            rng = stream_generator(seed, "miniature", name, index)
            generator = list(GENERATORS)[index % len(GENERATORS)]
            artefacts, weakest, strongest = GENERATORS[generator]
            main = rng.uniform(weakest, strongest)
            first, *others = rng.permutation(len(artefacts))[:2]
            damage = [
                (artefacts[first], main),
                *((artefacts[other], main * rng.uniform(0.2, 0.7)) for other in others),
            ]
            yield _stimulus(render_content(rng, size), damage, rng, reference=index, kind=generator, level=0)

    return Recipe(count=count, draw=draw)


_FIVE = (0.1, 0.32, 0.55, 0.78, 1.0)

RECIPES: dict[str, Recipe] = {
    "koniq": _authentic("koniq", 560, WILD, None),
    "spaq": _authentic("spaq", 420, PHONE, _phone_look),
    "kadid": _graded("kadid", KADID_REFERENCES, KADID_TYPES, per_reference=3, strengths=_FIVE),
    "pipal": _restored("pipal", PIPAL_REFERENCES, PIPAL_TYPES, per_reference=10),
    "live_wild": _authentic("live_wild", 127, SPORT, None),
    "agiqa_3k": _generated("agiqa_3k", 117),
    "csiq": _graded(
        "csiq",
        CSIQ_REFERENCES,
        CSIQ_TYPES,
        per_reference=2,
        strengths=_FIVE,
        skip=frozenset({("contrast", 5)}),
    ),
    "tid2013": _graded("tid2013", TID_REFERENCES, TID_TYPES, per_reference=2, strengths=_FIVE),
}
"""The eight sets by adapter name. 127 pictures of live_wild include its seven training pictures."""
