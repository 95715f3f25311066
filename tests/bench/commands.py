"""CPU seconds (user and system, median of some) of common commands, beside an import of torch.

    python -m tests.bench.commands [TIMES]

The time of ``score`` is with a checkpoint of the tiny model that has learned one step. Nothing is asserted.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import picture

QHK = (sys.executable, "-m", "qhk.cli.main")
SHORT = (
    "cold_start=none",
    "training.duration.steps=1",
    "training.prompts_per_step=2",
    "training.prompts_per_device=2",
    "benchmark=[]",
)


def cpu_seconds(words: tuple[str, ...], folder: Path) -> float:
    """Return the user and system time of a program, which must succeed."""
    before = os.times()
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def main(times: int) -> None:
    """Print one line per command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture(64, 64).save(folder / "photo.png")
        subprocess.run((*QHK, "train", "study=bench", "name=short", *SHORT), cwd=folder, check=True)
        checkpoint = "checkpoint=outputs/bench/short/seed0/checkpoints/last"
        commands = {
            "python -c 'import torch'": (sys.executable, "-c", "import torch"),
            "qhk --help": (*QHK, "--help"),
            "qhk train --help": (*QHK, "train", "--help"),
            "qhk train --cfg job": (*QHK, "train", "--cfg", "job"),
            "qhk train dry_run=true": (*QHK, "train", "dry_run=true"),
            "qhk train sweep=modules dry_run=true": (*QHK, "train", "sweep=modules", "dry_run=true"),
            "qhk score IMAGE": (*QHK, "score", "photo.png", checkpoint),
        }
        for title, words in commands.items():
            taken = [cpu_seconds(words, folder) for _ in range(times)]
            print(f"{title:<40}{statistics.median(taken):6.2f} CPU s", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
