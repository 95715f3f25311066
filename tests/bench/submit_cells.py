"""Prints the seconds from the command to thirty runs submitted: ten cells times three seeds, on a real SLURM.

Its one node accepts the jobs and starts none (they ask for processors that another job holds), so that
nothing but the submission is measured.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.slurm.cluster import Cluster, install, some_port

CELLS = 10
WORDS = (
    "train", "sweep=modules", "study=thirty", "experiment=q_hawkeye", "scale=miniature",
    "hydra/launcher=slurm", "hydra.launcher.gpus_per_node=0", "hydra.launcher.mem_gb=1",
    "hydra.launcher.cpus_per_task=4",
)  # fmt: skip


def main() -> int:
    """0, after two lines: the whole command, and the part of it that SLURM took."""
    install()
    folder = Path(tempfile.mkdtemp(prefix="qs", dir="/tmp"))
    cluster = Cluster(folder=folder, port=some_port())
    try:
        cluster.start()
        occupied = subprocess.Popen(["srun", "-c", "4", "sleep", "600"], env=cluster.environment)
        time.sleep(2)
        more = [f"+sweep.cells.lr_{number}=['optimizer.lr={number}e-5']" for number in range(1, CELLS - 5)]
        environment = {**cluster.environment, "PYTHONPATH": str(Path(__file__).parents[2])}
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "qhk.cli.main", *WORDS, *more],
            env=environment, cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        submitted = re.search(r"(\d+) runs submitted in ([\d.]+) s", done.stdout)
        assert submitted is not None, done.stdout
        print(f"{submitted[1]} runs: {seconds:.1f} s from command to submitted")
        print(
            f"of it {submitted[2]} s for announcing the runs and sbatch; the rest composes and freezes them"
        )
        occupied.terminate()
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
