"""The commands below ``qhk data``: the keys of their own, and the function that runs each."""

from __future__ import annotations

from collections.abc import Sequence

from qhk.cli.command import Command, Job
from qhk.cli.requests import CheckRequest


def start_check(job: Job, positionals: Sequence[str]) -> int:
    """0 where every set is as expected, 2 where one is not."""
    from qhk.cli.data_check import run

    assert isinstance(job.request, CheckRequest)
    return run(job.settings, list(job.overrides), job.request)


DATA_COMMANDS = {
    "data check": Command(
        sentence="Holds sets on disk against what is known of them: counts, ranges, files, duplicates.",
        positionals="",
        recipes=(
            ("a download", "qhk data check benchmark=koniq root=/data/koniq10k"),
            (
                "everything that an experiment reads",
                "qhk data check experiment=q_hawkeye paths.datasets=/data",
            ),
            ("label files alone", "qhk data check benchmark=csiq root=/data/csiq images=skip"),
        ),
        request=CheckRequest,
        start=start_check,
    ),
}
