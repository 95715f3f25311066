"""A run is reproducible, resumes bit for bit, and stops in one line where it cannot go on."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from qhk.errors import UserError
from qhk.evaluation.results import Moment, read_results
from qhk.files import json_line, read_json_lines
from qhk.policy.load import load_policy
from qhk.settings.identity import run_directory, run_id
from qhk.settings.root import Settings
from qhk.settings.views import reward_modules
from qhk.tracking import collapse
from qhk.tracking.code import PACKAGE, code_files, read_code_parts
from qhk.tracking.code_store import read_code, stored_code
from qhk.tracking.recorder import MetricRow, MetricSection, read_metrics
from qhk.tracking.status import STATUS_FILE, RunState, read_status, write_status
from qhk.training import collapse as training_collapse
from qhk.training import launch, loop
from qhk.training.checkpoint import Checkpoints
from qhk.training.inputs import plan
from qhk.training.loop import train
from qhk.training.run import Run
from qhk.training.stop import RunFailure
from tests.training.conftest import SMALL, finish, interrupt
from tests.untimed import untimed

pytestmark = pytest.mark.long

Small = Callable[..., Settings]
OpenRun = Callable[[Settings], Run]


@pytest.fixture
def small(taught_small: Small) -> Small:
    return taught_small


def weights(directory: Path, step: str = "last") -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(directory / "checkpoints" / step / "model.safetensors")


def same_weights(first: Path, second: Path) -> bool:
    one, two = weights(first), weights(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def records(directory: Path) -> list[tuple[Any, ...]]:
    """The metrics record without times, rates and memory; NaN made comparable."""
    rows = []
    for row in read_metrics(directory / "metrics.jsonl"):
        kept = {name: "nan" if math.isnan(value) else value for name, value in untimed(row.metrics).items()}
        rows.append((row.step, row.section, kept))
    return rows


def test_one_seed_gives_one_run(small: Small, open_run: OpenRun) -> None:
    """From nothing on."""
    short = ("cold_start.steps=6", "cold_start.validate_every=3", "loading.validation_limit=2")
    short += ("benchmark={miniature_spaq:{limit:2}}",)
    first, second = (finish(open_run(small(*short, name=name, base=SMALL))) for name in ("first", "second"))
    other = finish(open_run(small(*short, seed=1, name="other", base=SMALL)))
    assert records(first) == records(second)
    assert same_weights(first, second)
    assert not same_weights(first, other)


@pytest.mark.parametrize("stop_before", [1, 3])
def test_a_stopped_run_resumes_bit_for_bit(
    finished: Path, small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch, stop_before: int
) -> None:
    whole = finished
    interrupt(open_run(small(name="stopped")), before=stop_before)
    stopped = finish(open_run(small(name="stopped")))
    assert records(stopped) == records(whole)
    assert same_weights(stopped, whole)
    completions = [(path / "completions.jsonl").read_text() for path in (stopped, whole)]
    assert completions[0] == completions[1]


def test_a_run_that_goes_on_by_other_code_says_so(
    finished: Path, small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small(name="mixed")
    directory = run_directory(settings)
    shutil.copytree(finished, directory, symlinks=True)
    status = read_status(directory / STATUS_FILE)
    assert status is not None and len(read_code_parts(directory)) == 1
    copy = stored_code(finished.parents[2], read_code_parts(finished)[0].code)
    assert read_code(copy) == code_files({PACKAGE.name: PACKAGE}, reward_modules(settings))
    write_status(directory / STATUS_FILE, replace(status, state=RunState.PREEMPTED))
    (directory / "run_id").write_text(run_id(settings))
    monkeypatch.setattr(launch, "keep_code", lambda settings: "b" * 64)
    run = open_run(settings)
    finish(run)
    first, last = read_code_parts(directory)
    assert (first.after_step, last.after_step, last.code) == (-1, 4, "b" * 64)
    lines: list[str] = run.display.lines  # type: ignore[attr-defined]
    assert f"WARNING: this run is of more than one code: {first.code[:12]}, behind step 4 {'b' * 12}" in lines


@pytest.mark.parametrize("harmed", [(3, 2), (3, 2, 1, 0)])
def test_a_damaged_checkpoint_is_set_aside_with_a_loud_line(
    finished: Path, small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch, harmed: tuple[int, ...]
) -> None:
    """The one before is used, or the run begins anew; no row of the record is lost, and a gap is told."""

    def opened() -> Run:
        return open_run(small("training.keep_every=1", "training.checkpoint_every=1", name="harmed"))

    interrupt(opened(), before=3)
    run = opened()
    for number in harmed:
        file = run.checkpoints.path(number) / ("model.safetensors" if number == 3 else "training.pt")
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    before = read_json_lines(run.directory.metrics)
    missing = next(row for row in before if (row["step"], row["section"]) == (1, "train"))
    run.directory.metrics.write_text("".join(json_line(row) for row in before if row is not missing))
    finish(run)
    lines: list[str] = run.display.lines  # type: ignore[attr-defined]
    loud = [line for line in lines if line.startswith("WARNING: the checkpoint of step")]
    assert [int(line.split()[5]) for line in loud] == list(harmed)
    assert "(model.safetensors is not what was written)" in loud[0]
    assert (run.checkpoints.folder / "unreadable_step_000003").is_dir()
    gap = f"{run.directory.metrics} has no row for 1 of the 1 train steps before the checkpoint, step 1 first"
    resumed = 0 not in harmed
    assert ("resuming behind step 1" in lines) is resumed
    assert any(gap in line for line in lines) is resumed
    written, whole = records(run.directory.path), records(finished)
    assert [row for row in whole if not resumed or row[:2] != (1, MetricSection.TRAIN)] == written
    assert same_weights(run.directory.path, finished)
    kept = [
        *read_json_lines(run.directory.metrics),
        *read_json_lines(run.directory.path / "metrics.dropped.jsonl"),
    ]
    assert all(row in kept for row in before if row is not missing)


def test_memory_and_replaced_groups_resume_bit_for_bit(
    small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dynamic sampling, the variances of earlier epochs, a KL in the reward and growing twins."""
    options = (
        "objective.max_resamples=2",
        "objective.kl_placement=reward",
        "objective.truncated=mask",
        "uncertainty.history_decay=0.5",
        "twin.strength_schedule.warmup={steps: 3, epochs: null}",
        "loading.limit=10",
        "benchmark={miniature_spaq:{limit:2}}",
    )
    whole = finish(open_run(small(*options, name="whole")))
    interrupt(open_run(small(*options, name="stopped")), before=3)
    stopped = finish(open_run(small(*options, name="stopped")))
    trained = [[row for row in records(path) if row[1] is MetricSection.TRAIN] for path in (stopped, whole)]
    assert trained[0] == trained[1] and len(trained[0]) == 4
    assert same_weights(stopped, whole)
    states = [torch.load(path / "checkpoints" / "last" / "training.pt") for path in (stopped, whole)]
    assert states[0]["history"] == states[1]["history"] and states[0]["history"]


