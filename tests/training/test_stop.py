"""Signals are noted, once, and only inside the block."""

from __future__ import annotations

import os
import pickle
import signal
import threading

import pytest

from qhk.tracking.status import RunState
from qhk.training.stop import PREEMPTING, RunStopped, StopSignals


@pytest.mark.parametrize("number", [*PREEMPTING, signal.SIGINT])
def test_the_first_signal_counts(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.number is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.number == number
    assert signal.getsignal(number) is before
    assert capfd.readouterr().err.count(f"{number.name}: stopping where the run can go on") == 1


def test_ctrl_c_twice_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_what_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.number is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_takes_no_signals() -> None:
    def enter() -> None:
        with StopSignals():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen: list[object] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.parametrize(
    ("number", "state"), [(signal.SIGINT, RunState.CANCELLED), (signal.SIGUSR2, RunState.PREEMPTED)]
)
def test_one_process_can_tell_another(number: int, state: RunState) -> None:
    stop = pickle.loads(pickle.dumps(RunStopped(number, "checkpointed at step 3")))
    assert stop.state is state
    assert str(stop) == f"stopped by {signal.Signals(number).name}; checkpointed at step 3"
