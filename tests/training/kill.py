"""Kills a real run at chosen moments, as nobody could catch it, and says where the kill landed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qhk.files import read_json_lines
from tests.untimed import untimed, untimed_row
from tests.words import last_of_each

PATIENCE_S = 300.0


def environment() -> dict[str, str]:
    """This process's environment and modules, for a child."""
    modules = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return {**os.environ, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1"}


def launch(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """The real command in a process of its own; what it prints is appended to ``log``."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "qhk.cli.main", "train", *last_of_each(words)],
            env=environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def sections(directory: Path) -> list[str]:
    """The section of every whole row of the record; a row that is being written does not count."""
    return [row["section"] for row in read_json_lines(directory / "metrics.jsonl")]


def _partial(directory: Path) -> list[str]:
    folder = directory / "checkpoints"
    return [entry.name for entry in folder.glob(".*_step_*")] if folder.is_dir() else []


def _predictions(directory: Path, *, before: bool) -> bool:
    zero = directory / "predictions" / "step_000000"
    if before:
        return any(zero.rglob("*.jsonl"))
    return any(path != zero and any(path.rglob("*.jsonl")) for path in zero.parent.glob("step_*"))


MOMENTS: dict[str, tuple[Callable[[Path], bool], float]] = {
    "start": (lambda directory: True, 6.0),
    "cold start": (lambda directory: "cold_start" in sections(directory), 1.0),
    "first checkpoint": (lambda directory: ".partial_step_000000" in _partial(directory), 0.02),
    "evaluation before": (lambda directory: _predictions(directory, before=True), 0.1),
    "training": (lambda directory: "train" in sections(directory), 1.5),
    "checkpoint": (
        lambda directory: any(name != ".partial_step_000000" for name in _partial(directory)),
        0.02,
    ),
    "evaluation after": (lambda directory: _predictions(directory, before=False), 0.2),
}
"""Phase -> how to see from outside that it has begun, and within how many seconds of that to kill."""


def landed(directory: Path) -> str:
    """The phase that a kill interrupted, by what lies in the directory."""
    if _partial(directory):
        return "writing a checkpoint"
    seen = sections(directory)
    if _predictions(directory, before=False):
        return "evaluation after"
    if "train" in seen:
        return "training"
    if _predictions(directory, before=True):
        return "evaluation before"
    return "cold start" if seen else "start"


@dataclass
class Killer:
    """Kills runs of ``words`` in ``directory``; remembers where each kill landed."""

    words: Sequence[str]
    directory: Path
    log: Path
    draw: random.Random

    def kill(self, phase: str) -> str:
        """Where the kill landed: SIGKILL at a random instant of the phase. "" where the run ended before."""
        begun, within_s = MOMENTS[phase]
        process = launch(self.words, self.log)
        deadline = time.monotonic() + PATIENCE_S
        while not begun(self.directory):
            if process.poll() is not None:
                return ""
            assert time.monotonic() < deadline, f"the run never came to: {phase}"
            time.sleep(0.001)
        time.sleep(self.draw.uniform(0.0, within_s))
        process.send_signal(signal.SIGKILL)
        return landed(self.directory) if process.wait() == -signal.SIGKILL else ""

    def finish(self) -> None:
        """Lets the run go on to its end."""
        process = launch(self.words, self.log)
        assert process.wait(PATIENCE_S) == 0, self.log.read_text()


def record(directory: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` one by one, without times, rates and memory."""
    return [untimed(row) for row in read_json_lines(directory / "metrics.jsonl")]


def outcome(directory: Path) -> dict[str, Any]:
    """All that two equal runs agree in, byte for byte where it is a file."""
    checkpoints = directory / "checkpoints"
    results = json.loads((directory / "results.json").read_text())["rows"]
    return {
        "record": record(directory),
        "results": [untimed_row(row) for row in results],
        "weights": {path.parent.name: path.read_bytes() for path in checkpoints.glob("*/model.safetensors")},
        "links": {link.name: os.readlink(link) for link in checkpoints.iterdir() if link.is_symlink()},
        "written": {
            str(path.relative_to(directory)): path.read_bytes()
            for path in [directory / "completions.jsonl", *directory.glob("predictions/**/*.jsonl")]
        },
    }


def leftovers(directory: Path) -> list[str]:
    """What a killed process left and nobody cleared."""
    return [str(path) for path in directory.rglob(".*")]