def test_results_hold_before_and_after(finished: Path) -> None:
    rows = read_results(finished / "results.json").rows
    cells = {(row.benchmark, row.moment, row.readout, row.step) for row in rows}
    assert cells == {
        ("miniature_spaq", moment, readout, step)
        for moment, step in ((Moment.BEFORE, 0), (Moment.AFTER, 4))
        for readout in ("mean_of_8", "greedy", "expected")
    }
    assert all(row.miniature and row.n == 6 for row in rows)
    predictions = finished / "predictions" / "step_000004" / "mean_of_8" / "miniature_spaq.jsonl"
    assert len(predictions.read_text().splitlines()) == 6


def test_a_run_without_benchmarks_or_validation_finishes(
    small: Small, open_run: OpenRun, base: tuple[str, ...]
) -> None:
    bare = [word for word in base if not word.startswith("benchmark")]
    run = open_run(small("benchmark=[]", "loading.validation_fraction=0", base=bare))
    directory = finish(run)
    results = read_results(directory / "results.json")
    assert results.rows == () and results.wall_times["training"] > 0
    sections = {row.section for row in read_metrics(directory / "metrics.jsonl")}
    assert sections == {MetricSection.COLD_START, MetricSection.TRAIN}
    checkpoints = directory / "checkpoints"
    assert (checkpoints / "best").resolve() == (checkpoints / "last").resolve() == checkpoints / "step_000004"
    assert "kept step 1 of 1 (no validation part)" in " ".join(run.display.lines)  # type: ignore[attr-defined]


