"""A run with an adapter: one model, shared features, terms that act, checkpoints and exports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import qhk
from qhk.cli.main import main
from qhk.errors import UserError
from qhk.files import read_json
from qhk.policy.adapter import adapter_weights, at_reference
from qhk.policy.load import Policy, load_policy
from qhk.settings.identity import run_id
from qhk.settings.parse import parse_settings, plain_settings
from qhk.settings.root import Settings
from qhk.tracking.validation import validation_line
from qhk.training import begin, forward, loop
from qhk.training.inputs import build_readers, load, plan
from qhk.training.kept import Kept
from qhk.training.optimizer import coefficients
from qhk.training.run import Run
from qhk.training.step import Learner, accumulate, add_advantages, make_micro_batches, reward, sample
from tests.conftest import picture
from tests.training.conftest import SMALL, finish, interrupt, prepared_run, small_settings
from tests.training.test_run import records
from tests.training.test_stages import SWITCH
from tests.training.test_step import Weights, largest_difference, spread_reward

pytestmark = pytest.mark.long

Small = Callable[..., Settings]
OpenRun = Callable[[Settings], Run]
LORA = ("adapter=lora", "adapter.rank=4")


@pytest.fixture
def small(taught_small: Small) -> Small:
    return taught_small


def weights(directory: Path, step: str = "last") -> Weights:
    return load_file(directory / "checkpoints" / step / "adapter_model.safetensors")


def same(first: Path, second: Path) -> bool:
    one, two = weights(first), weights(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory, miniature_cache: Path, base: tuple[str, ...]) -> Path:
    """The directory of one run with an adapter as it is, for tests that only look."""
    root = tmp_path_factory.mktemp("lora")
    return finish(prepared_run(small_settings(root, miniature_cache, *LORA, base=base)))


# --- the settings -----------------------------------------------------------------------------------------


def test_no_adapter_is_the_absence_of_the_key(small: Small) -> None:
    settings = small("adapter=none")
    plain = plain_settings(settings)
    assert plain.pop("adapter") is None
    assert parse_settings(plain) == settings == small()
    assert run_id(parse_settings(plain)) == run_id(settings) != run_id(small("adapter=lora"))


def test_the_learning_rate_of_an_adapter_is_ten_times_the_runs(small: Small, open_run: OpenRun) -> None:
    run = open_run(small())
    run.directory.close()
    rates = [
        coefficients(small(*words), 1, run.horizon).learning_rate
        for words in ((), ("adapter=lora",), ("adapter=lora", "adapter.lr_factor=2.0"))
    ]
    assert rates[1] == pytest.approx(10 * rates[0]) and rates[2] == pytest.approx(2 * rates[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("adapter=lora", "adapter.vision=true", "model.freeze_vision=true"),
            "model.freeze_vision: true would",
        ),
        (("adapter=lora", "adapter.dropout=0.1"), "adapter.dropout: must be 0 with training.learner"),
        (("adapter=qlora",), "qlora needs published weights and no cold start"),
    ],
)
def test_what_does_not_fit_an_adapter_is_refused(small: Small, words: Sequence[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(*words)


# --- the step ---------------------------------------------------------------------------------------------


def learner_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> Learner:
    """What the run's steps work on, its benchmarks left out; where it has a KL, without a second model."""
    monkeypatch.setattr(begin, "report_benchmarks", lambda *args, **kwargs: None)
    learner, _ = begin.begin(run)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in learner.policy.model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return learner


