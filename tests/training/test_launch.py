"""Every way a run ends leaves a status that says which, a cause in one line, and a traceback in the log."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qhk.cli.process import INTERRUPTED, PREEMPTED
from qhk.tracking.status import RunState, Status, read_status
from qhk.training.checkpoint import Checkpoints
from tests.conftest import Qhk as Run
from tests.training import ending_reward
from tests.training.ending_reward import PER_STEP, ending_words
from tests.training.kill import outcome
from tests.words import last_of_each


@pytest.fixture
def words(miniature_cache: Path) -> Callable[..., list[str]]:
    """The words of a bare run whose reward ends it in some way, in the second step unless told otherwise."""
    return lambda how, *more, at=PER_STEP + 2: last_of_each(
        [*ending_words(how, at=at, cache=miniature_cache), *more]
    )


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    ending_reward.calls.clear()
    yield
    assert before == {number: signal.getsignal(number) for number in before}, "handlers are given back"


def directory(root: Path) -> Path:
    return root / "outputs" / "default" / "run" / "seed0"


def status_of(root: Path) -> Status:
    status = read_status(directory(root) / "status.json")
    assert status is not None
    return status


@pytest.mark.parametrize(
    ("how", "code", "state"),
    [
        ("SIGTERM", PREEMPTED, RunState.PREEMPTED),
        ("SIGINT", INTERRUPTED, RunState.CANCELLED),
    ],
)
def test_asked_to_stop_it_finishes_the_step_and_checkpoints(
    qhk: Run, tmp_path: Path, words: Callable[..., list[str]], how: str, code: int, state: RunState
) -> None:
    found, _, err = qhk("train", *words(how, "training.checkpoint_every=100"))
    status = status_of(tmp_path)
    assert (found, status.state, status.step, status.total_steps) == (code, state, 2, 4)
    assert status.cause == f"stopped by {how.partition('+')[0]}; checkpointed at step 2 of 4"
    assert err.splitlines()[-1] == f"qhk: {status.cause}; the same command resumes"
    assert Checkpoints(directory(tmp_path) / "checkpoints", keep_every=None, starts=[0]).steps()[-1] == 2
    assert len(ending_reward.calls) == 1 + 2 * PER_STEP
    assert f"{state.value}: {status.cause}" in (directory(tmp_path) / "run.log").read_text()


def test_what_was_preempted_goes_on_as_if_it_had_not(
    qhk: Run, tmp_path: Path, words: Callable[..., list[str]]
) -> None:
    assert qhk("train", *words("SIGTERM"))[0] == PREEMPTED
    assert qhk("train", *words("SIGTERM"))[0] == 0
    assert status_of(tmp_path).state is RunState.DONE
    stopped = outcome(directory(tmp_path))
    directory(tmp_path).rename(tmp_path / "stopped")
    assert qhk("train", *words("SIGTERM"))[0] == 0
    assert outcome(directory(tmp_path)) == stopped


def test_ctrl_c_twice_stops_at_once(qhk: Run, tmp_path: Path, words: Callable[..., list[str]]) -> None:
    assert qhk("train", *words("SIGINT+SIGINT"))[0] == INTERRUPTED
    status = status_of(tmp_path)
    assert (status.state, status.step) == (RunState.CANCELLED, 1)
    assert status.cause.startswith("interrupted; the same command resumes")


@pytest.mark.parametrize(
    ("how", "code", "cause"),
    [
        ("raise", 2, "reward.terms.mine: raised KeyError: 'length' for example {example} of miniature_spaq"),
        ("exit", 2, "reward.terms.mine: raised SystemExit: 0 for example {example} of miniature_spaq"),
        ("not finite", 2, "reward.terms.mine: gave nan for {example}; a reward must be a finite number"),
        (
            "accelerator memory",
            1,
            "out of accelerator memory: reward.terms.mine: raised OutOfMemoryError: CUDA out of memory;",
        ),
        ("memory", 1, "out of memory: "),
    ],
)
def test_a_failure_has_its_cause_in_one_line_and_its_traceback_in_the_log(
    qhk: Run, tmp_path: Path, words: Callable[..., list[str]], how: str, code: int, cause: str
) -> None:
    found, _, err = qhk("train", *words(how))
    status = status_of(tmp_path)
    assert (found, status.state, status.step) == (code, RunState.FAILED, 1)
    assert cause.format(example=ending_reward.calls[-1]) in status.cause
    log = (directory(tmp_path) / "run.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "ending_reward.py" in log or how == "not finite"
    assert f"failed: {status.cause}" in log
    assert "Traceback" not in err and status.cause in err.splitlines()[-1]


def test_what_fails_before_the_directory_is_open_is_told_too(qhk: Run, tmp_path: Path) -> None:
    words = ["data=koniq", "paths.datasets=/nowhere", "name=run"]
    code, _, err = qhk("train", *words)
    status = status_of(tmp_path)
    assert (code, status.state) == (2, RunState.FAILED)
    assert status.cause in err
    assert "Traceback" in (directory(tmp_path) / "run.log").read_text()
    assert qhk("train", *words, "seed=0")[0] == 2


def test_a_run_that_cannot_begin_leaves_anothers_directory_alone(
    qhk: Run, tmp_path: Path, words: Callable[..., list[str]]
) -> None:
    qhk("train", *words("SIGTERM"))
    before = {path: path.read_bytes() for path in directory(tmp_path).iterdir() if path.is_file()}
    assert qhk("train", "data=koniq", "paths.datasets=/nowhere", "name=run")[0] == 2
    assert {path: path.read_bytes() for path in directory(tmp_path).iterdir() if path.is_file()} == before


def test_directories_of_equal_settings_have_their_own_wandb_ids(
    qhk: Run, tmp_path: Path, words: Callable[..., list[str]]
) -> None:
    """The run id says what is computed, the W&B id which directory computed it, resumed or not."""
    ids = []
    for more in ((), (), ("name=other",), ("fresh=true",)):
        ending_reward.calls.clear()
        qhk("train", *words("SIGTERM", *more, at=1))
        folder = (
            directory(tmp_path)
            if "name=other" not in more
            else directory(tmp_path).parents[1] / "other/seed0"
        )
        ids.append(((folder / "run_id").read_text(), (folder / "wandb_id").read_text()))
    assert len({run for run, _ in ids}) == 1
    assert ids[0] == ids[1] and len({wandb for _, wandb in ids}) == 3
    assert all(wandb.startswith(run.strip()) for run, wandb in ids)
