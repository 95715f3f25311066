"""What is known of each published set, as numbers that its files can be held against.

Counts and ranges were computed from the label files that the sets' authors and the projects around them
publish; sizes of images are the authors' statements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from qhk.data.adapters.base import Options


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Expected numbers of one set.

    ``low`` and ``high`` are the extremes of the native scores as the label file writes them.
    ``references`` counts contents, None where every image is its own. ``parts`` holds, by protocol, the
    images of each split. ``unlabelled`` counts images in the folders that have no row by design.
    ``formats`` counts labelled images by file format, ``size`` is the width and height that all have,
    ``median_side`` a number of pixels that the median of their shorter sides exceeds.
    ``traps`` tells by a number of rows which other download it belongs to, ``hint`` what goes wrong most
    easily; ``tolerance`` is that of the extremes, in native units.
    """

    rows: int
    low: float
    high: float
    references: int | None
    parts: Mapping[str, Mapping[str, int]]
    unlabelled: int
    formats: Mapping[str, int]
    size: tuple[int, int] | None
    median_side: int | None = None
    traps: Mapping[int, str] = field(default_factory=dict)
    hint: str = ""
    tolerance: float = 1e-9


_KONIQ = {
    "MOS": (1.09615384615385, 4.31),
    "MOS_zscore": (3.91176470588235, 88.3888888888889),
}
_KONIQ_SIZES = {"1024x768": (1024, 768), "512x384": (512, 384)}

_FACTS = {
    "koniq": Facts(
        rows=10073,
        low=_KONIQ["MOS"][0],
        high=_KONIQ["MOS"][1],
        references=None,
        parts={
            "official": {"train": 7058, "validation": 1000, "test": 2015},
            "deqa": {"train": 7046, "test": 2010},
        },
        unlabelled=0,
        formats={"JPEG": 10073},
        size=None,
        hint="in koniq10k_distributions_sets.csv MOS is the z-score mean, 0-100; read the other file",
    ),
    "spaq": Facts(
        rows=11125,
        low=2.0,
        high=96.0,
        references=None,
        parts={"deqa": {"train": 8897, "test": 2224}},
        unlabelled=0,
        formats={"JPEG": 11125},
        size=None,
        median_side=1000,
    ),
    "kadid": Facts(
        rows=10125,
        low=1.0,
        high=4.93,
        references=81,
        parts={
            "deqa": {"train": 8106, "test": 2000},
            "references": {"train": 8125, "test": 2000},
            "visualquality_r1": {"train": 6125, "validation": 2000, "test": 2000},
        },
        unlabelled=81,
        formats={"PNG": 10125},
        size=(512, 384),
    ),
    "pipal": Facts(
        rows=23200,
        low=916.7136,
        high=1835.9856,
        references=200,
        parts={"deqa": {"train": 18560, "test": 4640}},
        unlabelled=0,
        formats={"BMP": 23200},
        size=(288, 288),
        traps={4640: "only the test part of DeQA-Score"},
    ),
    "live_wild": Facts(
        rows=1162,
        low=3.42,
        high=92.4319526627219,
        references=None,
        parts={},
        unlabelled=7,
        formats={"BMP": 535, "JPEG": 627},
        size=None,
        traps={1169: "the seven training images counted in"},
    ),
    "agiqa_3k": Facts(
        rows=2982,
        low=0.0,
        high=4.488740784,
        references=None,
        parts={},
        unlabelled=0,
        formats={"JPEG": 2982},
        size=None,
    ),
    "csiq": Facts(
        rows=866,
        low=0.0,
        high=1.0,
        references=30,
        parts={},
        unlabelled=0,
        formats={"PNG": 866},
        size=(512, 512),
        hint="the scores are DMOS, 0 for no difference; a list that was inverted before does not fit",
    ),
    "tid2013": Facts(
        rows=3000,
        low=0.24242,
        high=7.21429,
        references=25,
        parts={},
        unlabelled=0,
        formats={"BMP": 3000},
        size=(512, 384),
        traps={1700: "TID2008"},
    ),
    "flive": Facts(
        rows=39810,
        low=0.0,
        high=94.3332343725568,
        references=None,
        parts={},
        unlabelled=0,
        formats={"JPEG": 39810},
        size=None,
        traps={1827: "labels640.csv, the test list"},
    ),
    "bid": Facts(
        rows=586,
        low=0.163806,
        high=4.919752,
        references=None,
        parts={},
        unlabelled=0,
        formats={"JPEG": 586},
        size=None,
        hint="copies rescale the grades to 0-100 or 1-5 and rename the images; the official ones are 0-5",
        tolerance=1e-3,
    ),
    "live": Facts(
        rows=779,
        low=-2.640009,
        high=111.7747,
        references=29,
        parts={},
        unlabelled=203,
        formats={"BMP": 779},
        size=None,
        traps={982: "the undistorted copies counted in"},
        hint="dmos.mat holds scores before realignment; inverted lists of other projects do not fit",
        tolerance=1e-3,
    ),
}


def known_facts(adapter: str, options: Options) -> Facts | None:
    """The facts of a published set as these options read it; None for sets of the user's own."""
    facts = _FACTS.get(adapter)
    if facts is None or adapter != "koniq":
        return facts
    low, high = _KONIQ.get(str(options.get("score_column")), _KONIQ["MOS"])
    return replace(facts, low=low, high=high, size=_KONIQ_SIZES.get(str(options.get("image_folder"))))
