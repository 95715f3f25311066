"""Wall seconds of a run of two threads alone, and beside another one on the same cores.

    python -m tests.bench.busy_neighbour [STEPS]

Once as the command starts it, and once with spinning threads, as OpenMP has them by default. On two cores the
neighbour alone doubles the time. Nothing is asserted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qhk.cli.threads import WAITING

SPINNING = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "infinite", "KMP_BLOCKTIME": "infinite"}
BUSY = "import torch; torch.set_num_threads(2); a = torch.rand(256, 256)\nwhile True: torch.tanh(a @ a)"


def seconds(folder: Path, name: str, steps: int, environment: dict[str, str]) -> float:
    """Return the wall time of a default run of some steps."""
    words = [
        sys.executable,
        "-m",
        "qhk.cli.main",
        "train",
        f"name={name}",
        f"training.duration.steps={steps}",
    ]
    words += ["benchmark=[]", "training.threads=2"]
    began = time.perf_counter()
    subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def main(steps: int) -> None:
    """Print both times and their ratio for waiting and for spinning threads."""
    own = {key: value for key, value in os.environ.items() if key not in {*WAITING, "OMP_NUM_THREADS"}}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        seconds(folder, "warm", 1, own)
        for title, environment in (("as started", own), ("spinning", {**own, **SPINNING})):
            alone = seconds(folder, f"alone_{title[:2]}", steps, environment)
            neighbour = {**own, **(WAITING if title == "as started" else SPINNING)}
            other = subprocess.Popen([sys.executable, "-c", BUSY], env=neighbour)
            try:
                beside = seconds(folder, f"beside_{title[:2]}", steps, environment)
            finally:
                other.kill()
                other.wait()
            print(
                f"{title:<12} alone {alone:6.1f} s   beside {beside:6.1f} s   x{beside / alone:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