@pytest.fixture
def gradient(
    small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Tensor]]:
    """The gradient of one step, by the name of the parameter, under the given words."""
    counter = iter(range(100))

    def take(*words: str) -> dict[str, Tensor]:
        settings = small(*LORA, "model.dtype=float64", *spread_reward(), *words, name=f"run{next(counter)}")
        run = open_run(settings)
        with run.directory:
            learner = learner_of(run, monkeypatch)
            readers = build_readers(settings, learner.policy)
            batch = load(plan(run.data, 0, seed=0, prompts_per_step=4), readers)
            now = coefficients(settings, 1, run.horizon)
            batch = reward(sample(learner, batch, step=0), terms=learner.terms, processes=learner.processes)
            needs = now.terms.needs()
            model = learner.policy.model
            size = settings.training.prompts_per_device
            parts = make_micro_batches(model, batch, size=size, with_degraded=needs.degraded, kept=Kept(0))
            frozen = settings.adapter is not None and not settings.adapter.vision
            assert frozen == forward.vision_is_frozen(model) == bool(batch.features)
            assert all((part.original.features is not None) == frozen for part in parts)
            references = None
            if needs.reference:
                assert learner.reference is model, "no second model"
                references = [
                    forward.reference_logprobs(learner.reference, part, temperature=1.0, kept=Kept(0))
                    for part in parts
                ]
            batch = add_advantages(
                batch,
                objective=settings.objective,
                uncertainty=settings.uncertainty,
                tasks=learner.tasks,
                alpha=now.alpha,
                divergence=None,
                memory={},
                processes=learner.processes,
            )
            accumulate(learner, batch, parts, [], None, references, now, measure=False)
            found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            assert set(found) == {name for name, p in model.named_parameters() if ".lora_" in name}
        return found

    return take


OFF = ("perception=none", "uncertainty=none", "objective.kl_coef=0")


def test_every_term_moves_the_gradient_of_an_adapter(gradient: Callable[..., dict[str, Tensor]]) -> None:
    plain = gradient(*OFF)
    kl = gradient(*OFF[:2], "objective.kl_coef=0.5")
    perception = gradient("perception=exact", "perception.gamma=0.1", *OFF[1:])
    uncertainty = gradient("perception=none", "uncertainty.alpha=2.0", "objective.kl_coef=0")
    for other in (kl, perception, uncertainty):
        assert largest_difference(plain, other) > 1e-7


EVERYTHING = ("perception=exact", "perception.gamma=0.1", "objective.kl_coef=0.5")


