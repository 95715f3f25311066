"""Where the default of ``qhk train`` ends, and what it goes through, over many trajectories.

    python -m tests.bench.default [--name NAME] [--seeds 0,1] [--threads 1,2] [--jitters 0,1] [--beside NAME]
        [KEY=VALUE ...]

A trajectory is a seed, a number of threads, and a jitter: which noise of relative size 1e-7 is laid on the
start weights, as another CPU's rounding would (0: none). The cold start of a seed is made once, on one
thread, and all its trajectories go on from it. KEY=VALUE are overrides of every trajectory of that name.
All runs are kept in outputs/bench_default: the same command goes on where it was interrupted, and prints all
names that are there, each beside ``default`` or the NAME of one with as many steps. ``told`` counts those
that were told signs of collapse. ``--steps`` ends early with the schedules of the whole run, ``--path``
leaves the benchmarks out, and start and end are then those of the validation part.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, median, stdev

import torch
from scipy import stats

from qhk.cli import main as command_line
from qhk.data.seeds import stream_seed
from qhk.evaluation.results import Moment, read_results, summarise
from qhk.policy.load import load_policy, save_policy
from qhk.settings.parse import read_settings
from qhk.tracking.names import COLLAPSE_SIGNS
from qhk.tracking.recorder import read_metrics
from qhk.tracking.status import RunState, read_status
from tests.words import last_of_each

FOLDER = Path("outputs/bench_default")
STEPS = 300
"""Length of the default, over which the schedules run."""

READOUT = "mean_of_8"
"""What benchmarks are measured by."""

NOISE = 1e-7
"""Relative standard deviation of what a jitter lays on the start weights."""

SETTLED = 20
"""Steps up to which a path is not judged."""

DIP, ENTROPY = 0.10, 1.5
"""How far the validation SRCC may lie under the start's, and the least entropy of a step's scores in nats."""

Trajectory = tuple[int, int, int]
"""Seed, threads, jitter."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """What one trajectory went through; ``start`` and ``end`` are (SRCC, PLCC).

    They are means over the benchmarks, or of the validation part where those were left out. ``validation``
    begins with the start's SRCC; ``entropy`` is the least of a step's scores, NaN of a supervised learner;
    ``told`` says that signs of collapse were.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    validation: Sequence[float]
    entropy: float
    told: bool

    @property
    def gain(self) -> float:
        return self.end[0] - self.start[0]

    @property
    def lowest(self) -> float:
        """Return the lowest validation minus the start's."""
        return min(self.validation[1:]) - self.validation[0]

    @property
    def rises(self) -> bool:
        return all(end > start for end, start in zip(self.end, self.start, strict=True))


def train(words: Sequence[str], *, study: str, name: str, seed: int) -> Path:
    """Return the directory of a finished run; its lines are in its own log."""
    directory = FOLDER / study / name / f"seed{seed}"
    where = [f"study={study}", f"name={name}", f"seed={seed}", f"paths.outputs={FOLDER}"]
    with Path(os.devnull).open("w") as silent, contextlib.redirect_stdout(silent):
        if command_line.main(["train", *last_of_each([*where, "tracking=none", *words])]):
            raise SystemExit(f"{directory}: the run failed, see its run.log")
    return directory


def start_of(seed: int) -> Path:
    """Return the run whose first checkpoint is the seed's cold start."""
    words = ["training.threads=1", "training.duration.steps=1", "benchmark=[]"]
    return train(words, study="cold", name="start", seed=seed)


def start_weights(start: Path, *, seed: int, jitter: int) -> Path:
    """Return a folder with the start's weights, with the noise of the jitter on them."""
    kept, folder = start / "checkpoints" / "step_000000", FOLDER / "jitters" / f"seed{seed}-{jitter}"
    if not jitter:
        return kept
    if not folder.is_dir():
        model = read_settings(start / "config.yaml").model
        policy = load_policy(
            str(kept),
            dtype=model.dtype,
            device="cpu",
            min_pixels=model.min_pixels,
            max_pixels=model.max_pixels,
        )
        generator = torch.Generator().manual_seed(stream_seed(seed, "jitter", jitter) % 2**63)
        with torch.no_grad():
            for weight in policy.model.parameters():
                weight.mul_(1 + NOISE * torch.randn(weight.shape, generator=generator))
        part = folder.with_name(f"{folder.name}.part")
        save_policy(policy, part)
        part.rename(folder)
    return folder