def test_every_step_is_recorded_once(finished: Path) -> None:
    rows = read_metrics(finished / "metrics.jsonl")
    steps = {section: [row.step for row in rows if row.section is section] for section in MetricSection}
    assert steps[MetricSection.COLD_START] == [1]
    assert steps[MetricSection.TRAIN] == [1, 2, 3, 4]
    assert steps[MetricSection.VALIDATION] == [2, 4]
    assert steps[MetricSection.EVAL] == [0, 4]


def test_sampling_and_training_agree_on_log_probabilities(finished: Path) -> None:
    rows = read_metrics(finished / "metrics.jsonl")
    gaps = [row.metrics["train/policy/logprob_gap/max"] for row in rows if row.section is MetricSection.TRAIN]
    assert len(gaps) == 4 and max(gaps) < 1e-4


def test_checkpoints_keep_start_last_and_best(small: Small, open_run: OpenRun) -> None:
    directory = finish(open_run(small("training.checkpoint_every=1", "training.validate_every=1")))
    rows = read_metrics(directory / "metrics.jsonl")
    srcc = {
        row.step: row.metrics["validation/srcc"] for row in rows if row.section is MetricSection.VALIDATION
    }
    best = max(srcc, key=lambda step: (srcc[step], -step))
    kept = {path.name for path in (directory / "checkpoints").glob("step_*")}
    assert kept == {"step_000000", "step_000004", f"step_{best:06d}"}
    assert (directory / "checkpoints" / "last").resolve().name == "step_000004"
    assert (directory / "checkpoints" / "best").resolve().name == f"step_{best:06d}"


def test_small_runs_have_answers_to_learn_from(finished: Path) -> None:
    """What the tests of reproducibility and resuming rest on: rewards differ and answers can be read."""
    rows = [
        row.metrics for row in read_metrics(finished / "metrics.jsonl") if row.section is MetricSection.TRAIN
    ]
    assert min(row["train/parse/failed_frac"] for row in rows) < 0.5
    assert min(row["train/group/equal_reward_frac"] for row in rows) < 1.0
    assert max(row["train/optimizer/grad_norm"] for row in rows) > 0.01
    results = read_results(finished / "results.json").rows
    assert all(row.n_parsed > 0 and not math.isnan(row.metrics["mae"].value) for row in results)


