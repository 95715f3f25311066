"""Weights & Biases online: rows go out as they come, under the id of the run's directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qhk.errors import UserError
from qhk.tracking.mirror import Ending, MirrorContent, MirrorRun
from qhk.tracking.recorder import MetricRow, MetricSection, read_rows
from qhk.tracking.status import RunState
from qhk.tracking.wandb_run import SETTINGS, History, define_axes, finish, has_account, init_arguments


class OnlineMirror:
    """A live W&B run whose n-th history step is the n-th row of the record.

    So a resumed run continues its curve: rows that W&B has are not sent again, and those that it lacks, since
    a killed process did not come to send them, are sent from the record.
    """

    def __init__(self, run: MirrorRun) -> None:
        """Open the run; raises ``UserError`` where no account is logged in, instead of prompting."""
        import wandb

        if not has_account():
            raise UserError(
                "tracking=online needs an account: run `wandb login`, or use tracking=offline or none"
            )
        arguments = init_arguments(run)
        self._live = wandb.init(
            mode="online", resume="allow", settings=wandb.Settings(**SETTINGS), **arguments
        )
        define_axes(self._live)
        self._metrics = run.metrics
        self._history = History(self._live, known=int(self._live.step))

    def record(self, *, step: int, section: MetricSection, metrics: Mapping[str, float]) -> None:
        """Send a row that the record has as its last one; values that are not finite are left out."""
        if not self._history.sent:
            # The record was cut to where the run goes on from, and this row appended, before this first call.
            self._catch_up(read_rows(self._metrics)[:-1])
        self._history.send(step, section, metrics)

    def close(self, content: MirrorContent, ending: Ending) -> str:
        """Return the run's address, after everything was sent.

        What lies beside the curves is sent of a run that is done: another one goes on under the same id.
        """
        if not self._history.sent:
            self._catch_up(read_rows(self._metrics))
        url: Any = self._live.url
        finish(self._live, content if ending.state is RunState.DONE else MirrorContent(), ending)
        return f"W&B: {url}"

    def _catch_up(self, rows: Sequence[MetricRow]) -> None:
        for row in rows:
            self._history.send(row.step, row.section, row.metrics)
