"""What a run would be: id, name, directory and missing files, without starting it."""

from __future__ import annotations

import sys
from pathlib import Path

from qhk.data.labels import label_problems
from qhk.settings import Settings, run_directory, run_id


def print_dry_run(settings: Settings) -> int:
    """0, after printing the run's identity, and one warning for every file that a real run would miss."""
    for line in missing_files(settings):
        print(f"warning: {line}", file=sys.stderr)
    print(f"run id     {run_id(settings)}")
    print(f"name       {settings.name}")
    print(f"directory  {run_directory(settings)}")
    print("dry run: the settings are valid; nothing was started")
    return 0


def missing_files(settings: Settings) -> list[str]:
    """One line for each file or folder in the settings that is not there, and for what is wrong with label
    files that are; hub ids are not looked up.

    Raises ValueError where a dataset entry is wrong in itself: an unknown adapter, protocol or option.
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
