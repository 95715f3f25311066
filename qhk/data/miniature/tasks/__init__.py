"""Three small synthetic sets for the tasks beside scoring, in the layouts that the adapters of rows read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qhk.data.miniature.tasks import comparison, degradation, video

WriteSet = Callable[[Path, int, int, Callable[[int], None]], None]
"""(folder, seed, size, report of how many items are done): writes the whole set."""


@dataclass(frozen=True, kw_only=True)
class TaskSet:
    """A set to be written: its number of items, and the function that writes them."""

    count: int
    write: WriteSet


TASK_SETS: dict[str, TaskSet] = {
    "degradation": TaskSet(count=degradation.COUNT, write=degradation.write),
    "comparison": TaskSet(count=comparison.COUNT, write=comparison.write),
    "video": TaskSet(count=video.COUNT, write=video.write),
}
"""Generated set -> how it is written."""
