"""A run of each family: everything is on, it resumes bit for bit, and its checkpoints open."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qhk.evaluation.results import read_results
from qhk.policy.load import load_policy, save_policy
from qhk.training.run import Run
from tests.policy.others import OTHERS, build_other
from tests.training.conftest import SMALL, finish, interrupt, prepared_run, small_settings
from tests.training.test_adapter import same
from tests.training.test_run import records, same_weights

pytestmark = pytest.mark.slow

WORDS = (
    "training.duration={steps: 3, epochs: null}",
    "cold_start.steps=8",
    "cold_start.validate_every=8",
    "perception=exact",
    "objective.kl_coef=0.1",
    "training.checkpoint_every=1",
    "training.validate_every=3",
    "loading.validation_limit=3",
    "benchmark={miniature_spaq:{limit:3}}",
)


@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize("model", ["tiny_qwen2_vl", "tiny_qwen3_vl", "tiny_qwen3_5", *OTHERS])
def test_a_run_of_a_family_resumes_bit_for_bit(
    tmp_path: Path, miniature_cache: Path, model: str, adapter: str
) -> None:
    base, words = SMALL, [f"model={model}"]
    if model in OTHERS:
        folder = tmp_path / "start"
        save_policy(build_other(model, dtype=torch.float32), folder)
        base = tuple(word for word in SMALL if not word.startswith("model.tiny"))
        words = ["model=hugging_face", f"model.path={folder}", "model.dtype=float32", "optimizer=adamw"]

    def run(name: str) -> Run:
        own = (*WORDS, *words, f"adapter={adapter}")
        return prepared_run(small_settings(tmp_path, miniature_cache, *own, name=name, base=base))

    whole = finish(run("whole"))
    interrupt(run("stopped"), before=2)
    resumed = run("stopped")
    stopped = finish(resumed)
    assert "resuming behind step 2" in resumed.display.lines  # type: ignore[attr-defined]
    assert records(stopped) == records(whole)
    assert (same_weights if adapter == "none" else same)(stopped, whole)
    assert {row.readout for row in read_results(whole / "results.json").rows} >= {"greedy", "expected"}
    last = str(whole / "checkpoints" / "last")
    policy = load_policy(last, dtype="float32", min_pixels=4096, max_pixels=4096, device="cpu")
    assert bool(policy.slow_line) == (model in ("tiny_qwen3_5", *OTHERS))
