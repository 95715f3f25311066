"""A whole step beside TRL's and the published scheme: CPU seconds by part, peak memory, ratios.

Run it with ``make bench`` or ``python -m tests.bench.step``; ``--quick`` takes one small cell once. Every way
of every cell runs in a process of its own on one thread, all ways in turn, several times over, with the same
random model of five million parameters in float32. A step has one prompt group: reading the picture, the
rollout, the forward passes of policy, reference and degraded picture, backward, AdamW. Every completion is as
long as allowed.

ours          ``perception=exact``: a degraded branch with its gradient, which the others do not have
ours, lean    the same with ``model.branch_checkpointing``: one branch's activations at a time
ours, plain   ``perception=none``
TRL           GRPOTrainer, which keeps all activations here; left out where it is not installed
published     the releases' scheme as a plain oracle: prompt and picture once per completion, logits at every
              position, the degraded picture scored without gradient

Printed are medians over the rounds, and the ratios to TRL (without it, to the published scheme) with their
smallest and largest, each of neighbours in one round. ``vision`` is the tower's forward passes, wherever they
happen. Peak memory is above the loaded model. ``of matmul`` says what share of the time the machine's own
matrix product would need for the work that a step cannot do without (``model.step_flops``). Ratios of a 7B
model differ.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from typing import Any

CELLS = ((300, 64, 8), (300, 64, 16), (1200, 64, 8), (1200, 64, 16), (1200, 200, 8), (1200, 200, 16))
"""P, C, G."""

WAYS = ("ours", "ours, lean", "ours, plain", "TRL", "published")
PARTS = ("read", "rollout", "vision", "forward", "backward", "optimizer", "rest")


def main() -> None:
    """Print the table; with ``--way`` measure one way of one cell for the parent process."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one small cell, once")
    parser.add_argument("--cell", nargs=3, type=int, metavar=("P", "C", "G"), action="append")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="the fastest counts")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--way", choices=(*WAYS, "matmul"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cells = arguments.cell or (CELLS[:1] if arguments.quick else CELLS)
    if arguments.way:
        print(json.dumps(_measure(arguments.way, cells[0], arguments.steps)))
        return
    ways = [way for way in arguments.ways if way != "TRL" or importlib.util.find_spec("trl")]
    if len(ways) < len(arguments.ways):
        print("TRL is not installed: it is left out")
    print(
        f"{'P':>5} {'C':>4} {'G':>3} {'':12} {'total s':>8} {'MiB':>6} |", *(f"{part:>9}" for part in PARTS)
    )
    for cell in cells:
        rounds = [
            {way: _child(way, cell, arguments.steps) for way in (*ways, "matmul")}
            for _ in range(1 if arguments.quick else arguments.rounds)
        ]
        _print_cell(cell, ways, rounds)


def _measure(way: str, cell: Any, steps: int) -> dict[str, Any]:
    # The parent process stays small: what it holds would count in the memory of its children.
    from tests.bench.step.model import Cell
    from tests.bench.step.ways import ideal_seconds, measure

    return ideal_seconds(Cell(*cell)) if way == "matmul" else measure(way, Cell(*cell), steps)


def _child(way: str, cell: Any, steps: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.step", "--way", way, "--steps", str(steps)]
    ran = subprocess.run([*command, "--cell", *map(str, cell)], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{way} at {cell} failed:\n{ran.stderr}")
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return result


def _print_cell(cell: Any, ways: list[str], rounds: list[dict[str, Any]]) -> None:
    peer = "TRL" if "TRL" in ways else ways[-1]
    for way in ways:
        own = [one[way] for one in rounds]
        parts = {part: statistics.median(one["seconds"].get(part, 0.0) for one in own) for part in PARTS}
        total = statistics.median(sum(one["seconds"].values()) for one in own)
        mib = statistics.median(one["mib"] for one in own)
        print(
            f"{cell[0]:5d} {cell[1]:4d} {cell[2]:3d} {way:12} {total:8.2f} {mib:6.0f} |",
            *(f"{parts[part]:9.2f}" for part in PARTS),
        )
    for way in ways:
        if way.startswith("ours") and way != peer:
            time = [sum(one[peer]["seconds"].values()) / sum(one[way]["seconds"].values()) for one in rounds]
            memory = [one[peer]["mib"] / one[way]["mib"] for one in rounds]
            print(f"      {way} against {peer}: time {_spread(time)} x, memory {_spread(memory)} x")
    shares = [one["matmul"][way] / sum(one[way]["seconds"].values()) for one in rounds for way in ways[:1]]
    print(f"      {ways[0]} of matmul: {100 * statistics.median(shares):.0f}%", flush=True)


def _spread(ratios: list[float]) -> str:
    middle = f"{statistics.median(ratios):.1f}"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.1f} to {max(ratios):.1f})"


if __name__ == "__main__":
    main()
