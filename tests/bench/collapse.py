"""What keeps the scores diverse: the runs of ``sweeps/collapse.yaml`` as one table, before and after.

    python -m tests.bench.collapse                     # runs what is not there yet, then prints
    python -m tests.bench.collapse --only-print        # prints what is there
    python -m tests.bench.collapse training.duration.steps=20 study=try   # overrides of the sweep

Every run has its own directory ``outputs/collapse/<cell>/seed<k>``: one that is finished is not run again,
one that was interrupted goes on behind its last checkpoint. Seeds share their cold start over all cells but
``two_decimals``, whose answers are written otherwise, so "before" is one number per seed.

Printed per cell, as mean over seeds and half the range from lowest to highest: different scores of single
samples, entropy in nats of their distribution, SRCC and PLCC, each a mean over the benchmarks.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from qhk.evaluation.results import ResultRow, Stage, read_results

MEASURES = ("distinct_samples", "score_entropy", "srcc", "plcc")
Run = dict[Stage, dict[str, float]]


def measures_of(rows: Sequence[ResultRow], *, readout: str) -> Run:
    """By stage, each measure as a mean over the benchmarks."""
    return {
        stage: {
            name: statistics.fmean(
                row.metrics[name].value for row in rows if row.stage is stage and row.readout == readout
            )
            for name in MEASURES
        }
        for stage in (Stage.BEFORE, Stage.AFTER)
    }


def read_study(folder: Path, *, readout: str) -> dict[str, list[Run]]:
    """The finished runs of a study by cell, in the order of their seeds."""
    cells: dict[str, list[Run]] = {}
    for path in sorted(folder.glob("*/seed*/results.json")):
        rows = read_results(path).rows
        if {Stage.BEFORE, Stage.AFTER} <= {row.stage for row in rows}:
            cells.setdefault(path.parents[1].name, []).append(measures_of(rows, readout=readout))
    return cells


def spread(values: Sequence[float]) -> str:
    """``0.71 ±0.03``: the mean and half the range."""
    return f"{statistics.fmean(values):6.2f} ±{(max(values) - min(values)) / 2:4.2f}"


def table(cells: dict[str, list[Run]]) -> str:
    """One line per cell, each measure before and after."""
    header = ["cell".ljust(16), "seeds"] + [f"{name} before -> after".ljust(28) for name in MEASURES]
    lines = ["  ".join(header)]
    for cell, runs in cells.items():
        columns = [cell.ljust(16), f"{len(runs):5d}"]
        for name in MEASURES:
            before, after = ([run[stage][name] for run in runs] for stage in (Stage.BEFORE, Stage.AFTER))
            columns.append(f"{spread(before)} -> {spread(after)}".ljust(28))
        lines.append("  ".join(columns))
    return "\n".join(lines)


def main() -> int:
    """Runs the sweep where asked, prints the table; the sweep's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only-print", action="store_true", help="start no run")
    parser.add_argument("--study", type=Path, default=Path("outputs/collapse"), help="where the cells lie")
    parser.add_argument("--readout", default="mean_of_8", help="a read-out of several samples")
    parser.add_argument("overrides", nargs="*", help="overrides for qhk train")
    chosen = parser.parse_args()
    code = 0
    if not chosen.only_print:
        words = ["train", "sweep=collapse", *chosen.overrides]
        code = subprocess.run([sys.executable, "-m", "qhk.cli.main", *words], check=False).returncode
    print(table(read_study(chosen.study, readout=chosen.readout)))
    return code


if __name__ == "__main__":
    sys.exit(main())
