"""The planner's memory beside what runs take: one step each, of a random model of five million parameters.

Run it with ``make bench-memory`` or ``python -m tests.bench.memory_plan``. Every cell is a ``qhk train`` of
one step in a process of its own, on miniature pictures read at the size that gives the prompt its length.
Printed are the process's peak (``memory/peak_gib`` of its record), the estimate for answers as long as the
measured mean, and their ratio. Memory on a CPU: nothing here was measured on a GPU.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from qhk.config.catalogue import config_root, read_catalogue
from qhk.config.training import training_settings
from qhk.settings.identity import run_directory
from qhk.tracking.recorder import MetricSection, read_metrics
from qhk.training.memory import memory_plan

MODEL = (
    *("model.tiny.hidden=256", "model.tiny.mlp=768", "model.tiny.heads=8", "model.tiny.kv_heads=2"),
    *(
        "model.tiny.depth=4",
        "model.tiny.vision_depth=4",
        "model.tiny.patch_size=14",
        "model.tiny.whiten=false",
    ),
)
RUN = (
    *("data={miniature_spaq:342}", "loading.limit=8", "loading.validation_limit=2", "loading.workers=0"),
    *("benchmark=[]", "tracking=none", "cold_start=none", "training.threads=1", "training.duration.steps=1"),
    *(
        "training.validate_every=100",
        "lr_schedule.warmup.steps=0",
        "training.validation_readout.num_samples=1",
    ),
)
SIDES = {300: 448, 1200: 960}
"""Prompt tokens, about, and the side in pixels of the picture that gives them."""

CELLS = (
    # prompt, completion limit, group size, perception, checkpointing, prompts together
    (300, 64, 8, "exact", False, 1),
    (300, 64, 8, "none", False, 1),
    (300, 64, 16, "exact", False, 1),
    (300, 64, 8, "exact", True, 1),
    (300, 64, 8, "exact", False, 4),
    (1200, 64, 8, "exact", False, 1),
    (1200, 64, 8, "none", False, 1),
    (1200, 64, 16, "exact", False, 1),
    (1200, 200, 8, "exact", False, 1),
    (1200, 64, 8, "exact", True, 1),
)


def main() -> None:
    """Print a line for each cell, and the spread of the ratios."""
    catalogue, ratios = read_catalogue(config_root()), []
    print(f"{'P':>5} {'C':>4} {'G':>3} perception checkpointing prompts | measured estimated  ratio")
    with TemporaryDirectory() as folder:
        for number, (prompt, limit, group, perception, checkpointing, together) in enumerate(CELLS):
            pixels = SIDES[prompt] ** 2
            words = [
                *MODEL,
                *RUN,
                *(f"name=cell{number}", f"paths.outputs={folder}", f"perception={perception}"),
                *(f"model.min_pixels={pixels}", f"model.max_pixels={pixels}"),
                *(f"rollout.max_new_tokens={limit}", f"rollout.group_size={group}"),
                *(f"training.prompts_per_step={together}", f"training.prompts_per_device={together}"),
                f"model.gradient_checkpointing={str(checkpointing).lower()}",
            ]
            command = [str(Path(sys.executable).with_name("qhk")), "train", *words]
            subprocess.run(command, check=True, capture_output=True)
            (settings,) = training_settings(words, [0], catalogue)
            rows = read_metrics(run_directory(settings) / "metrics.jsonl")
            (step,) = (row.metrics for row in rows if row.section is MetricSection.TRAIN)
            plan = memory_plan(
                settings, answer_tokens=round(step["train/completion/tokens/mean"]), on_cpu=True
            )
            assert plan is not None
            measured, estimated = 1024 * step["memory/peak_gib"], plan.total / 2**20
            ratios.append(estimated / measured)
            print(
                f"{prompt:5d} {limit:4d} {group:3d} {perception:10} {checkpointing!s:13} {together:7d} |"
                f" {measured:4.0f} MiB  {estimated:4.0f} MiB  {ratios[-1]:5.2f}",
                flush=True,
            )
    print(f"ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
