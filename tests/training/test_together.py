"""Two processes train a mixture, and a run of stages, to the weights of one (gloo).

One is started by torchrun, one by accelerate.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from qhk.evaluation.results import read_results
from tests.training.conftest import SMALL
from tests.training.test_stages import SWITCH
from tests.training.test_step import MIXED, Weights, largest_difference, spread_reward

PICKY = "{_target_: tests.training.test_step.picky_reward, weight: 1.0}"
MIXTURE = (
    *MIXED,
    *spread_reward("picky_reward"),
    f"+mixture.degradation.reward.terms.picky={PICKY}",
    "objective.max_resamples=2",
    "objective.entropy_coef=0.01",
    "objective.entropy_scope=answer",
    "uncertainty.history_decay=0.5",
    "rollout.max_new_tokens=40",
)
"""Each task with rewards that leave some groups dull, so that fresh prompts take their places."""

STAGES = (
    *SWITCH,
    *spread_reward(),
    "stages.second.schedules=run",
    "+prompt@stages.second.prompt=score_json_short",
    "+task@stages.second.task=score_json",
    f"+stages.second.reward.terms.picky={PICKY}",
    "objective.kl_coef=0.1",
)
"""A later stage with a reward that compares images, a prompt, and a reference of its own."""


def run(words: tuple[str, ...], name: str, root: Path, cache: Path, *prefix: str, form: str) -> Path:
    command = [*prefix, "-m", "qhk.cli.main", "train", *SMALL, *words, f"name={name}", f"distributed={form}"]
    command += [
        f"paths.outputs={root}",
        f"paths.cache={cache}",
        "model.dtype=float64",
        "perception.gamma=0.1",
    ]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    return root / "default" / name / "seed0"


def weights(directory: Path, step: str) -> Weights:
    return load_file(directory / "checkpoints" / step / "model.safetensors")


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")
ACCELERATE = (
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"),
    *("--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "launcher"), [(MIXTURE, TORCHRUN), (STAGES, ACCELERATE)], ids=["mixture", "stages"]
)
def test_two_processes_equal_one(
    tmp_path: Path, miniature_cache: Path, words: tuple[str, ...], launcher: tuple[str, ...]
) -> None:
    alone = run(words, "alone", tmp_path, miniature_cache, sys.executable, form="single")
    together = run(words, "together", tmp_path, miniature_cache, *launcher, form="ddp")
    one, two = (weights(directory, "last") for directory in (alone, together))
    assert largest_difference(one, weights(alone, "step_000000")) > 1e-4
    assert largest_difference(one, two) < 1e-5
    cells = [
        [(row.benchmark, row.form, row.moment, row.step, row.readout, row.n_parsed) for row in rows]
        for rows in (read_results(directory / "results.json").rows for directory in (alone, together))
    ]
    assert sorted(cells[0]) == sorted(cells[1]) and len({cell[0] for cell in cells[0]}) == 2
