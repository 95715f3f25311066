"""A run that is killed at any moment reaches, bit for bit, what the undisturbed one reaches."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from qhk.tracking.status import RunState, judge_status, read_status
from qhk.training.loop import train
from tests.training.conftest import SMALL, prepared_run, small_settings
from tests.training.kill import Killer, leftovers, outcome

pytestmark = [pytest.mark.long, pytest.mark.slow]

ROUND = ("start", "cold start", "first checkpoint", "evaluation before", "training", "checkpoint")
LATE_ROUND = ("cold start", "training", "checkpoint", "training", "checkpoint", "evaluation after")


def killer(root: Path, cache: Path, *, seed: int, more: Sequence[str] = ()) -> Killer:
    words = [*SMALL, *more, f"paths.outputs={root}", f"paths.cache={cache}", "name=run"]
    directory = root / "default" / "run" / "seed0"
    root.mkdir(parents=True, exist_ok=True)
    return Killer(words=words, directory=directory, log=root / "printed.txt", draw=random.Random(seed))


def assert_same(killed: Path, undisturbed: Path) -> None:
    one, two = outcome(killed), outcome(undisturbed)
    for part in two:
        assert one[part] == two[part], part
    assert not leftovers(killed)
    status = read_status(killed / "status.json")
    assert status is not None and status.state is RunState.DONE


def test_three_kills(tmp_path: Path, miniature_cache: Path) -> None:
    """One in the cold start, one while a checkpoint is written, one in the last evaluation."""
    short = ("cold_start.steps=12", "cold_start.validate_every=6")
    whole = prepared_run(small_settings(tmp_path / "whole", miniature_cache, *short))
    with whole.directory:
        train(whole)
    run = killer(tmp_path, miniature_cache, seed=3, more=short)
    where = [run.kill("cold start")]
    status = read_status(run.directory / "status.json")
    assert status is not None and status.state is RunState.RUNNING
    judged = judge_status(status)
    assert judged.state is RunState.FAILED and "died without a word" in judged.cause
    where += [run.kill(phase) for phase in ("checkpoint", "evaluation after")]
    run.finish()
    assert all(where)
    assert_same(run.directory, whole.directory.path)


def test_thirty_kills(tmp_path: Path, miniature_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five runs of one setting, six kills each, at seeded random instants of every phase."""
    more = ("training.duration.steps=6", "training.checkpoint_every=1", "training.keep_every=2")
    whole = killer(tmp_path / "whole", miniature_cache, seed=0, more=more)
    whole.finish()
    where: Counter[str] = Counter()
    for number in range(5):
        run = killer(tmp_path / f"killed{number}", miniature_cache, seed=number, more=more)
        for phase in ROUND if number % 2 == 0 else LATE_ROUND:
            where[run.kill(phase)] += 1
        run.finish()
        assert_same(run.directory, whole.directory)
    missed = where.pop("", 0)
    with capsys.disabled():
        print(f"\n{where.total()} kills, by what they interrupted: {dict(where)}; {missed} came too late")
    assert where.total() >= 28
    assert where["writing a checkpoint"] >= 5
