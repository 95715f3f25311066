"""Perturbed copies of a benchmark's images: which there are, and how they are scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qhk.data.degrade import eased_strength
from qhk.data.seeds import stream_generator
from qhk.data.selection import content_of, limit_examples
from qhk.evaluation.predictions import Prediction
from qhk.evaluation.results import Measure, Moment, PerturbedRow
from qhk.settings.measuring import STRENGTHS, PerturbationSettings
from qhk.settings.root import EvaluationSettings
from qhk.statistics.bootstrap import Interval, cluster_index
from qhk.statistics.perturbation import compare_pairs, strength_and_drop
from qhk.types import Example, Perturbation


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Examples that were perturbed in one way; they have the ids of their originals."""

    family: str
    kind: str
    strength: int | None
    amount: float | None
    examples: Sequence[Example]

    @property
    def name(self) -> str:
        """Return a file name for what is said of them."""
        return self.kind if self.strength is None else f"{self.kind}_{self.strength}"


def perturbed_copies(
    examples: Sequence[Example],
    settings: PerturbationSettings,
    *,
    strengths: Mapping[str, float],
    seed: int,
) -> list[Copies]:
    """Return all copies of a part of the examples, drawn by the seed, kind by kind in rising strength.

    A degradation's step i of 5 lies i / 5 of the way to ``strengths``.
    """
    chosen = limit_examples(examples, settings.images, seed=seed)

    def copies(family: str, kind: str, strength: int, amount: float) -> Copies:
        change = Perturbation(family=family, kind=kind, amount=amount, seed=seed)
        return Copies(
            family=family,
            kind=kind,
            strength=strength,
            amount=amount,
            examples=[replace(example, perturbation=change) for example in chosen],
        )

    found = [
        copies("degradation", kind, step, eased_strength(kind, strengths[kind], step / STRENGTHS))
        for kind in settings.degradations
        for step in range(1, STRENGTHS + 1)
    ]
    found += [
        copies("corruption", kind, step, float(step))
        for kind in settings.corruptions
        for step in range(1, STRENGTHS + 1)
    ]
    for kind in settings.replacements:
        grey = copies("replacement", kind, 0, 0.0)
        shown = _exchanged(chosen, seed=seed) if kind == "another" else grey.examples
        found.append(replace(grey, strength=None, amount=None, examples=shown))
    return found


def _exchanged(examples: Sequence[Example], *, seed: int) -> list[Example]:
    """Return the examples, each showing the pictures of another content; without any it is left out."""
    found = []
    for example in examples:
        others = [other for other in examples if content_of(other) != content_of(example)]
        if others:
            place = stream_generator(seed, "another", example.dataset, example.id).integers(len(others))
            other = others[int(place)]
            found.append(
                replace(example, image=other.image, more_images=other.more_images, seconds=other.seconds)
            )
    return found


def compare_copies(
    originals: Mapping[str, Prediction],
    copies: Sequence[tuple[Copies, Sequence[Prediction]]],
    *,
    benchmark: str,
    step: int,
    moment: Moment,
    readout: str,
    settings: EvaluationSettings,
    seed: int,
) -> list[PerturbedRow]:
    """Return a row for each of the copies, and one over all strengths of a kind.

    ``originals`` are the predictions of the images themselves by id.
    """

    def row(
        part: Copies, predictions: Sequence[Prediction], *, strength: int | None, srcc: float | None
    ) -> PerturbedRow:
        pairs = _pairs(originals, predictions)
        found = compare_pairs(
            np.array([before.clipped for before, _ in pairs], dtype=np.float64),
            np.array([after.clipped for _, after in pairs], dtype=np.float64),
            cluster_index([before.reference or before.id for before, _ in pairs]),
            num_resamples=settings.bootstrap,
            confidence=settings.confidence,
            seed=seed,
        )
        metrics = {name: _measure(*value) for name, value in found.__dict__.items()}
        if srcc is not None:
            metrics["strength_srcc"] = Measure(value=srcc, low=math.nan, high=math.nan)
        return PerturbedRow(
            benchmark=benchmark,
            step=step,
            moment=moment,
            readout=readout,
            family=part.family,
            kind=part.kind,
            strength=strength,
            amount=None if strength is None else part.amount,
            n=len(predictions),
            n_pairs=len(pairs),
            metrics=metrics,
        )

    rows = []
    kinds = dict.fromkeys((part.family, part.kind) for part, _ in copies)
    for kind in kinds:
        own = [(part, said) for part, said in copies if (part.family, part.kind) == kind]
        if own[0][0].strength is None:
            rows += [row(part, said, strength=None, srcc=None) for part, said in own]
            continue
        rows += [row(part, said, strength=part.strength, srcc=None) for part, said in own]
        points = [
            (part.strength, before.clipped - after.clipped)  # type: ignore[operator]
            for part, said in own
            for before, after in _pairs(originals, said)
        ]
        strengths, drops = np.array(points, dtype=np.float64).reshape(-1, 2).T
        every = [item for _, said in own for item in said]
        rows.append(row(own[0][0], every, strength=None, srcc=strength_and_drop(strengths, drops)))
    return rows


def _pairs(
    originals: Mapping[str, Prediction], predictions: Sequence[Prediction]
) -> list[tuple[Prediction, Prediction]]:
    """Return the originals with their copies, where both have a readable answer."""
    pairs = [(originals[item.id], item) for item in predictions]
    return [(one, other) for one, other in pairs if one.clipped is not None and other.clipped is not None]


def _measure(value: float, interval: Interval) -> Measure:
    return Measure(value=value, low=interval.low, high=interval.high)
