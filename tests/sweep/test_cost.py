"""The estimate of cost agrees with the worked example of a 7B model, and scales as it must."""

from __future__ import annotations

import pytest

from qhk.settings import Settings
from qhk.settings.sweep import MachineSettings
from qhk.sweep.cost import (
    KNOWN,
    completions_flop,
    decode_step_s,
    estimate_run,
    head_flop,
    prefix_flop,
    training_steps,
    vision_flop,
)

H200 = MachineSettings(name="H200", compute_tflop_s=790.0, memory_tb_s=4.3, efficiency=1.0)
PROMPT, TOKENS, PATCHES = 1149, 200, 3996


@pytest.mark.parametrize(
    ("group", "completions", "head"), [(4, 10.8, 0.87), (8, 21.7, 1.74), (16, 43.4, 3.49)]
)
def test_seven_billion_worked_by_hand(group: int, completions: float, head: float) -> None:
    shape = KNOWN["7b"]
    assert shape.text == pytest.approx(6.525e9, rel=1e-3) and shape.head == pytest.approx(0.545e9, rel=1e-3)
    assert vision_flop(shape, PATCHES) / 1e12 == pytest.approx(5.50, rel=0.02)
    assert prefix_flop(shape, PROMPT) / 1e12 == pytest.approx(15.26, rel=1e-3)
    assert completions_flop(shape, PROMPT, group, TOKENS) / 1e12 == pytest.approx(completions, rel=5e-3)
    assert head_flop(shape, group, TOKENS) / 1e12 == pytest.approx(head, rel=5e-3)


def test_decoding_reads_weights_until_there_are_many_rows() -> None:
    shape = KNOWN["7b"]

    def per_group(prompts: int) -> float:
        return decode_step_s(shape, H200, prompts=prompts, prompt=PROMPT, group=8, done=TOKENS / 2) / prompts

    assert shape.kv_bytes == pytest.approx(57.3e3, rel=2e-3)
    assert per_group(1) * TOKENS == pytest.approx(0.663, rel=0.02)
    assert per_group(16) * TOKENS == pytest.approx(0.046, rel=0.1)


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


def test_unknown_weights_have_no_estimate(settings: Settings) -> None:
    model = settings.model.model_copy(update={"tiny": None, "form": "pretrained", "path": "someone/else"})
    assert estimate_run(settings.model_copy(update={"model": model}), H200) is None


def test_epochs_count_images(settings: Settings) -> None:
    duration = settings.training.duration.model_copy(update={"steps": None, "epochs": 2.0})
    training = settings.training.model_copy(update={"duration": duration})
    loading = settings.loading.model_copy(update={"limit": 40})
    assert training_steps(settings.model_copy(update={"training": training, "loading": loading})) == 15
