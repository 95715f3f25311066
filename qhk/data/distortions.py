"""Words for distortion types and levels, read from the file names of the synthetic sets.

Each official type has a ``distortion`` (its name) and an ``appearance`` (one word for what one sees),
each level a ``severity``. Names follow the documentation of the sets.
"""

from __future__ import annotations

Kind = tuple[str, str]

SEVERITIES = ("faint", "mild", "clear", "strong", "severe")

KADID_TYPES: dict[int, Kind] = {
    1: ("gaussian blur", "blurred"),
    2: ("lens blur", "blurred"),
    3: ("motion blur", "blurred"),
    4: ("colour diffusion", "smeared"),
    5: ("colour shift", "tinted"),
    6: ("colour quantisation", "banded"),
    7: ("saturation in HSV", "faded"),
    8: ("saturation in Lab", "garish"),
    9: ("jpeg 2000", "blocky"),
    10: ("jpeg", "blocky"),
    11: ("white noise", "noisy"),
    12: ("noise in YCbCr", "noisy"),
    13: ("impulse noise", "noisy"),
    14: ("multiplicative noise", "noisy"),
    15: ("denoising", "smeared"),
    16: ("brighten", "bright"),
    17: ("darken", "dark"),
    18: ("mean shift", "bright"),
    19: ("jitter", "jagged"),
    20: ("non-eccentricity patch", "patched"),
    21: ("pixelate", "blocky"),
    22: ("quantisation", "banded"),
    23: ("colour block", "patched"),
    24: ("over-sharpening", "harsh"),
    25: ("contrast change", "flat"),
}
TID_TYPES: dict[int, Kind] = {
    1: ("gaussian noise", "noisy"),
    2: ("colour noise", "noisy"),
    3: ("correlated noise", "noisy"),
    4: ("masked noise", "noisy"),
    5: ("high-frequency noise", "noisy"),
    6: ("impulse noise", "noisy"),
    7: ("quantisation", "banded"),
    8: ("gaussian blur", "blurred"),
    9: ("denoising", "smeared"),
    10: ("jpeg", "blocky"),
    11: ("jpeg 2000", "blocky"),
    12: ("jpeg transmission errors", "patched"),
    13: ("jpeg 2000 transmission errors", "patched"),
    14: ("non-eccentricity pattern", "patched"),
    15: ("block-wise distortion", "patched"),
    16: ("mean shift", "bright"),
    17: ("contrast change", "flat"),
    18: ("saturation", "faded"),
    19: ("multiplicative noise", "noisy"),
    20: ("comfort noise", "noisy"),
    21: ("lossy compression of noisy images", "noisy"),
    22: ("dithered colour quantisation", "banded"),
    23: ("chromatic aberration", "tinted"),
    24: ("sparse sampling", "blocky"),
}
CSIQ_TYPES: dict[str, Kind] = {
    "AWGN": ("white noise", "noisy"),
    "BLUR": ("gaussian blur", "blurred"),
    "contrast": ("contrast", "flat"),
    "fnoise": ("pink noise", "noisy"),
    "JPEG": ("jpeg", "blocky"),
    "jpeg2000": ("jpeg 2000", "blocky"),
}

LIVE_TYPES: dict[str, Kind] = {
    "jp2k": ("jpeg 2000", "blocky"),
    "jpeg": ("jpeg", "blocky"),
    "wn": ("white noise", "noisy"),
    "gblur": ("gaussian blur", "blurred"),
    "fastfading": ("jpeg 2000 transmission errors", "patched"),
}


def descriptions() -> list[str]:
    """Return how a text may describe a distorted image: every ``appearance, severity``, sorted."""
    tables = (KADID_TYPES, TID_TYPES, CSIQ_TYPES, LIVE_TYPES)
    appearances = {appearance for table in tables for _, appearance in table.values()}
    return sorted(f"{appearance}, {severity}" for appearance in appearances for severity in SEVERITIES)


def describe(kind: Kind, level: int) -> dict[str, str | float]:
    """Return a distorted image's labels: distortion, appearance, level (1 to 5) and its word, severity."""
    distortion, appearance = kind
    assert 1 <= level <= len(SEVERITIES), level
    return {
        "distortion": distortion,
        "appearance": appearance,
        "level": float(level),
        "severity": SEVERITIES[level - 1],
    }
