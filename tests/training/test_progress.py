"""The line of a logged step."""

from __future__ import annotations

import pytest

from qhk.training import loop
from qhk.training.loop import Pace, duration, progress_line


def test_time_left_is_the_mean_pace_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 130.0])
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(times))
    pace = Pace(first=10, total=40)
    # 30 s for 15 steps, 15 to go
    assert pace.seconds_left(25) == 30.0


def test_the_line_shows_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(first=0, total=300)
    monkeypatch.setattr(pace, "seconds_left", lambda step: 3725.4)
    metrics = {"train/reward/total/mean": 0.51234, "train/loss/total": -0.1, "time/step_s": 3.0}
    line = progress_line(metrics, step=5, pace=pace, validation="SRCC 0.710")
    assert line == "step   5/300  left 1:02:05  loss -0.100  reward 0.512  last validation SRCC 0.710"
    assert "validation" not in progress_line(metrics, step=5, pace=pace, validation="")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (36000, "10:00:00")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
