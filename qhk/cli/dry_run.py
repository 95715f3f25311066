"""What a run would be: id, name, directory and missing files, without starting it."""

from __future__ import annotations

import sys

from qhk.data.missing import missing_files
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
