"""Two processes that each hold a part of the model train it as one process that holds it whole (gloo).

The engines beside each other, with adapters, stages and the supervised control: ``test_engine_pairs.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from qhk.errors import UserError
from qhk.settings.root import Settings
from qhk.training.launch import launch
from tests.training.engines import train_alone, train_together
from tests.training.kill import outcome, record
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

FSDP2 = "distributed=fsdp2"
JOBS = {
    "fsdp2": (None, (*WORDS, FSDP2)),
    "again": ("fsdp2", (*WORDS, FSDP2)),
    "dealt": (None, (*WORDS, "distributed=ddp")),
    "fails": (None, (*WORDS, FSDP2)),
}
RUN = Path("default", "run", "seed0")
pytestmark = [pytest.mark.long, pytest.mark.slow]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, miniature_cache: Path, base: tuple[str, ...]) -> Path:
    """The folder of all runs: those of two processes one after another in the same two."""
    root = tmp_path_factory.mktemp("engines")
    train_alone(root, {"alone": (None, WORDS)}, miniature_cache, base)
    train_together(root, JOBS, miniature_cache, base)
    train_alone(root, {"alone_from_fsdp2": ("fsdp2", WORDS)}, miniature_cache, base)
    return root


def last(runs: Path, name: str) -> Path:
    return runs / name / RUN / "checkpoints" / "last"


def weights(runs: Path, name: str) -> Weights:
    return load_file(last(runs, name) / "model.safetensors")


def moments(runs: Path, name: str) -> Weights:
    state = torch.load(last(runs, name) / "training.pt", weights_only=True)["optimizer"]["state"]
    return {f"{number}.{key}": value for number, own in state.items() for key, value in own.items()}


def test_it_learns_as_one_process(runs: Path) -> None:
    learns_alike(runs, "alone", "fsdp2", near=1e-6)


def test_it_learns_as_one_process_whichever_prompts_it_has(runs: Path) -> None:
    learns_alike(runs, "alone", "dealt", near=1e-6)


def learns_alike(runs: Path, one: str, two: str, *, near: float) -> None:
    for ours, theirs in zip(record(runs / one / RUN), record(runs / two / RUN), strict=True):
        assert numbers(ours) == pytest.approx(numbers(theirs), rel=10 * near, abs=near, nan_ok=True)
    for file in sorted((runs / one / "gradients").iterdir()):
        whole, parts = (torch.load(runs / name / "gradients" / file.name) for name in (one, two))
        assert largest_difference(whole, parts) < near * max(float(g.abs().max()) for g in whole.values())


def numbers(row: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in row.items() if isinstance(value, float)}


@pytest.mark.parametrize("name", ["fsdp2", "alone_from_fsdp2"])
def test_its_checkpoints_serve_another_number_of_processes(runs: Path, name: str) -> None:
    assert largest_difference(weights(runs, "alone"), load_file(start(runs))) > 1e-3
    assert largest_difference(weights(runs, "alone"), weights(runs, name)) < 1e-6
    assert largest_difference(moments(runs, "alone"), moments(runs, name)) < 1e-6


def start(runs: Path) -> Path:
    return runs / "alone" / RUN / "checkpoints" / "step_000000" / "model.safetensors"


def test_a_killed_run_goes_on_bit_for_bit(runs: Path) -> None:
    undisturbed, resumed = (outcome(runs / name / RUN) for name in ("fsdp2", "again"))
    assert undisturbed == resumed
    assert all("resuming behind step 2" in log(runs, name) for name in ("again", "alone_from_fsdp2"))


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


@pytest.mark.parametrize("form", ["zero2", "zero3"])
def test_zero_without_deepspeed_is_one_line(
    form: str, taught_small: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(UserError, match=f"distributed: {form} needs deepspeed; install it with pip install"):
        launch(taught_small(f"distributed={form}"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("distributed=zero2", "model.dtype=float64"),
            "model.dtype: float64 does not go with distributed=zero2",
        ),
        (
            ("distributed=zero3", "adapter=lora", *SWITCH, "stages.second.reference=stage_start"),
            "zero3 cannot keep the start of a stage beside adapter lora",
        ),
        *(
            ((f"distributed={form}", "adapter=qlora"), f"{form} cannot divide the 4-bit weights")
            for form in ("fsdp2", "zero2", "zero3")
        ),
        *(
            ((f"distributed={form}", "optimizer=adamw_8bit"), f"{form} divides moments")
            for form in ("fsdp2", "zero2", "zero3")
        ),
    ],
)
def test_what_does_not_fit_an_engine_is_refused(
    words: Sequence[str], message: str, taught_small: Callable[..., Settings]
) -> None:
    with pytest.raises(UserError, match=message):
        taught_small(*words)
