"""Files that a run would need and that are not there."""

from __future__ import annotations

from pathlib import Path

from qhk.data.labels import label_problems
from qhk.settings.root import Settings


def missing_files(settings: Settings) -> list[str]:
    """Return a line for each file or folder in the settings that is not there, and for each wrong label file.

    Hub ids are not looked up. Raises UserError where a dataset entry is wrong in itself: an unknown adapter,
    protocol or option.
    """
    lines: list[str] = []
    for name, entry in settings.dataset.items():
        lines += label_problems(name, entry, cache=Path(settings.paths.cache))
    path = settings.model.path
    if path is not None and path.startswith((".", "/", "~")) and not Path(path).expanduser().exists():
        lines.append(f"model.path: {path} is not there; give a folder with weights, or a hub id")
    for key, value in (("checkpoint", settings.checkpoint), ("twin.manifest", settings.twin.manifest)):
        if value is not None and not Path(value).expanduser().exists():
            lines.append(f"{key}: {value} is not there")
    return lines
