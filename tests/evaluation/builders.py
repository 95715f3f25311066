"""Small records for the tests of this room."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhk.evaluation.results import Measure, Moment, ResultRow
from qhk.types import Answer, Completion, Example

NAN = float("nan")


def example(id_: str, mos: float = 3.0) -> Example:
    return Example(
        id=id_, dataset="koniq", image=Path(f"{id_}.png"), mos=mos, mos_native=mos, higher_is_better=True
    )


def completion(score: float | None) -> Completion:
    return Completion(text=f"<{score}>", answer=Answer(score=score), num_tokens=3, truncated=False)


def completions(scores: Sequence[float | None]) -> list[Completion]:
    return [completion(score) for score in scores]


def row(
    benchmark: str = "koniq",
    *,
    moment: Moment = Moment.BEFORE,
    step: int = 0,
    readout: str = "mean8",
    n: int = 100,
    n_parsed: int = 100,
    samples_failed: int = 0,
    miniature: bool = True,
    srcc: float = 0.6,
    plcc: float = 0.7,
    plcc_fallback: str = "",
    plcc_step: bool = False,
    entropy: float = 2.0,
    distinct: int = 40,
) -> ResultRow:
    values = {"srcc": srcc, "plcc": plcc, "plcc_fitted": plcc + 0.01, "score_entropy": entropy}
    return ResultRow(
        form="score",
        benchmark=benchmark,
        split="test",
        protocol="whole set",
        miniature=miniature,
        step=step,
        moment=moment,
        readout=readout,
        n=n,
        n_parsed=n_parsed,
        samples=8 * n,
        samples_failed=samples_failed,
        samples_out_of_range=0,
        distinct=distinct,
        plcc_fallback=plcc_fallback,
        plcc_step=plcc_step,
        metrics={name: Measure(value=value, low=value - 0.1, high=NAN) for name, value in values.items()},
    )
