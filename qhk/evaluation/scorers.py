"""Scorers that are no policy: measures that need no model, and tables of anyone's scores. Free of torch.

Their predictions lie along the scale of opinions, larger for better, so that they stand beside a policy's:
``score`` is a linear map of what the measure or the table says (``raw``), so correlations are those of the
raw values but for the sign of measures of which less is better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from qhk.baselines import brisque, niqe, piqe
from qhk.baselines.natural import Array
from qhk.data.image import upright_size
from qhk.data.matching import index_files
from qhk.data.perturb import read_pictures
from qhk.data.tables import number, read_csv
from qhk.errors import UserError
from qhk.evaluation.predictions import Prediction, value_prediction
from qhk.files import file_digest
from qhk.settings.measuring import ScorerSettings
from qhk.types import MOS_HIGH, MOS_LOW, Example


class Scorer(Protocol):
    """Scores examples that it has been shown all of; ``on_scale``: as opinions are, not along them alone."""

    on_scale: bool

    def prepare(self, name: str, examples: Sequence[Example]) -> str:
        """Make ready for all examples of a benchmark; return what the user should know, "" for nothing.

        Raises ``UserError`` where some of them cannot be scored.
        """

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Return one prediction per example, in order."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A measure of a grey image: less is better, 0 and ``worst`` are mapped to 5 and 1, with no bounds."""

    measure: Callable[[Array], float]
    worst: float
    min_side: int


BASELINES: Mapping[str, Baseline] = {
    "brisque": Baseline(measure=brisque.brisque, worst=100.0, min_side=brisque.MIN_SIDE),
    "niqe": Baseline(measure=niqe.niqe, worst=40.0, min_side=niqe.MIN_SIDE),
    "piqe": Baseline(measure=piqe.piqe, worst=100.0, min_side=piqe.MIN_SIDE),
}


class BaselineScorer:
    """Scores every image by a measure; of several pictures (a video's frames) the mean counts."""

    on_scale = False

    def __init__(self, form: str, *, workers: int) -> None:
        self.form, self.baseline, self.workers = form, BASELINES[form], workers

    def prepare(self, name: str, examples: Sequence[Example]) -> str:
        for path in dict.fromkeys(path for example in examples for path in example.images):
            width, height = upright_size(path)
            if min(width, height) < self.baseline.min_side:
                others = ", ".join(one for one in BASELINES if one != self.form)
                raise UserError(
                    f"benchmark.{name}: {path} is {width}x{height}, and {self.form} needs "
                    f"{self.baseline.min_side} pixels on each side; leave the set out, or choose "
                    f"scorer={others.replace(', ', ' or scorer=')}"
                )
        return ""

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        with ThreadPoolExecutor(max_workers=max(1, self.workers)) as pool:
            return list(pool.map(self._predict, examples))

    def _predict(self, example: Example) -> Prediction:
        raw = float(np.mean([self.baseline.measure(_grey(image)) for image in read_pictures(example)]))
        score = MOS_HIGH - (MOS_HIGH - MOS_LOW) * raw / self.baseline.worst
        return value_prediction(example, raw, score, clipped=score)


def _grey(image: Image.Image) -> Array:
    """Return an image as the measures take it: luma of 0 to 255, rounded, ``(H, W)``."""
    return np.asarray(image.convert("L"), dtype=np.float64)


