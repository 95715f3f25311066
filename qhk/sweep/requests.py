"""The settings of the commands below ``qhk sweep``: all that their primary configs hold."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from qhk.settings.base import Count, Node, NumOrZero, Positive, Text
from qhk.settings.inputs import PathsSettings


class SweepRequest(Node):
    """Where sweeps lie: below ``paths.outputs``."""

    paths: PathsSettings

    @property
    def outputs(self) -> Path:
        return Path(self.paths.outputs)


class StatusRequest(SweepRequest):
    """``watch`` shows the table live, every ``interval_s`` seconds, until nothing is active any more."""

    watch: bool
    interval_s: Positive


class RunsRequest(SweepRequest):
    """Which runs of a sweep: of one cell, of one seed; null means all."""

    cell: Text | None
    only_seed: NumOrZero | None

    @property
    def all_runs(self) -> bool:
        return self.cell is None and self.only_seed is None


class ResumeRequest(RunsRequest):
    """``code``: what the sweep was frozen with, or a new copy of the current code."""

    code: Literal["frozen", "current"]


class LogsRequest(RunsRequest):
    """``lines`` of each log's end."""

    lines: Count
