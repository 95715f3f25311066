"""The estimate of cost agrees with the worked example of a 7B model, and scales as it must."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from qhk.policy.shape import KNOWN, model_shape, picture_patches, prompt_tokens
from qhk.settings.base import Duration, Readout
from qhk.settings.measuring import PerturbationSettings
from qhk.settings.root import Settings
from qhk.settings.sweep import MachineSettings
from qhk.sweep import cost
from qhk.sweep.cost import (
    completions_flop,
    decode_step_s,
    estimate_run,
    head_flop,
    kv_bytes,
    prefix_flop,
    step_line,
    training_steps,
    vision_flop,
)
from qhk.sweep.dry_run import cost_lines
from qhk.sweep.table import duration_text
from qhk.tracking.status import RunState
from tests.sweep.builders import planned

H200 = MachineSettings(name="H200", compute_tflop_s=790.0, memory_tb_s=4.3, efficiency=1.0)
PROMPT, TOKENS, PATCHES = 1149, 200, 3996


@pytest.mark.parametrize(
    ("group", "completions", "head"), [(4, 10.8, 0.87), (8, 21.7, 1.74), (16, 43.4, 3.49)]
)
def test_seven_billion_worked_by_hand(group: int, completions: float, head: float) -> None:
    shape = KNOWN["qwen2.5-vl-7b"]
    assert shape.text == pytest.approx(6.525e9, rel=1e-3) and shape.head == pytest.approx(0.545e9, rel=1e-3)
    assert vision_flop(shape, PATCHES) / 1e12 == pytest.approx(5.50, rel=0.02)
    assert prefix_flop(shape, PROMPT) / 1e12 == pytest.approx(15.26, rel=1e-3)
    assert completions_flop(shape, PROMPT, group, TOKENS) / 1e12 == pytest.approx(completions, rel=5e-3)
    assert head_flop(shape, group, TOKENS) / 1e12 == pytest.approx(head, rel=5e-3)


def test_decoding_reads_weights_until_there_are_many_rows() -> None:
    shape = KNOWN["qwen2.5-vl-7b"]

    def per_group(prompts: int) -> float:
        return decode_step_s(shape, H200, prompts=prompts, prompt=PROMPT, group=8, done=TOKENS / 2) / prompts

    assert kv_bytes(shape) == pytest.approx(57.3e3, rel=2e-3)
    assert per_group(1) * TOKENS == pytest.approx(0.663, rel=0.02)
    assert per_group(16) * TOKENS == pytest.approx(0.046, rel=0.1)


def test_a_step_is_told_in_device_seconds(settings: Settings) -> None:
    """The training's share of the whole, by step; of a supervised one, an answer a prompt, none sampled."""
    training = settings.training.model_copy(update={"duration": Duration(steps=10, epochs=None)})
    short = settings.model_copy(update={"training": training})
    hours = estimate_run(short, H200)
    assert hours is not None
    line = step_line(short, H200)
    seconds = f"{360 * hours['training']:.2g}"
    assert line is not None and line.startswith(
        f"time       about {seconds} s of one H200 a step, estimated at 100% of its peaks, with answers of "
    )
    supervised = training.model_copy(update={"learner": "supervised"})
    control = estimate_run(short.model_copy(update={"training": supervised}), H200)
    assert control is not None and 0 < control["training"] < 0.2 * hours["training"]
    rollout = settings.rollout.model_copy(update={"max_new_tokens": 4000})
    assert "s where all are as long as allowed (4000)" in str(
        step_line(settings.model_copy(update={"rollout": rollout}), H200)
    )
    model = settings.model.model_copy(update={"tiny": None, "path": "somebody/else"})
    assert step_line(settings.model_copy(update={"model": model}), H200) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.744, "0.74"), (28.4, "28"), (99.4, "99"), (99.6, "100"), (1234.5, "1234")]
)
def test_seconds_of_a_step_have_two_digits_and_no_power_of_ten(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, seconds: float, text: str
) -> None:
    monkeypatch.setattr(cost, "estimate_run", lambda *_, **__: {"training": seconds / 3600})
    monkeypatch.setattr(cost, "training_steps", lambda *_: 1)
    line = step_line(settings, H200)
    assert line is not None and line.startswith(f"time       about {text} s of one ")


def test_an_estimate_grows_with_steps_groups_and_modules(settings: Settings) -> None:
    def total(**changes: object) -> float:
        found = estimate_run(settings.model_copy(update=changes), H200)
        assert found is not None
        return found["training"]

    duration = settings.training.duration.model_copy(update={"steps": 2 * training_steps(settings)})
    training = settings.training.model_copy(update={"duration": duration})
    assert total(training=training) == pytest.approx(2 * total())
    assert total(perception=settings.perception.model_copy(update={"form": "none"})) < total()
    assert total(rollout=settings.rollout.model_copy(update={"group_size": 16})) > total()


def test_perturbed_copies_cost_as_much_as_other_images(settings: Settings) -> None:
    """Ten of each benchmark's images, in the headline read-out, with eleven copies each."""

    def hours(**changes: object) -> float:
        readouts = {settings.evaluation.headline: settings.evaluation.readouts[settings.evaluation.headline]}
        evaluation = settings.evaluation.model_copy(update={"readouts": readouts})
        found = estimate_run(settings.model_copy(update={"evaluation": evaluation, **changes}), H200)
        assert found is not None
        return found["evaluation"]

    few = {name: one.model_copy(update={"limit": 10}) for name, one in settings.benchmark.items()}
    copies = PerturbationSettings(
        images=40, degradations=["noise", "blur"], corruptions=[], replacements=["grey"]
    )
    assert copies.num_copies == 11
    assert hours(benchmark=few, perturbation=copies) == pytest.approx(12 * hours(benchmark=few))


