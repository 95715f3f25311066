"""Wall seconds of a run of two threads alone, and beside another one on the same cores.

    python -m tests.bench.busy_neighbour [STEPS]

Once with threads that sleep while they wait, as the command has them, and once with threads that spin, as
OpenMP has them by default. On two cores the neighbour alone doubles the time. Nothing is asserted.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qhk.cli.process import WAITING

SPINNING = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
"""What the libraries do where nothing is set."""
BUSY = "import torch; torch.set_num_threads(2); a = torch.rand(256, 256)\nwhile True: torch.tanh(a @ a)"


LIMIT_S = 300.0
"""A run that takes longer is stopped: where other work needs the cores, spinning threads hardly get on."""


def seconds(folder: Path, name: str, steps: int, environment: dict[str, str]) -> float:
    """Return the wall time of a default run of some steps, infinity above ``LIMIT_S``."""
    words = [
        sys.executable,
        "-m",
        "qhk.cli.main",
        "train",
        f"name={name}",
        f"training.duration.steps={steps}",
    ]
    words += ["cold_start=none", "benchmark=[]", "training.threads=2"]
    began = time.perf_counter()
    try:
        subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return math.inf
    return time.perf_counter() - began


def main(steps: int) -> None:
    """Print both times and their ratio for waiting and for spinning threads."""
    own = {key: value for key, value in os.environ.items() if key not in {*WAITING, "OMP_NUM_THREADS"}}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        seconds(folder, "warm", 1, own)
        for title, setting in (("waiting", WAITING), ("spinning", SPINNING)):
            environment = {**own, **setting}
            alone = seconds(folder, f"alone_{title}", steps, environment)
            other = subprocess.Popen([sys.executable, "-c", BUSY], env=environment)
            try:
                beside = seconds(folder, f"beside_{title}", steps, environment)
            finally:
                other.kill()
                other.wait()
            print(
                f"{title:<9} alone {alone:6.1f} s   beside {beside:6.1f} s   x{beside / alone:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
