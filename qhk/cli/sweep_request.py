"""What the commands below ``qhk sweep`` are asked for: a sweep by its name, and some of its runs."""

from __future__ import annotations

from pathlib import Path

from qhk.settings.base import Node, NumOrZero, Text
from qhk.settings.paths import PathsSettings


class SweepRequest(Node):
    """Where sweeps lie: below ``paths.outputs``."""

    paths: PathsSettings

    def folder(self, name: str) -> Path:
        """Return the folder of a sweep. Raises UserError for a name that there is not."""
        from qhk.sweep.manifest import find_sweep

        return find_sweep(Path(self.paths.outputs), name)


class RunsRequest(SweepRequest):
    """Which runs of a sweep: of one cell, of one seed; null means all."""

    cell: Text | None
    only_seed: NumOrZero | None