def test_readouts_of_one_pass_share_prompt_and_answers(settings: Settings) -> None:
    """One prompt and its picture, nine answers decoded together, and the tree of expected scores."""
    limit, images = 100, 10
    readouts = {
        name: Readout(num_samples=number, temperature=temperature, max_new_tokens=limit, score=score)
        for name, number, temperature, score in (
            ("mean", 8, 1.0, "written"),
            ("greedy", 1, 0.0, "written"),
            ("expected", 1, 0.0, "expected"),
        )
    }
    few = {name: one.model_copy(update={"limit": images}) for name, one in settings.benchmark.items()}

    def seconds(*names: str) -> float:
        """Of one picture at one moment."""
        chosen = {"readouts": {name: readouts[name] for name in names}, "headline": names[0]}
        changed = {"evaluation": settings.evaluation.model_copy(update=chosen), "benchmark": few}
        found = estimate_run(settings.model_copy(update=changed), H200)
        assert found is not None
        return found["evaluation"] * 3600 / (2 * images * len(few))

    shape = model_shape(settings.model)
    assert shape is not None
    prompt, peak = prompt_tokens(shape, settings), H200.compute_tflop_s * 1e12
    prefill = vision_flop(shape, picture_patches(shape, settings)) + prefix_flop(shape, prompt)
    together = settings.rollout.decode_batch / 9
    step = decode_step_s(shape, H200, prompts=together, prompt=prompt, group=9, done=limit / 2)
    # 1.0 to 5.0: five digits, a point behind each, ten digits behind four of these and one behind the last.
    assert settings.prompt.answer_decimals == 1
    nodes = 5 + 5 + 41
    tree = completions_flop(shape, prompt, 1, limit + nodes) + head_flop(shape, 1, nodes + 1)
    assert seconds("mean", "greedy") == pytest.approx(prefill / peak + step * limit / together)
    assert seconds("mean", "greedy", "expected") == pytest.approx(seconds("mean", "greedy") + tree / peak)
    assert seconds("expected") == pytest.approx(seconds("greedy") + tree / peak)
    assert seconds("mean") < seconds("mean", "greedy") < seconds("mean") + seconds("greedy")


def test_unknown_weights_have_no_estimate(settings: Settings) -> None:
    model = settings.model.model_copy(update={"tiny": None, "form": "pretrained", "path": "someone/else"})
    assert estimate_run(settings.model_copy(update={"model": model}), H200) is None


def answering(settings: Settings, limit: int) -> Settings:
    """The settings with another limit of the rollout's answers; those of read-outs keep theirs."""
    rollout = settings.rollout.model_copy(update={"max_new_tokens": limit})
    return settings.model_copy(update={"rollout": rollout})


def test_answers_are_as_long_as_assumed_or_as_their_own_limit(settings: Settings) -> None:
    def hours(limit: int, **tokens: float) -> dict[str, float]:
        found = estimate_run(answering(settings, limit), H200, **tokens)
        assert found is not None
        return found

    assert hours(14)["training"] < hours(40)["training"] < hours(200)["training"]
    assert hours(2048) == hours(200)
    assert hours(2048, answer_tokens=math.inf)["training"] > 8 * hours(200)["training"]
    assert hours(14, answer_tokens=math.inf) == hours(14)
    assert hours(14)["evaluation"] == hours(2048)["evaluation"]
    readout = settings.training.validation_readout.model_copy(update={"max_new_tokens": 100})
    training = settings.training.model_copy(update={"validation_readout": readout})
    longer = estimate_run(settings.model_copy(update={"training": training}), H200)
    assert longer is not None and longer["validation"] > 3 * hours(14)["validation"]


def test_the_estimate_says_how_long_answers_are(settings: Settings, tmp_path: Path) -> None:
    runs = [planned(answering(settings, limit), tmp_path, f"of{limit}") for limit in (14, 40, 2048)]
    assert cost_lines(H200, runs[:1])[0].endswith("of one H200, answers of 14 tokens")
    assert cost_lines(H200, runs[:2])[0].endswith("of one H200, answers of 14 to 40 tokens")
    line = cost_lines(H200, runs[2:])[0]
    assert "answers of 200 tokens; " in line and line.endswith("as long as allowed (2048 tokens)")
    assert cost_lines(H200, [replace(runs[0], state=RunState.DONE)]) == ["nothing is left to compute"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "under 1 s"), (40, "40 s"), (720, "12 min"), (12600, "3.5 h"), (181440, "2.1 d"), (1e6, "12 d")]
    + [(31757 * 86400, "87 years"), (1e8, "3.2 years")],
)
def test_durations_have_a_unit_that_fits(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_epochs_count_images(settings: Settings) -> None:
    duration = settings.training.duration.model_copy(update={"steps": None, "epochs": 2.0})
    training = settings.training.model_copy(update={"duration": duration})
    loading = settings.loading.model_copy(update={"limit": 40})
    assert training_steps(settings.model_copy(update={"training": training, "loading": loading})) == 15
