"""What the default goes through: the benchmark's figures, and a short form of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qhk.evaluation.results import update_results
from qhk.tracking.names import COLLAPSE_SIGNS
from qhk.tracking.recorder import MetricSection, MetricsRecorder
from qhk.tracking.run_directory import LOG_FILE
from qhk.tracking.status import STATUS_FILE, read_status
from tests.bench import default as bench
from tests.bench.default import Course


def one(
    *, end: float = 0.7, lowest: float = 0.55, entropy: float = 2.0, plcc: float = 0.7, told: bool = False
) -> Course:
    return Course(
        start=(0.6, 0.6), end=(end, plcc), validation=[0.6, lowest, 0.8], entropy=entropy, told=told
    )


def test_a_course_is_read_from_the_records_of_start_and_trajectory(tmp_path: Path) -> None:
    """The start is the step that the cold start kept; what comes up to step 20 is not judged."""
    start, run = tmp_path / "start", tmp_path / "run"
    taught, trained = MetricsRecorder(start / "metrics.jsonl"), MetricsRecorder(run / "metrics.jsonl")
    for step, srcc, plcc in ((35, 0.7, 0.4), (70, 0.5, 0.6), (105, 0.8, 0.5)):
        metrics = {"cold_start/validation/srcc": srcc, "cold_start/validation/plcc": plcc}
        taught.record(step=step, section=MetricSection.COLD_START, metrics=metrics)
    signs = {COLLAPSE_SIGNS: 1.0}
    trained.record(step=40, section=MetricSection.VALIDATION, metrics=signs)
    for step, srcc, entropy in ((20, -0.9, 0.1), (40, float("nan"), 1.25), (60, 0.75, 3.0)):
        trained.record(step=step, section=MetricSection.TRAIN, metrics={"train/scores/entropy": entropy})
        metrics = {"validation/srcc": srcc, "validation/plcc": 0.25}
        trained.record(step=step, section=MetricSection.VALIDATION, metrics=metrics)
    update_results(run / "results.json", seed=0, run_id="0", wall_times={}, rows=[])
    found = bench.course(start, run)
    assert found == Course(
        start=(0.5, 0.6), end=(0.75, 0.25), validation=[0.5, 0.0, 0.75], entropy=1.25, told=True
    )
    assert (found.gain, found.lowest, found.rises) == (0.25, -0.5, False)


def test_the_table_says_medians_worst_and_shares() -> None:
    found = {(seed, 1, 0): course for seed, course in enumerate((
        one(), one(end=0.65, lowest=0.25), one(end=0.8, entropy=1.0), one(plcc=0.5, told=True),
    ))}  # fmt: skip
    srcc, plcc = (line.split() for line in bench.summary("kl", found))
    assert srcc == [
        "kl", "4", "0.600", "0.700", "0.650", "0.800",
        "+0.100", "+0.050", "3/4", "-0.050", "-0.350", "3/4", "2.00", "1.00", "3/4", "1/4",
    ]  # fmt: skip
    assert plcc == ["PLCC", "0.600", "0.700", "0.500", "0.700"]


def test_a_change_is_held_against_the_same_trajectories() -> None:
    """Three differences in gain of 0.1, 0.2 and 0.3: mean 0.2, standard error 0.058, Student's t 4.303."""
    default = {(seed, 1, 0): one(end=0.6) for seed in range(4)}
    change = {(seed, 1, 0): one(end=0.6 + 0.1 * seed) for seed in (1, 2, 3)}
    said = bench.difference(change, default, beside="old")
    assert said.split("3  beside old: ")[1].startswith("gain +0.200 [-0.048, +0.448], lowest validation")
    assert bench.difference({(9, 1, 0): one()}, default, beside="old") == ""


@pytest.mark.slow
def test_the_default_does_not_fall_on_its_way(
    miniature_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seed 0, from its own start and from one that differs by a rounding, past the steps where it used to."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(miniature_cache, tmp_path / bench.FOLDER / "cache", symlinks=True)
    words = ["--seeds", "0", "--threads", "1", "--jitters", "0,1", "--steps", "80", "--path"]
    monkeypatch.setattr("sys.argv", ["default", *words])
    bench.main()
    found = bench.finished("default")
    assert len(found) == 2 and len({course.validation[1] for course in found.values()}) == 2
    assert all(course.lowest >= -bench.DIP and course.entropy > bench.ENTROPY for course in found.values())
    again = capsys.readouterr().out.splitlines()
    bench.main()
    assert capsys.readouterr().out.splitlines() == again


@pytest.mark.slow
def test_a_run_that_collapses_is_told(
    miniature_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve times the learning rate and no KL: within 40 steps nearly every answer is the same."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(miniature_cache, tmp_path / bench.FOLDER / "cache", symlinks=True)
    weights = bench.start_weights(bench.start_of(0), seed=0, jitter=0)
    words = ["model=checkpoint", f"model.path={weights}", "cold_start=none", "training.threads=1"]
    words += ["training.duration.steps=40", "benchmark=[]", "optimizer.lr=5e-3", "strengths.kl_coef=0"]
    directory = bench.train(words, study="collapse", name="fast", seed=0)
    status = read_status(directory / STATUS_FILE)
    assert status is not None and "entropy of the scores" in status.warning
    told = [line for line in (directory / LOG_FILE).read_text().splitlines() if "signs of collapse" in line]
    assert len(told) == 1 and "WARNING: step 40: signs of collapse: " in told[0]
