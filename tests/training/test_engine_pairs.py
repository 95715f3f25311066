"""Every engine beside every other, all weights and an adapter: what they learn, save, resume and export.

Two processes (gloo) against one, all in float32: ZeRO steps in nothing wider.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from qhk.cli.main import main
from tests.training.conftest import SMALL
from tests.training.engines import train_alone, train_together
from tests.training.kill import outcome
from tests.training.test_adapter import LORA
from tests.training.test_engines import RUN, WORDS, last, learns_alike, log, moments
from tests.training.test_stages import SWITCH
from tests.training.test_step import Weights, largest_difference, spread_reward

pytestmark = pytest.mark.slow

NARROW = (*(word for word in WORDS if not word.startswith(("model.dtype", "benchmark"))), "benchmark=[]")
STAGES = (
    *SWITCH,
    *spread_reward(),
    "benchmark=[]",
    "model.freeze_vision=true",
    "model.gradient_checkpointing=true",
    "training.duration.steps=4",
    "training.prompts_per_device=1",
    "objective.kl_coef=0.1",
)
"""A later stage with a reference of its own; activations computed anew; a tower that does not learn."""

SUPERVISED = (
    "training.learner=supervised",
    "training.duration.steps=1",
    "benchmark=[]",
    "training.prompts_per_device=1",
)
ENGINES = ("ddp", "fsdp2", "zero2", "zero3")
SOURCES = ("alone", *ENGINES)
KINDS = {"full": (), "lora": LORA}
CASES = {
    "stages": (STAGES, ENGINES),
    "supervised": (SUPERVISED, ENGINES),
    "staged_lora": ((*STAGES, *LORA), ("ddp", "fsdp2", "zero2")),
}
"""Words, and the engines that have it: a stage's start beside an adapter is refused with ZeRO-3."""

FAMILIES = {
    "qwen2_vl": ("model=tiny_qwen2_vl",),
    "qwen3_vl": ("model=tiny_qwen3_vl",),
    "qwen3_vl_lora": ("model=tiny_qwen3_vl", *LORA),
    "qwen3_5": ("model=tiny_qwen3_5",),
}
"""Words of other families' runs, which begin with a cold start of their own; the last goes the slow way."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, miniature_cache: Path, base: tuple[str, ...]) -> Path:
    pytest.importorskip("deepspeed", reason="needs deepspeed: pip install 'qhk[cuda]'")
    root, here = tmp_path_factory.mktemp("pairs"), (miniature_cache, ())
    narrow = {kind: (*base, *NARROW, *words) for kind, words in KINDS.items()}
    cases = {case: (*base, *words) for case, (words, _) in CASES.items()}
    families = {family: (*SMALL, *NARROW, *words) for family, words in FAMILIES.items()}
    starts = narrow | cases | families
    train_alone(root, {f"{name}_alone": (None, words) for name, words in starts.items()}, *here)
    jobs = {
        f"{name}_{engine}": (None, (*words, f"distributed={engine}"))
        for name, words in starts.items()
        for engine in engines_of(name)
    }
    jobs |= {
        f"{kind}_{engine}_from_{source}": (f"{kind}_{source}", (*words, f"distributed={engine}"))
        for kind, words in narrow.items()
        for engine in ENGINES
        for source in SOURCES
    }
    train_together(root, jobs, *here)
    back = {
        f"{kind}_alone_from_{source}": (f"{kind}_{source}", words)
        for kind, words in narrow.items()
        for source in ENGINES
    }
    train_alone(root, back, *here)
    return root


def engines_of(name: str) -> tuple[str, ...]:
    return CASES[name][1] if name in CASES else ENGINES


def learnt(runs: Path, name: str) -> Weights:
    (file,) = last(runs, name).glob("*model.safetensors")
    return load_file(file)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", [*KINDS, *CASES, *FAMILIES])
def test_it_learns_as_one_process(runs: Path, kind: str, engine: str) -> None:
    if engine not in engines_of(kind):
        pytest.skip("refused")
    learns_alike(runs, f"{kind}_alone", f"{kind}_{engine}", near=1e-4)
    assert largest_difference(learnt(runs, f"{kind}_alone"), learnt(runs, f"{kind}_{engine}")) < 3e-4


@pytest.mark.parametrize("engine", SOURCES)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_engine_resumes_every_other(runs: Path, kind: str, source: str, engine: str) -> None:
    if engine == source == "alone":
        pytest.skip("one process alone: test_run.py")
    whole, resumed = f"{kind}_{engine}", f"{kind}_{engine}_from_{source}"
    assert "resuming behind step 2" in log(runs, resumed)
    if source == engine:
        assert outcome(runs / whole / RUN) == outcome(runs / resumed / RUN)
    assert largest_difference(learnt(runs, whole), learnt(runs, resumed)) < 3e-4
    assert largest_difference(moments(runs, whole), moments(runs, resumed)) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_have_the_same_files(runs: Path, kind: str, engine: str) -> None:
    ours, theirs = last(runs, f"{kind}_alone"), last(runs, f"{kind}_{engine}")
    assert {file.name for file in ours.iterdir()} == {file.name for file in theirs.iterdir()}
    one, two = (learnt(runs, f"{kind}_{each}") for each in ("alone", engine))
    assert {name: tensor.dtype for name, tensor in one.items()} == {n: t.dtype for n, t in two.items()}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_checkpoint_is_a_model_of_plain_transformers(runs: Path, engine: str) -> None:
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(last(runs, f"full_{engine}"))
    held = learnt(runs, f"full_{engine}")
    assert all(torch.equal(tensor, held[name]) for name, tensor in model.state_dict().items() if name in held)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_exports_are_alike(runs: Path, kind: str, engine: str) -> None:
    folders = [runs / "exports" / f"{kind}_{each}_for_{engine}" for each in ("alone", engine)]
    for folder, name in zip(folders, ("alone", engine), strict=True):
        assert main(["export", str(runs / f"{kind}_{name}" / RUN), f"output={folder}"]) == 0
    one, two = (load_file(folder / "model.safetensors") for folder in folders)
    start = load_file(last(runs, f"{kind}_alone").with_name("step_000000") / "model.safetensors")
    assert largest_difference(one, start) > 1e-3
    assert largest_difference(one, two) < 3e-4