def test_a_resumed_run_without_cold_start_keeps_its_reference(
    small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights have no other source than the run itself."""
    bare = (
        "cold_start=none",
        "cold_start.steps=0",
        "objective.kl_coef=0.5",
        "benchmark={miniature_spaq:{limit:2}}",
    )
    base = [word for word in SMALL if not word.startswith("cold_start")]
    whole = finish(open_run(small(*bare, name="whole", base=base)))
    interrupt(open_run(small(*bare, name="stopped", base=base)), before=3)
    stopped = finish(open_run(small(*bare, name="stopped", base=base)))
    assert records(stopped) == records(whole)


def test_a_checkpoint_loads_with_plain_transformers(finished: Path) -> None:
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from qhk.policy.patches import project_patches
    from tests.conftest import picture

    folder = finished / "checkpoints" / "last"
    ours = load_policy(str(folder), dtype="float32", min_pixels=4096, max_pixels=4096, device="cpu")
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How good is it?"}]}]
    prompt = ours.encoder.encode(messages, [picture(64, 64)])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pixels = Qwen2VLImageProcessorPil.from_pretrained(folder)(images=[picture(64, 64)], return_tensors="pt")
    assert torch.equal(pixels["pixel_values"], prompt.pixel_values)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    tokens = text.replace("<|image_pad|>", "<|image_pad|>" * 16)
    assert tokenizer(tokens)["input_ids"] == prompt.input_ids.tolist()
    plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    inputs = {
        "input_ids": prompt.input_ids[None],
        "attention_mask": torch.ones_like(prompt.input_ids)[None],
        "mm_token_type_ids": prompt.is_image.long()[None],
        "pixel_values": prompt.pixel_values,
        "image_grid_thw": prompt.image_grid_thw,
    }
    with torch.no_grad():
        stock, wanted = plain(**inputs).logits, ours.model(**inputs).logits
        project_patches(plain.model.visual)
        assert torch.equal(plain(**inputs).logits, wanted)
    torch.testing.assert_close(stock, wanted, rtol=0, atol=1e-4)
    names = [json.loads((folder / name).read_text()) for name in ("config.json", "preprocessor_config.json")]
    assert names[0]["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    assert names[1]["image_processor_type"] == "Qwen2VLImageProcessor"
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["top_k"] == 0 and generation["temperature"] == 1.0


def test_pixel_limits_given_at_load_win_over_the_checkpoints_own(finished: Path) -> None:
    from tests.conftest import picture

    folder = finished / "checkpoints" / "last"
    loaded = load_policy(str(folder), dtype="float32", min_pixels=256, max_pixels=1024, device="cpu")
    grid = loaded.image_processor(images=[picture(64, 64)], return_tensors="pt")["image_grid_thw"]
    assert grid.tolist() == [[1, 4, 4]]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (("contents.json",), r"model\.path: .* could not be loaded \("),
        ((), r"is damaged \(model\.safetensors is not what was written\); put the file back"),
    ],
)
def test_damaged_weights_are_refused_in_one_line(
    finished: Path, tmp_path: Path, harm: tuple[str, ...], reason: str
) -> None:
    """By the list of a checkpoint of ours, and by whatever a library says of a folder without one."""
    folder = shutil.copytree(finished / "checkpoints" / "last", tmp_path / "copy")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[2 if harm else -1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    for name in harm:
        (folder / name).unlink()
    with pytest.raises(UserError, match=reason) as caught:
        load_policy(str(folder), dtype="float32", min_pixels=256, max_pixels=1024, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_finite_stops_the_run(
    small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(small())
    step = loop._take_step

    def poisoned(run: Run, learner: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs["step"] == 2:
            with torch.no_grad():
                learner.policy.model.model.language_model.norm.weight[0] = math.nan
        return step(run, learner, *args, **kwargs)

    monkeypatch.setattr(loop, "_take_step", poisoned)
    with run.directory, pytest.raises(RunFailure, match=r"step 3: loss term policy is nan; .*step_000002"):
        train(run)
    assert all(torch.isfinite(value).all() for value in weights(run.directory.path).values())


@pytest.mark.parametrize("on_collapse", ["warn", "stop"])
def test_a_policy_that_no_longer_sees_its_pictures_is_told(
    small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch, on_collapse: str
) -> None:
    """After two steps it gives every picture one score; so few images need a less careful bound."""
    every_step = ("training.duration.steps=4", "training.validate_every=1")
    run = open_run(small(f"training.on_collapse={on_collapse}", *every_step))
    step = loop._take_step

    def blinded(run: Run, learner: Any, *args: Any, **kwargs: Any) -> Any:
        done = step(run, learner, *args, **kwargs)
        if kwargs["step"] == 1:
            with torch.no_grad():
                for weight in learner.policy.model.model.visual.merger.parameters():
                    weight.zero_()
        return done

    monkeypatch.setattr(loop, "_take_step", blinded)
    monkeypatch.setattr(collapse, "FALLEN_ERRORS", 0.5)
    said = r"signs of collapse: validation/srcc -?0\.\d{3}, 0\.\d{3} at the start"
    if on_collapse == "stop":
        with run.directory, pytest.raises(RunFailure, match=rf"step 2: {said}; .*/best is the best"):
            train(run)
        assert run.checkpoints.steps()[-1] == 2
    else:
        with run.directory:
            train(run)
            run.directory.end(RunState.DONE, cause="")
        told = [line for line in run.display.lines if "signs of collapse" in line]  # type: ignore[attr-defined]
        assert len(told) == 1 and re.match(rf"WARNING: step 2: {said} \(", told[0])
    status = read_status(run.directory.path / STATUS_FILE)
    assert status is not None and re.match(said, status.warning)


def test_signs_are_looked_for_without_a_validation_part(
    small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rewards of the steps are there, and those of every group are equal from the third step on."""
    words = ("loading.validation_fraction=0", "benchmark=[]", "training.validate_every=1")
    run = open_run(small(*words, "training.on_collapse=stop"))
    step = loop._take_step

    def equal(run: Run, *args: Any, **kwargs: Any) -> Any:
        metrics, batch = step(run, *args, **kwargs)
        return {**metrics, "train/group/equal_reward_frac": float(kwargs["step"] > 1)}, batch

    monkeypatch.setattr(loop, "_take_step", equal)
    monkeypatch.setattr(collapse, "WINDOW", 2)
    said = "signs of collapse: 100% of the groups have equal rewards, 0% at the start"
    with run.directory, pytest.raises(RunFailure, match=f"step 4: {said}; no validation chose"):
        train(run)
    status = read_status(run.directory.path / STATUS_FILE)
    assert status is not None and status.warning == said


def test_a_collapsed_run_goes_back_and_on_with_smaller_steps(
    small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its third step blinds it; the fourth goes on from the best weights before that, also behind a kill."""
    words = ("training.on_collapse=rollback", "training.rollback_lr_factor=0.25", "benchmark=[]")
    words += ("training.validate_every=1",)
    step = loop._take_step

    def blinded(run: Run, learner: Any, *args: Any, **kwargs: Any) -> Any:
        done = step(run, learner, *args, **kwargs)
        if kwargs["step"] == 2:
            with torch.no_grad():
                for weight in learner.policy.model.model.visual.merger.parameters():
                    weight.zero_()
        return done

    judged: list[set[int]] = []

    def signs(rows: Sequence[MetricRow], **_: Any) -> dict[str, str]:
        judged.append({row.step for row in rows if row.section is MetricSection.TRAIN})
        return {"validation": "blind"} if rows and rows[-1].step == 3 else {}

    monkeypatch.setattr(loop, "_take_step", blinded)
    monkeypatch.setattr(training_collapse, "collapse_signs", signs)
    killed = open_run(small(*words))
    interrupt(killed, before=3)
    best = int(killed.best["step"])  # type: ignore[index]
    states = [killed.checkpoints.load_state(n, run_id=killed.directory.run_id) for n in (best, 3)]
    assert best < 3 and states[1].rollbacks == [(3, best)]
    assert str(states[0].optimizer) == str(states[1].optimizer) and states[0].history == states[1].history
    before, after = (weights(killed.directory.path, f"step_00000{n}") for n in (best, 3))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    resumed = open_run(small(*words))
    rows = [
        row for row in read_metrics(finish(resumed) / "metrics.jsonl") if row.section is MetricSection.TRAIN
    ]
    schedule = [resumed.stage.coefficients(number).learning_rate for number in range(4)]
    rates = [row.metrics["train/optimizer/learning_rate"] for row in rows]
    assert rates == [*schedule[:3], 0.25 * schedule[3]] and resumed.rollbacks == [(3, best)]
    assert judged[-2] == {*range(1, best + 1), 4}, (
        "what led to the weights that were left says nothing of these"
    )
    lines: list[str] = killed.display.lines + resumed.display.lines  # type: ignore[attr-defined]
    said = f"rollback 1 of at most 3: the weights of step {best}, 0.25 of the learning rate"
    assert f"step    3  {said}" in lines and "step    4  the signs of collapse are gone" in lines


@pytest.mark.parametrize(
    ("best", "rollbacks", "why"),
    [
        (None, 0, "no validation chose a checkpoint without them"),
        (1.0, 2, r"best is .*training\.max_rollbacks=2 is used up"),
    ],
)
def test_a_run_that_cannot_go_back_ends_at_signs_of_collapse(
    small: Small,
    open_run: OpenRun,
    monkeypatch: pytest.MonkeyPatch,
    best: float | None,
    rollbacks: int,
    why: str,
) -> None:
    run = open_run(small("training.on_collapse=rollback", "training.max_rollbacks=2"))
    run.best, run.rollbacks = None if best is None else {"step": best, "value": 0.5}, [(2, 1)] * rollbacks
    validation = SimpleNamespace(value=0.6, text="", metrics=lambda prefix: {})
    monkeypatch.setattr(loop, "validate_run", lambda *_, **__: validation)
    monkeypatch.setattr(loop, "save_checkpoint", lambda *_, **__: None)
    monkeypatch.setattr(loop, "look_for_collapse", lambda *_, **__: "signs of collapse: narrow")
    with run.directory, pytest.raises(RunFailure, match=f"step 2: signs of collapse: narrow; .*{why}"):
        loop._after_step(run, SimpleNamespace(policy=None), {}, step=2)  # type: ignore[arg-type]
    assert run.best is None or run.best["step"] == best


def test_another_configs_checkpoint_is_refused(finished: Path) -> None:
    checkpoints = Checkpoints(finished / "checkpoints", keep_every=None, starts=[0])
    with pytest.raises(ValueError, match="written by run .* this config is run 000000000000"):
        checkpoints.load_state(4, run_id="000000000000")


def test_the_control_sees_the_examples_that_reinforcement_sees(small: Small, open_run: OpenRun) -> None:
    settings = small("training.learner=supervised", name="control")
    control, usual = open_run(settings), open_run(small(name="usual"))
    per_step = settings.training.prompts_per_step
    for step in range(4):
        plans = [plan(run.data, step, seed=0, prompts_per_step=per_step) for run in (control, usual)]
        assert plans[0].examples == plans[1].examples
    rows = read_results(finish(control) / "results.json").rows
    assert {row.moment for row in rows} == {Moment.BEFORE, Moment.CONTROL}


@pytest.mark.parametrize(("processes", "per_device"), [(3, 1), (2, 4)])
def test_prompts_must_divide_over_processes(small: Small, processes: int, per_device: int) -> None:
    from qhk.training.launch import check_processes

    settings = small(f"training.prompts_per_device={per_device}", name="divide")
    with pytest.raises(
        ValueError, match=rf"prompts_per_step: 4 is not a multiple .*{processes} x {per_device}"
    ):
        check_processes(settings, SimpleNamespace(count=processes, shards=False))  # type: ignore[arg-type]


def test_stock_auto_processor_reads_a_checkpoint(finished: Path) -> None:
    """Where torchvision is installed, which the stock processor needs."""
    pytest.importorskip("torchvision")
    from transformers import AutoProcessor

    from tests.conftest import picture

    folder = finished / "checkpoints" / "last"
    processor = AutoProcessor.from_pretrained(folder)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How good is it?"}]}]
    ours = load_policy(str(folder), dtype="float32", min_pixels=4096, max_pixels=4096, device="cpu")
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[picture(64, 64)], return_tensors="pt")
    assert (
        inputs["input_ids"][0].tolist() == ours.encoder.encode(messages, [picture(64, 64)]).input_ids.tolist()
    )