def test_micro_batches_checkpointing_and_head_chunks_change_no_gradient(
    gradient: Callable[..., dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gradient(*EVERYTHING, "training.prompts_per_device=4")
    monkeypatch.setattr(forward, "head_chunk", lambda vocabulary, form: 16)
    parts = gradient(*EVERYTHING, "training.prompts_per_device=1", "model.gradient_checkpointing=true")
    # Two norms of the model compute in float32, and an adapter is multiplied by what they give.
    assert largest_difference(whole, parts) < 1e-6 * max(float(value.abs().max()) for value in whole.values())


def test_an_adapter_of_the_tower_has_features_of_its_own(gradient: Callable[..., dict[str, Tensor]]) -> None:
    found = gradient(*EVERYTHING, "adapter.vision=true", "adapter.merger=true")
    assert any("visual.blocks" in name and bool(value.any()) for name, value in found.items())


# --- the run ----------------------------------------------------------------------------------------------


def test_a_run_has_one_model(
    small: Small, open_run: OpenRun, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a KL, too: nothing is copied or loaded a second time, and the policy holds all parameters."""

    def no_second(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a second model")

    monkeypatch.setattr(begin, "copy", type("copy", (), {"deepcopy": no_second}))
    monkeypatch.setattr(begin, "_start_model", no_second)
    settings = small(*LORA, "objective.kl_coef=0.5")
    run = open_run(settings)
    with run.directory:
        learner = learner_of(run, monkeypatch)
    assert learner.reference is learner.policy.model
    counts = read_json(lora / "parameters.json")
    assert learner.policy.num_parameters == sum(block["total"] for block in counts.values())
    trainable = {block: own["trainable"] for block, own in counts.items()}
    own = sum(value.numel() for value in weights(lora).values())
    assert trainable == {"vision": 0, "merger": 0, "language": own, "head": 0}
    loop._tell_parameters(run, learner)
    line = run.display.lines[-1]  # type: ignore[attr-defined]
    assert line.startswith(f"trainable parameters: {own:,} of {learner.policy.num_parameters:,} (vision 0 of")


def test_a_checkpoint_holds_the_adapter_and_names_its_base(lora: Path) -> None:
    checkpoints = lora / "checkpoints"
    assert (checkpoints / "step_000000" / "model.safetensors").is_file(), "the base, once"
    assert len(list(checkpoints.glob("step_*/model.safetensors"))) == 1
    last = (checkpoints / "last").resolve()
    assert not (last / "model.safetensors").exists() and not (last / "config.json").exists()
    assert read_json(last / "adapter_base.json")["path"] == "../step_000000"
    start = load_file(checkpoints / "step_000000" / "model.safetensors")
    assert start and any(bool(value.any()) for name, value in weights(lora).items() if "lora_B" in name)


@pytest.mark.parametrize("stop_before", [0, 3])
def test_a_stopped_run_resumes_bit_for_bit(
    lora: Path, small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch, stop_before: int
) -> None:
    """Before 0: behind the base alone, the adapter is put on anew. Before 3: behind one of an adapter."""
    interrupt(open_run(small(*LORA, name="stopped")), before=stop_before)
    run = open_run(small(*LORA, name="stopped"))
    stopped = finish(run)
    assert f"resuming behind step {max(0, stop_before - 1)}" in run.display.lines  # type: ignore[attr-defined]
    assert records(stopped) == records(lora) and same(stopped, lora)


def test_a_stage_is_held_against_its_own_start_and_resumes_bit_for_bit(
    small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*LORA, *SWITCH, "objective.kl_coef=0.5", "training.checkpoint_every=1")
    whole = finish(open_run(small(*words, name="whole")))
    kls = {row[0]: row[2].get("train/reference/kl") for row in records(whole) if row[1].value == "train"}
    assert kls[1] == 0.0 and kls[2] > 0.0, "the run's start"
    assert kls[3] == pytest.approx(0.0, abs=1e-9) and kls[4] > 0.0, "the stage's start"
    interrupt(open_run(small(*words, name="stopped")), before=3)
    stopped = finish(open_run(small(*words, name="stopped")))
    assert same(stopped, whole) and records(stopped) == records(whole)


def test_dropout_of_the_control_resumes_bit_for_bit(
    small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*LORA, "training.learner=supervised", "model.gradient_checkpointing=true", "benchmark=[]")
    still = finish(open_run(small(*words, name="still")))
    words += ("adapter.dropout=0.5",)
    whole = finish(open_run(small(*words, name="whole")))
    assert not same(still, whole)
    interrupt(open_run(small(*words, name="stopped")), before=3)
    stopped = finish(open_run(small(*words, name="stopped")))
    assert same(stopped, whole) and records(stopped) == records(whole)


@pytest.fixture
def copied(lora: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be harmed."""
    return shutil.copytree(lora, tmp_path / "copied", symlinks=True)


def test_a_run_whose_base_has_changed_does_not_resume(
    copied: Path, lora: Path, small: Small, open_run: OpenRun
) -> None:
    settings = small(*LORA, name="moved")
    run = open_run(settings)
    with run.directory:
        shutil.copytree(copied / "checkpoints", run.directory.checkpoints, symlinks=True)
        file = run.directory.checkpoints / "step_000000" / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"step_000000: is damaged \(model.safetensors is not what"):
            begin.resume_run(run, 4)
        shutil.rmtree(file.parent)
        with pytest.raises(UserError, match="the weights that its adapter belongs to are gone"):
            begin.resume_run(run, 4)


def test_evaluate_score_and_load_read_an_adapter(
    lora: Path, miniature_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = lora / "checkpoints" / "last"
    (tmp_path / "cache").symlink_to(miniature_cache)
    words = [f"checkpoint={checkpoint}", f"paths.outputs={tmp_path}", f"paths.cache={miniature_cache}"]
    limits = ["benchmark={miniature_spaq:{limit:6}}", "evaluation.bootstrap=10", "training.threads=1"]
    assert main(["evaluate", *words, *limits]) == 0
    (folder,) = (tmp_path / "evaluations").iterdir()
    found, trained = (read_json(path / "results.json")["rows"] for path in (folder, lora))

    def values(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {row["readout"]: row["metrics"]["srcc"]["value"] for row in rows if row["moment"] == "after"}

    assert values(found) == values(trained)
    image = tmp_path / "image.png"
    picture(64, 64).save(image)
    capsys.readouterr()
    assert main(["score", str(image), *words, "format=json", "num_samples=2"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[0])
    assert qhk.load(checkpoint).score(image, num_samples=2).score == row["score"]


def test_no_run_starts_from_an_adapter(lora: Path, small: Small, open_run: OpenRun, capsys: Any) -> None:
    path = lora / "checkpoints" / "last"
    settings = small(f"model.path={path}")
    with pytest.raises(UserError, match="holds an adapter; qhk export .* merges it"):
        finish(open_run(settings))
    assert main(["train", "model=checkpoint", f"model.path={path}", "name=x", "dry_run=true"]) == 2
    assert "holds an adapter" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_the_same_adapter_as_one(tmp_path: Path, miniature_cache: Path) -> None:
    def launch(name: str, *prefix: str, form: str) -> Weights:
        words = [
            *SMALL,
            *LORA,
            *spread_reward(),
            f"paths.outputs={tmp_path}",
            f"paths.cache={miniature_cache}",
        ]
        words += [f"name={name}", f"distributed={form}", "model.dtype=float64", "perception.gamma=0.1"]
        command = [*prefix, "-m", "qhk.cli.main", "train", *words, "objective.kl_coef=0.1"]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
        return weights(tmp_path / "default" / name / "seed0")

    alone = launch("alone", sys.executable, form="single")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")
    together = launch("together", *torchrun, form="ddp")
    assert max(float(value.abs().max()) for name, value in alone.items() if "lora_B" in name) > 1e-4
    assert largest_difference(alone, together) < 1e-5


# --- exports ----------------------------------------------------------------------------------------------


def logits(policy: Policy, model: Any) -> Tensor:
    prompt = policy.encoder.encode(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Rate."}]}],
        [picture(64, 64)],
    )
    with torch.no_grad():
        found: Tensor = model(
            input_ids=prompt.input_ids[None],
            pixel_values=prompt.pixel_values.to(model.dtype),
            image_grid_thw=prompt.image_grid_thw,
            mm_token_type_ids=prompt.is_image.long()[None],
        ).logits
    return found


def exported(folder: Path) -> Any:
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    assert AutoTokenizer.from_pretrained(folder)("Rate.")["input_ids"]
    model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    return model.eval()


def test_an_exported_adapter_is_plain_weights_that_answer_alike(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(lora), f"paths.outputs={out}"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == out / "exports" / "default" / "run" / "seed0" / "step_000004"
    policy = load_policy(
        str(lora / "checkpoints" / "last"), dtype="float32", min_pixels=4096, max_pixels=4096, device="cpu"
    )
    ours = logits(policy, policy.model)
    assert float((logits(policy, exported(folder)) - ours).abs().max()) < 1e-4
    with at_reference(policy.model):
        assert float((logits(policy, policy.model) - ours).abs().max()) > 1e-3
    assert adapter_weights(policy.model), "still an adapter"
    card = (folder / "README.md").read_text()
    rows = read_json(lora / "results.json")["rows"]
    (row,) = (row for row in rows if row["moment"] == "after" and row["readout"] == "greedy")
    srcc = row["metrics"]["srcc"]
    shown = f"{srcc['value']:.3f} [{srcc['low']:.3f}, {srcc['high']:.3f}]"
    for text in (shown, "MINIATURE SYNTHETIC", "lora of rank 4", "## Licence", "## Config", "Rate the image"):
        assert text in card, text
    assert validation_line(lora) and validation_line(lora) in card, "last and best side by side"
    assert str(lora) not in card and "paths:" not in card
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["export", str(lora), f"paths.outputs={out}"]) == 2
    assert "fresh=true renames it" in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in before.items())
    assert main(["export", str(lora), f"paths.outputs={out}", "fresh=true", "dtype=bfloat16"]) == 0
    assert (folder.parent / "step_000004.replaced-1" / "README.md").is_file()
    assert exported(folder).dtype == torch.bfloat16
    assert not list(folder.parent.glob(".*"))


def test_a_run_of_all_weights_is_exported_and_goes_on_from_there(
    finished: Path, small: Small, open_run: OpenRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    assert main(["export", str(finished / "checkpoints" / "best"), f"output={folder}"]) == 0
    model = exported(folder)
    kept = load_file((finished / "checkpoints" / "best").resolve() / "model.safetensors")
    assert all(torch.equal(load_file(folder / "model.safetensors")[name], kept[name]) for name in kept)
    assert model.dtype == torch.float32
    assert qhk.load(folder).settings.prompt == small().prompt


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "nowhere"], "nowhere: is no run with a checkpoint"),
        (["export"], "give at least one RUNS"),
        (["export", "a", "b", "output=c"], "output: c is for one export, got 2"),
        (["export", "a", "dtype=int8"], "dtype: must be one of"),
    ],
)
def test_wrong_exports_are_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1
