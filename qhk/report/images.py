"""Single images on the page: what every method said of them, and how far that can be relied on."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from qhk.data.datasets import load_dataset_entry
from qhk.data.image import load_image
from qhk.errors import UserError
from qhk.evaluation.predictions import Prediction, read_predictions
from qhk.evaluation.reliability import as_arrays, measure_reliability, sparsification, why_no_opinions
from qhk.report.compare import Progress
from qhk.report.memory import Memory
from qhk.report.runs import CONFIG_FILE, RunRecord, Runs, benchmarks_of
from qhk.report.scoring import answers_path, has_answer
from qhk.report.views import View, find_row, views
from qhk.settings.parse import read_settings
from qhk.statistics.correlation import srcc
from qhk.types import MOS_HIGH, MOS_LOW

MAX_IMAGES, MIN_IMAGES = 300, 40
MAX_SCORES = 12_000
"""Images times methods on the page: with many methods each benchmark shows fewer images."""
MAX_THUMBNAILS = 60
THUMBNAIL_SIDE = 112
MAX_TEXT = 700
MAX_TEXTS = 3_000_000
"""Characters of answers in all: with many methods each answer is cut sooner."""


def images_of(runs: Runs, progress: Progress, *, pictures: bool) -> list[dict[str, Any]]:
    """Return, by benchmark, some images with what the methods said of them, and how reliable that is.

    Of every method the run with the first seed that has predictions: its last ones, in its headline read-out.
    """
    found = []
    names = benchmarks_of(runs)
    columns = max(1, len(names) * len(runs.methods))
    most = min(MAX_IMAGES, max(MIN_IMAGES, MAX_SCORES // columns))
    max_text = min(MAX_TEXT, MAX_TEXTS // (columns * MAX_THUMBNAILS))
    for name in names:
        by_method: dict[str, list[Prediction]] = {}
        ratings = _ratings(runs, name)
        source: RunRecord | None = None
        for method, records in runs.methods.items():
            for record in records:
                predictions = _last_predictions(record, name)
                if predictions:
                    by_method[method] = predictions
                    source = source or record
                    break
        if by_method and source is not None:
            progress(f"pictures of {name}", 0, 1)
            found.append(
                _benchmark_images(
                    name,
                    by_method,
                    ratings,
                    most,
                    max_text,
                    pictures=partial(thumbnails, source, name, memory=runs.memory) if pictures else None,
                )
            )
    return found


def _ratings(runs: Runs, benchmark: str) -> float | None:
    """Return how many opinions each image of a benchmark has, where any run knows it."""
    rows = (row for record in runs.records for row in record.rows if row.benchmark == benchmark)
    return next((row.ratings for row in rows if row.ratings is not None), None)


def _last_predictions(record: RunRecord, benchmark: str) -> list[Prediction]:
    """Return what a run said last of a benchmark, in its headline read-out if it has that."""
    for moment, readout in views(Runs([record])):
        for metric in ("srcc", "accuracy"):
            view = View(metric=metric, moment=moment, readout=readout, benchmarks=(benchmark,))
            row = find_row(record, view, benchmark)
            path = None if row is None else answers_path(record.directory, row)
            if path is not None:
                try:
                    return [item for item in read_predictions(path) if has_answer(item)]
                except UserError:
                    return []
    return []


def _benchmark_images(
    name: str,
    by_method: Mapping[str, list[Prediction]],
    ratings: float | None,
    most: int,
    max_text: int,
    *,
    pictures: Callable[[Sequence[str]], dict[str, str]] | None,
) -> dict[str, Any]:
    """Return ``most`` images of a benchmark; those with a picture have the words, cut at ``max_text``."""
    scored = {
        method: {item.id: item for item in predictions if item.mos is not None}
        for method, predictions in by_method.items()
    }
    first = next(iter(scored.values()))
    errors = {
        id_: max(
            abs(found[id_].clipped - found[id_].mos)  # type: ignore[operator]
            for found in scored.values()
            if id_ in found
        )
        for id_ in first
    }
    worst = sorted(errors, key=lambda id_: -errors[id_])
    shown = list(first) if len(first) <= most else _spread_out(list(first), most, worst)
    half = [id_ for id_ in worst if id_ in set(shown)][: MAX_THUMBNAILS // 2]
    pictured = list(dict.fromkeys([*half, *_spread_out(shown, MAX_THUMBNAILS // 2, [])]))
    return {
        "benchmark": name,
        "reliability": {
            method: _reliability(list(found.values()), ratings) for method, found in scored.items()
        },
        "parts": {method: _parts(list(found.values())) for method, found in scored.items()},
        "worst": [id_ for id_ in worst if id_ in shown][:24],
        "pictures": {} if pictures is None else pictures(pictured),
        "images": [
            {
                "id": id_,
                "mos": first[id_].mos,
                "about": _about(first[id_]),
                "scores": {
                    method: _said(found[id_], max_text if id_ in pictured else 0)
                    for method, found in scored.items()
                    if id_ in found
                },
            }
            for id_ in shown
        ],
    }


def _spread_out(ids: Sequence[str], count: int, always: Sequence[str]) -> list[str]:
    """Return about ``count`` of the ids at even distances, with the first of ``always`` among them."""
    kept = dict.fromkeys(always[: count // 4])
    places = np.linspace(0, len(ids) - 1, min(len(ids), count - len(kept))).astype(int)
    return list(dict.fromkeys([*kept, *(ids[place] for place in places)]))


def _about(item: Prediction) -> str:
    level = None if item.level is None else f"level {item.level:g}"
    reference = None if item.reference is None else f"reference {item.reference}"
    return ", ".join(text for text in (item.distortion, level, reference) if text)


def _said(item: Prediction, max_text: int) -> dict[str, Any]:
    """Return what is shown of a prediction; a score without bounds is shown at the end of the scale."""
    text = item.texts[0] if item.texts else ""
    shown = text if len(text) <= max_text else f"{text[:max_text]} ..."
    return {
        "score": None if item.clipped is None else min(MOS_HIGH, max(MOS_LOW, item.clipped)),
        **({"samples": list(item.samples), "text": shown} if max_text else {}),
    }


def _reliability(items: Sequence[Prediction], ratings: float | None) -> dict[str, Any]:
    """Return whether the spread over samples tells errors, and how a method does on what opinions tell apart.

    ``no_opinions`` says why the latter is not known, "" where it is.
    """
    prediction, mos, _ = as_arrays(items)
    curve = sparsification(items)
    return {
        "n": len(items),
        "distinct": len(set(prediction.tolist())),
        "srcc": srcc(prediction, mos),
        **measure_reliability(items, ratings=ratings),
        "ratings": ratings,
        "no_opinions": why_no_opinions(items, ratings=ratings),
        **(
            {}
            if curve is None
            else {
                "sparsification": {
                    "share": curve.shares, "by_spread": curve.by_spread, "by_error": curve.by_error,
                }
            }
        ),
    }  # fmt: skip


def _parts(items: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Return SRCC and mean error by distortion and by level, where the set knows them."""
    found = []
    for by in ("distortion", "level"):
        groups: dict[Any, list[Prediction]] = {}
        for item in items:
            if item.__dict__[by] is not None:
                groups.setdefault(item.__dict__[by], []).append(item)
        for value, members in sorted(groups.items()):
            scores, mos = [m.clipped for m in members], [m.mos for m in members]
            found.append(
                {
                    "by": by,
                    "value": str(value) if by == "distortion" else f"{value:g}",
                    "n": len(members),
                    "srcc": srcc(scores, mos),  # type: ignore[arg-type]
                    "mae": float(np.mean(np.abs(np.subtract(scores, mos)))),  # type: ignore[arg-type]
                }
            )
    return found