class TableScorer:
    """Gives every image the score that a table has for it."""

    def __init__(self, settings: ScorerSettings) -> None:
        assert settings.path is not None
        self.settings, self.path = settings, Path(settings.path)
        self.on_scale = settings.bounds is not None
        self.rows = read_scores(self.path, settings.name_column, settings.score_column)
        scores = [score for _, _, score in self.rows]
        self.bounds = settings.bounds or (min(scores), max(scores))
        self.scores: dict[str, float] = {}

    def prepare(self, name: str, examples: Sequence[Example]) -> str:
        """Find the row of each example. Raises UserError for images without one, unless they are left out."""
        found, spare = match_scores(self.path, self.rows, examples)
        missing = [example for example in examples if example.id not in found]
        if missing and (self.settings.missing == "refuse" or not found):
            raise UserError(
                f"scorer.path: {self.path} has no row for {missing[0].id!r} of {name} ({len(missing)} of "
                f"{len(examples)} images): add the rows, name other sets with benchmark=, or leave "
                "such images out with scorer.missing=leave_out"
            )
        self.scores |= {_key(example): found[example.id] for example in examples if example.id in found}
        parts = [f"{spare} rows of {self.path} are of other images than {name}'s"] if spare else []
        parts += [f"{len(missing)} of {len(examples)} images of {name} have no row"] if missing else []
        return "; ".join(parts)

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        return [self._predict(example) for example in examples]

    def _predict(self, example: Example) -> Prediction:
        raw = self.scores.get(_key(example))
        if raw is None:
            return value_prediction(example, None, None, clipped=None)
        low, high = self.bounds
        share = (raw - low) / (high - low) if high > low else 0.5
        share = share if self.settings.higher_is_better else 1 - share
        score = MOS_LOW + (MOS_HIGH - MOS_LOW) * share
        return value_prediction(example, raw, score, clipped=min(MOS_HIGH, max(MOS_LOW, score)))


def _key(example: Example) -> str:
    return f"{example.dataset}/{example.id}"


Row = tuple[str, str, float]
"""Where a row stands, the image that it names, its score."""


def read_scores(path: Path, name_column: str, score_column: str) -> list[Row]:
    """Return the rows of a table. Raises ``UserError`` naming row and column for what is no score."""
    rows = []
    for line, cells in read_csv(path, [name_column, score_column]):
        where = f"{path} line {line}"
        if not cells[name_column]:
            raise UserError(f"{where}: {name_column} is empty: name the image or remove the row")
        rows.append((where, cells[name_column], number(cells[score_column], where, score_column)))
    if not rows:
        raise UserError(f"scorer.path: {path} has no rows; give a CSV of names and scores")
    return rows


def match_scores(
    path: Path, rows: Sequence[Row], examples: Sequence[Example]
) -> tuple[dict[str, float], int]:
    """Return score by id of those examples that a row names, and how many rows name none of them.

    A row names an image by the example's id or, as label files do, by a file name or a path
    (``ImageIndex.fitting``). Raises ``UserError`` where a name fits several images, or an image has two rows.
    """
    ids = {example.id: example for example in examples}
    by_file = {example.image: example for example in examples}
    index = index_files(list(by_file))
    found: dict[str, float] = {}
    places: dict[str, str] = {}
    spare = 0
    for where, name, score in rows:
        example = ids.get(name)
        if example is None:
            fitting, _ = index.fitting(name)
            if len(fitting) > 1:
                both = " and ".join(map(str, fitting[:2]))
                raise UserError(
                    f"{where}: image {name!r} fits {len(fitting)} files ({both}): write its folder"
                )
            example = by_file[fitting[0]] if fitting else None
        if example is None:
            spare += 1
            continue
        if example.id in found:
            raise UserError(f"{where}: {example.id!r} has a score already, in {places[example.id]}: keep one")
        found[example.id], places[example.id] = score, where
    return found, spare


def build_scorer(settings: ScorerSettings, *, workers: int) -> Scorer:
    """Return the scorer of another form than ``policy``. Raises ``UserError`` for a table that is none."""
    if settings.form == "table":
        return TableScorer(settings)
    return BaselineScorer(settings.form, workers=workers)


def scorer_label(settings: ScorerSettings) -> str:
    """Return what reports call a scorer."""
    if settings.label is not None:
        return settings.label
    return Path(settings.path).stem if settings.path is not None else settings.form


def scorer_identity(settings: ScorerSettings) -> dict[str, Any]:
    """Return what decides the scores of a scorer: its settings, and the bytes of its table."""
    plain = settings.model_dump(mode="json", exclude={"label", "path"}, exclude_defaults=True)
    if settings.path is not None:
        plain["table"] = file_digest(Path(settings.path))
    return plain
