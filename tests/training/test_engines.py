"""Two processes that each hold a part of the model train it as one process that holds it whole (gloo)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from qhk.errors import UserError
from qhk.settings.root import Settings
from qhk.training.launch import launch
from tests.training.engines import KILLED, train_watched
from tests.training.kill import environment, outcome, record
from tests.training.test_stages import SWITCH
from tests.training.test_step import Weights, largest_difference, spread_reward

WORDS = (
    *spread_reward("picky_reward"),
    "benchmark={miniature_spaq:{limit:3}}",
    "loading.validation_limit=3",
    "model.dtype=float64",
    "optimizer.lr=1e-3",
    "lr_schedule.warmup.steps=0",
    "training.duration.steps=3",
    "training.prompts_per_device=1",
    "training.keep_every=2",
    "objective.kl_coef=0.1",
    "objective.max_resamples=1",
    "perception.gamma=0.1",
)
"""Several micro-batches with groups of unequal lengths, a reference, a degraded branch, fresh prompts."""

STAGES = (
    *SWITCH,
    *spread_reward(),
    "model.dtype=float64",
    "model.freeze_vision=true",
    "model.gradient_checkpointing=true",
    "training.duration.steps=2",
    "training.prompts_per_device=1",
    "objective.kl_coef=0.1",
)
"""A later stage with a reference of its own; activations computed anew; a tower that does not learn."""

SUPERVISED = (
    "training.learner=supervised",
    "training.duration.steps=1",
    "benchmark=[]",
    "model.dtype=float64",
    "training.prompts_per_device=1",
)
FSDP2 = "distributed=fsdp2"
JOBS = {
    "fsdp2": (None, (*WORDS, FSDP2)),
    "again": ("fsdp2", (*WORDS, FSDP2)),
    "fsdp2_from_alone": ("alone", (*WORDS, FSDP2)),
    "ddp_from_fsdp2": ("fsdp2", (*WORDS, "distributed=ddp")),
    "stages_fsdp2": (None, (*STAGES, FSDP2)),
    "supervised_fsdp2": (None, (*SUPERVISED, FSDP2)),
    "fails": (None, (*SUPERVISED[1:], FSDP2)),
}
"""Name of a run -> the run that it resumes, as a kill left that, and its words."""

RUN = Path("default", "run", "seed0")
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, miniature_cache: Path, base: tuple[str, ...]) -> Path:
    """The folder of all runs: those of two processes one after another in the same two."""
    root = tmp_path_factory.mktemp("engines")
    for name, words in (("alone", WORDS), ("stages_alone", STAGES), ("supervised_alone", SUPERVISED)):
        assert train_watched(root / name, miniature_cache, words, base) == 0
    jobs = root / "jobs.json"
    jobs.write_text(json.dumps([JOBS, str(miniature_cache), base]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    ended = subprocess.run(
        [*torchrun, "-m", "tests.training.engines", str(jobs)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-6000:]
    shutil.copytree(root / "fsdp2" / KILLED, root / "alone_from_fsdp2", symlinks=True)
    assert train_watched(root / "alone_from_fsdp2", miniature_cache, WORDS, base) == 0
    return root


def last(runs: Path, name: str) -> Path:
    return runs / name / RUN / "checkpoints" / "last"


def weights(runs: Path, name: str) -> Weights:
    return load_file(last(runs, name) / "model.safetensors")


def moments(runs: Path, name: str) -> Weights:
    state = torch.load(last(runs, name) / "training.pt", weights_only=True)["optimizer"]["state"]
    return {f"{number}.{key}": value for number, own in state.items() for key, value in own.items()}


@pytest.mark.parametrize("case", ["", "stages_", "supervised_"])
def test_it_learns_as_one_process(runs: Path, case: str) -> None:
    one, two = f"{case}alone", f"{case}fsdp2"
    for ours, theirs in zip(record(runs / one / RUN), record(runs / two / RUN), strict=True):
        assert numbers(ours) == pytest.approx(numbers(theirs), rel=1e-5, abs=1e-7, nan_ok=True)
    for file in sorted((runs / one / "gradients").iterdir()):
        whole, parts = (torch.load(runs / name / "gradients" / file.name) for name in (one, two))
        assert largest_difference(whole, parts) < 1e-6 * max(float(g.abs().max()) for g in whole.values())


def numbers(row: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in row.items() if isinstance(value, float)}


@pytest.mark.parametrize("name", ["fsdp2", "fsdp2_from_alone", "ddp_from_fsdp2", "alone_from_fsdp2"])
def test_its_checkpoints_serve_every_engine_and_number_of_processes(runs: Path, name: str) -> None:
    assert largest_difference(weights(runs, "alone"), load_file(start(runs))) > 1e-3
    assert largest_difference(weights(runs, "alone"), weights(runs, name)) < 1e-6
    assert largest_difference(moments(runs, "alone"), moments(runs, name)) < 1e-6


def start(runs: Path) -> Path:
    return runs / "alone" / RUN / "checkpoints" / "step_000000" / "model.safetensors"


def test_a_killed_run_goes_on_bit_for_bit(runs: Path) -> None:
    undisturbed, resumed = (outcome(runs / name / RUN) for name in ("fsdp2", "again"))
    assert undisturbed == resumed
    assert all("resuming behind step 2" in log(runs, name) for name, (start, _) in JOBS.items() if start)


def log(runs: Path, name: str) -> str:
    return (runs / name / RUN / "run.log").read_text()


def test_a_checkpoint_is_a_model_of_plain_transformers(runs: Path) -> None:
    ours, theirs = last(runs, "alone"), last(runs, "fsdp2")
    assert {file.name for file in ours.iterdir()} == {file.name for file in theirs.iterdir()}
    assert (ours / "config.json").read_text() == (theirs / "config.json").read_text()
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(theirs, dtype=torch.float64)
    held = weights(runs, "fsdp2")
    assert held.keys() == weights(runs, "alone").keys()
    assert all(torch.equal(tensor, held[name]) for name, tensor in model.state_dict().items() if name in held)


def test_a_loss_of_one_process_that_is_not_finite_ends_all(runs: Path) -> None:
    assert "the loss of process 1" in log(runs, "fails")


def test_one_process_has_nothing_to_spread(taught_small: Callable[..., Settings]) -> None:
    with pytest.raises(UserError, match="distributed: fsdp2 .* torchrun .* distributed=single"):
        launch(taught_small(FSDP2))