def course(start: Path, directory: Path) -> Course:
    """Return what is recorded of a finished trajectory, and of the start that it went on from."""
    rows = read_metrics(directory / "metrics.jsonl")
    validated = [row for row in rows if "validation/srcc" in row.metrics]
    headline = "cold_start/validation/plcc"
    kept = max(
        (row.metrics for row in read_metrics(start / "metrics.jsonl") if headline in row.metrics),
        key=lambda metrics: metrics[headline],
    )
    ends = {
        Moment.BEFORE: _correlations(kept, "cold_start/validation/"),
        Moment.AFTER: _correlations(validated[-1].metrics, "validation/"),
    }
    results = read_results(directory / "results.json").rows
    for moment in ends:
        rows_then = [row for row in results if row.moment is moment and row.readout == READOUT]
        if rows_then:
            ends[moment] = _correlations(summarise(rows_then, min_parsed_fraction=0.0).means)
    return Course(
        start=ends[Moment.BEFORE],
        end=ends[Moment.AFTER],
        validation=[
            _correlations(kept, "cold_start/validation/")[0],
            *(_correlations(row.metrics, "validation/")[0] for row in validated if row.step > SETTLED),
        ],
        entropy=min(
            (
                row.metrics["train/scores/entropy"]
                for row in rows
                if row.step > SETTLED and "train/scores/entropy" in row.metrics
            ),
            default=math.nan,
        ),
        told=any(row.metrics.get(COLLAPSE_SIGNS, 0.0) > 0 for row in rows),
    )


def _correlations(metrics: Mapping[str, float], prefix: str = "") -> tuple[float, float]:
    """SRCC and PLCC; one score for all images orders nothing."""
    srcc, plcc = (metrics[f"{prefix}{name}"] for name in ("srcc", "plcc"))
    return 0.0 if math.isnan(srcc) else srcc, 0.0 if math.isnan(plcc) else plcc


def finished(name: str) -> dict[Trajectory, Course]:
    """Return what is there of a name."""
    found = dict[Trajectory, Course]()
    for directory in (FOLDER / name).glob("threads*-jitter*/seed*"):
        status = read_status(directory / "status.json")
        if status is not None and status.state is RunState.DONE:
            threads, jitter = directory.parent.name.removeprefix("threads").split("-jitter")
            seed = int(directory.name.removeprefix("seed"))
            start = FOLDER / "cold" / "start" / f"seed{seed}"
            found[seed, int(threads), int(jitter)] = course(start, directory)
    return found


def line(trajectory: Trajectory, one: Course) -> str:
    """Return what one trajectory went through."""
    seed, threads, jitter = trajectory
    return (
        f"seed {seed} threads {threads} jitter {jitter}:  SRCC {one.start[0]:.3f} -> {one.end[0]:.3f}"
        f"  PLCC {one.start[1]:.3f} -> {one.end[1]:.3f}"
        f"  validation {one.validation[0]:.3f}, best {max(one.validation[1:]):.3f},"
        f" lowest {min(one.validation[1:]):.3f}  least entropy {one.entropy:.2f}"
        f"{'  told of collapse' if one.told else ''}"
    )


HEAD = (
    f"{'':24} {'n':>3}  {'start':>5}  {'end: median':>11} {'worst':>5} {'best':>5}"
    f"  {'gain: median':>12} {'worst':>6} {'rise':>6}  {'lowest: median':>14} {'worst':>6} {f'>-{DIP}':>6}"
    f"  {'entropy: median':>15} {'worst':>5} {f'>{ENTROPY}':>6}  {'told':>6}"
)