def thumbnails(record: RunRecord, benchmark: str, ids: Sequence[str], *, memory: Memory) -> dict[str, str]:
    """Return small JPEG pictures as data URLs by image id; those that cannot be found are left out."""
    try:
        file = record.directory / CONFIG_FILE
        there = file.stat()
        paths = memory.keep(
            (file, benchmark),
            (there.st_mtime_ns, there.st_size),
            lambda: dict(_picture_paths(record, benchmark)),
        )
    except (UserError, OSError, KeyError):
        return {}
    found = {}
    for id_ in ids:
        if id_ in paths:
            try:
                found[id_] = memory.read(paths[id_], _thumbnail)
            except (UserError, OSError):
                continue
    return found


def _thumbnail(path: Path) -> str:
    picture = load_image(path, min_side=1)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _picture_paths(record: RunRecord, benchmark: str) -> Iterator[tuple[str, Path]]:
    """Return the files of a benchmark's images, found by the settings that the run had."""
    settings = read_settings(record.directory / CONFIG_FILE)
    name = benchmark if benchmark in settings.dataset else benchmark.partition(".")[0]
    loaded = load_dataset_entry(
        name, settings.dataset[name], cache=Path(settings.paths.cache), progress=lambda done, of: None
    )
    for part in loaded.examples.values():
        for example in part:
            yield example.id, example.image
