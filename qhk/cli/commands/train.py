"""``qhk train``: one run, from its settings to its table."""

from __future__ import annotations

from qhk.cli.command import Command, Job
from qhk.cli.process import quiet_libraries


def run(job: Job[None]) -> int:
    """Return 0 once the run is done and its table printed, 1 where training could not go on."""
    quiet_libraries()
    from qhk.training.launch import launch

    return launch(job.settings)


COMMAND = Command(
    sentence="Trains a policy to score image quality by reinforcement; evaluates before and after.",
    recipes=(
        ("the embedded tiny model on miniature sets, minutes on a CPU", "qhk train"),
        ("a named experiment at laptop size", "qhk train experiment=q_hawkeye scale=miniature seed=1"),
        ("check a full-size run without starting it", "qhk train experiment=q_hawkeye dry_run=true"),
    ),
    run=run,
)
