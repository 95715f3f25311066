"""Small synthetic sets for runs that need no download: eight with scores in the official layouts of the real
ones, and three for other tasks."""

from qhk.data.miniature.build import (
    MARKER,
    SETS,
    ensure_miniature,
    ensure_miniature_set,
    miniature_folder,
    task_folder,
)
from qhk.data.miniature.tasks import TASK_SETS

__all__ = [
    "MARKER",
    "SETS",
    "TASK_SETS",
    "ensure_miniature",
    "ensure_miniature_set",
    "miniature_folder",
    "task_folder",
]
