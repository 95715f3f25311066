"""What tests leave out as they compare runs is all that is timed, and nothing else."""

from __future__ import annotations

import re

from qhk.tracking.names import METRICS
from tests.untimed import untimed, untimed_row


def test_times_rates_and_memory_are_left_out_and_nothing_else() -> None:
    meanings = {metric.name: metric.meaning for metric in METRICS}
    timed = {name for name, meaning in meanings.items() if re.search(r"\bseconds?\b|\bmemory\b", meaning)}
    assert len(timed) == 8
    assert untimed(meanings).keys() == meanings.keys() - timed
    figures = {"tokens_per_image": 3.0, "time/seconds_per_image": 0.5}
    row = {"metrics": {"srcc": 0.5}, "figures": figures}
    assert untimed_row(row) == {"metrics": {"srcc": 0.5}, "figures": {"tokens_per_image": 3.0}}