def summary(name: str, found: Mapping[Trajectory, Course]) -> list[str]:
    """Return a line for SRCC, with how many keep each part of the criterion, and one for PLCC."""
    gains, lowest, entropies = ([figure(one) for one in found.values()] for figure in DIFFERENCES.values())
    rise, high, diverse, told = (
        f"{number}/{len(found)}"
        for number in (
            sum(one.rises for one in found.values()),
            sum(value >= -DIP for value in lowest),
            sum(value > ENTROPY for value in entropies),
            sum(one.told for one in found.values()),
        )
    )
    ends = []
    for place in range(2):
        start, end = [one.start[place] for one in found.values()], [one.end[place] for one in found.values()]
        ends.append(f"{median(start):5.3f}  {median(end):11.3f} {min(end):5.3f} {max(end):5.3f}")
    return [
        f"{name:24} {len(found):3}  {ends[0]}  {median(gains):+12.3f} {min(gains):+6.3f} {rise:>6}"
        f"  {median(lowest):+14.3f} {min(lowest):+6.3f} {high:>6}"
        f"  {median(entropies):15.2f} {min(entropies):5.2f} {diverse:>6}  {told:>6}",
        f"{'PLCC':>24} {'':3}  {ends[1]}",
    ]


DIFFERENCES: Mapping[str, Callable[[Course], float]] = {
    "gain": lambda one: one.gain,
    "lowest validation": lambda one: one.lowest,
    "least entropy": lambda one: one.entropy,
}


def difference(found: Mapping[Trajectory, Course], other: Mapping[Trajectory, Course], *, beside: str) -> str:
    """Return mean differences over the trajectories of both, with 95% intervals by Student's t."""
    shared = [trajectory for trajectory in found if trajectory in other]
    if len(shared) < 2:
        return ""
    parts, spread = [], stats.t.ppf(0.975, len(shared) - 1) / math.sqrt(len(shared))
    for what, figure in DIFFERENCES.items():
        differences = [figure(found[trajectory]) - figure(other[trajectory]) for trajectory in shared]
        if any(map(math.isnan, differences)):
            continue
        mean, half = fmean(differences), spread * stdev(differences)
        parts.append(f"{what} {mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]")
    return f"{'':24} {len(shared):3}  beside {beside}: {', '.join(parts)}"


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Runs what is missing, a line for each trajectory, and prints the table of all names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="default")
    parser.add_argument("--seeds", type=_numbers, default=range(10))
    parser.add_argument("--threads", type=_numbers, default=(1, 2))
    parser.add_argument("--jitters", type=_numbers, default=(0,))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--path", action="store_true", help="leave the benchmarks out")
    parser.add_argument("--beside", default="default", help="the name that all others are held against")
    parser.add_argument("--show", action="store_true", help="run nothing")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    asked = parser.parse_args()
    words = [f"training.duration.steps={asked.steps}", "evaluation.bootstrap=0"]
    words += ["~evaluation.readouts.greedy", "~evaluation.readouts.expected"]
    words += [] if asked.steps == STEPS else [f"lr_schedule.until={{steps: {STEPS}, epochs: null}}"]
    words += ["benchmark=[]"] if asked.path else []
    wanted = [] if asked.show else product(asked.jitters, asked.threads, asked.seeds)
    for jitter, threads, seed in wanted:
        start = start_of(seed)
        weights = start_weights(start, seed=seed, jitter=jitter)
        own = ["model=checkpoint", f"model.path={weights}", "cold_start=none", f"training.threads={threads}"]
        name = f"threads{threads}-jitter{jitter}"
        directory = train([*own, *words, *asked.overrides], study=asked.name, name=name, seed=seed)
        print(line((seed, threads, jitter), course(start, directory)), flush=True)
    print(HEAD)
    if asked.beside != "default" and not (FOLDER / asked.beside).is_dir():
        raise SystemExit(f"--beside: there are no runs of {asked.beside!r} in {FOLDER}")
    other = finished(asked.beside)
    for name in sorted({path.parent.parent.name for path in FOLDER.glob("*/threads*-jitter*/seed*")}):
        if found := finished(name):
            print(*summary(name, found), sep="\n")
            if name != asked.beside and (beside := difference(found, other, beside=asked.beside)):
                print(beside)


if __name__ == "__main__":
    main()
