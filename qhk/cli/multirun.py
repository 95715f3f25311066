"""Several jobs of a command that leaves no run behind, one after the other, each in its own process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def run_each(
    command: str, jobs: Sequence[Sequence[str]], positionals: Sequence[str], config_dirs: Sequence[Path]
) -> int:
    """The worst exit code of the jobs, a killed one counting as 1; one that fails stops no other."""
    worst, folders = 0, [f"--config-dir={folder}" for folder in config_dirs]
    for number, overrides in enumerate(jobs, start=1):
        print(f"[{number}/{len(jobs)}] qhk {command} {' '.join(overrides)}", flush=True)
        words = [sys.executable, "-m", "qhk.cli.main", *command.split(), *folders, *positionals, *overrides]
        code = subprocess.run(words, check=False).returncode
        worst = max(worst, 1 if code < 0 else code)
    return worst
