"""What a job would be, without starting it: missing files, and of a training its id, name and directory."""

from __future__ import annotations

import sys

from qhk.data.missing import missing_files
from qhk.settings import Settings, run_directory, run_id
from qhk.tracking.run_directory import known_run_id


def print_dry_run(command: str, settings: Settings) -> int:
    """0, after printing a training's identity, and one warning for every file that a real job would miss."""
    for line in missing_files(settings):
        print(f"warning: {line}", file=sys.stderr)
    if command == "train":
        directory = run_directory(settings)
        print(f"run id     {run_id(settings) if settings.fresh else known_run_id(directory, settings)}")
        print(f"name       {settings.name}")
        print(f"directory  {directory}")
    print("dry run: the settings are valid; nothing was started")
    return 0
