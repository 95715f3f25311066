"""The planner of memory: a 7B model by hand, what each setting adds or saves, and what it says."""

from __future__ import annotations

import re
from functools import cache

import pytest

from qhk.config.catalogue import config_root
from qhk.config.training import training_settings
from qhk.policy.adapter import count_parameters, put_adapter
from qhk.policy.shape import KNOWN, model_shape
from qhk.policy.start import start_policy
from qhk.settings.model import ModelSettings
from qhk.settings.root import Settings
from qhk.training.memory import (
    CHANGES,
    HEAD_BYTES,
    HEAD_CHUNK,
    HEAD_TILE,
    LORA,
    PROCESS,
    SLACK,
    SPREAD,
    MemoryPlan,
    adapter_size,
    fitting_changes,
    head_chunk,
    memory_lines,
    memory_plan,
)
from tests.conftest import repository_catalogue
from tests.words import last_of_each


@cache
def full_size(*words: str) -> Settings:
    """Q-Hawkeye at 7B."""
    (settings,) = training_settings(["experiment=q_hawkeye", *words], [0], repository_catalogue())
    return settings


def planned(*words: str, on_cpu: bool = False) -> MemoryPlan:
    found = memory_plan(full_size(*words), on_cpu=on_cpu)
    assert found is not None
    return found


def test_seven_billion_weights_by_hand() -> None:
    """8.29e9 weights: two bytes each for weights, gradients and reference, eight for the moments."""
    kept = planned().kept
    assert kept["weights"] == pytest.approx(16.58e9, rel=2e-3)
    assert kept["gradients"] == kept["reference"] == kept["weights"]
    assert kept["moments"] == 4 * kept["weights"]


def test_moments_in_8_bits_by_hand() -> None:
    """A byte per weight and moment, and four bytes for each 256 of them. Not where moments are divided."""
    weights = planned().kept["weights"] / 2
    assert planned("optimizer=adamw_8bit").kept["moments"] == weights * 2 * (1 + 4 / 256)
    assert "optimizer=adamw_8bit" in fitting_changes(full_size(), gib=80, answer_tokens=200)
    for form in ("fsdp2", "zero2"):
        spread = full_size(f"distributed={form}")
        assert "optimizer=adamw_8bit" not in fitting_changes(spread, gib=999, answer_tokens=200)


def test_activations_by_hand() -> None:
    """Checkpointing keeps the input of each of 28 layers of width 3584, in two bytes, and one layer."""
    short, long = (
        planned(f"rollout.max_new_tokens={tokens}", "perception=none").update[
            "activations of the language model"
        ]
        for tokens in (100, 200)
    )
    rows = 4 * 100  # more tokens, in four completions
    inputs, norms = 28 * 3584 * 2, 2 * 3584 * (4 + 2 + 4)
    layer = norms + 2 * (5 * 3584 + 4 * 18944) + 2 * 2 * 512
    assert long - short == pytest.approx(1.08 * rows * (inputs + layer))


def test_an_adapter_by_hand() -> None:
    """Rank 16 beside seven matrices in each of 28 layers: 40 million weights in float32, and no reference."""
    widths = 28 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    whole, kept = planned().kept, planned("adapter=lora").kept
    assert kept["weights"] == pytest.approx(whole["weights"] + 16 * widths * 4)
    assert kept["gradients"] == 16 * widths * 4 and kept["moments"] == 16 * widths * 8
    assert "reference" not in kept
    assert "activations of the vision tower" not in planned("adapter=lora").largest
    assert "activations of the vision tower" in planned("adapter=lora", "adapter.vision=true").largest
    assert full_size("adapter=lora").adapter == LORA
    quantised = planned("adapter=qlora").kept["weights"]
    assert 0.3 * whole["weights"] < quantised < 0.5 * whole["weights"]


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("qwen2-vl-2b", 2.21),
        ("qwen2-vl-7b", 8.29),
        ("qwen2.5-vl-3b", 3.75),
        ("qwen2.5-vl-7b", 8.29),
        ("qwen2.5-vl-32b", 33.5),
        ("qwen3-vl-2b", 2.13),
        ("qwen3-vl-4b", 4.44),
        ("qwen3-vl-8b", 8.77),
        ("qwen3-vl-32b", 33.4),
    ],
)
def test_known_sizes_are_those_published(name: str, billions: float) -> None:
    assert KNOWN[name].weights / 1e9 == pytest.approx(billions, rel=2e-3)


@pytest.mark.parametrize("model", ["tiny", "tiny_qwen2_vl", "tiny_qwen3_vl"])
def test_the_size_of_an_adapter_is_that_of_the_real_class(model: str) -> None:
    words = [f"model={model}", "adapter=lora", "adapter.vision=true", "adapter.merger=true"]
    (settings,) = training_settings(words, [0], repository_catalogue())
    shape = model_shape(settings.model)
    assert shape is not None and settings.adapter is not None
    unwhitened = settings.model_copy(update={"model": _unwhitened(settings.model)})
    policy = start_policy(unwhitened, [], stages=[settings], device="cpu")
    # Biases and norms are not counted, of patches two frames are, and the vocabulary is a round number.
    assert shape.weights == pytest.approx(policy.num_parameters, rel=0.05)
    put_adapter(policy.model, settings.adapter, seed=0)
    assert adapter_size(shape, settings.adapter) == sum(
        block["trainable"] for block in count_parameters(policy.model).values()
    )


def _unwhitened(model: ModelSettings) -> ModelSettings:
    assert model.tiny is not None
    return model.model_copy(update={"tiny": model.tiny.model_copy(update={"whiten": False})})


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("objective.kl_coef=0", "reference"),
        ("model.freeze_vision=true", "activations of the vision tower"),
        ("training.learner=supervised", "reference"),
    ],
)
def test_what_is_left_out_takes_nothing(words: str, part: str) -> None:
    assert part in planned().largest and part not in planned(words).largest


def test_more_takes_more() -> None:
    """Each setting moves the update's peak its own way."""

    def update(*words: str) -> float:
        return sum(planned("rollout.max_new_tokens=128", *words).update.values())

    plain = update()
    assert update("model.gradient_checkpointing=false") > 3 * plain
    assert update("perception=none") < 0.7 * plain
    whole = "model.gradient_checkpointing=false"
    one_branch = update(whole, "model.branch_checkpointing=true")
    assert update(whole, "perception=none") < one_branch < 0.6 * update(whole)
    assert update("strengths.group_size=8") > 1.1 * plain  # logits of a wide vocabulary are in chunks
    assert update("training.prompts_per_device=2") > 1.5 * plain
    assert update("model.max_pixels=100352") < plain
    assert planned(on_cpu=True).total == pytest.approx(planned().total + PROCESS)


def test_the_words_decide_how_many_positions_go_through_the_head_together() -> None:
    words = 152_064
    assert head_chunk(2048, "pair") == head_chunk(2048, "single") == HEAD_CHUNK
    assert head_chunk(words, "single") == 384 and 384 * 4 * words * 4 <= HEAD_BYTES < 448 * 4 * words * 4
    assert head_chunk(words, "pair") == 128 and 128 * 12 * words * 4 <= HEAD_BYTES < 192 * 12 * words * 4
    assert head_chunk(10**9, "pair") == HEAD_TILE
    logits = planned("rollout.max_new_tokens=512").update["logits"]
    assert logits == pytest.approx(SLACK * 128 * 12 * words * 4)


def test_a_rollout_may_be_the_peak() -> None:
    """Keys and values of many groups together outweigh one group's activations."""
    many = planned("rollout.decode_batch=4096", "training.prompts_per_step=1024", "perception=none")
    assert "keys and values" in many.largest and "logits" not in many.largest


def test_a_rollout_keeps_the_tower_of_the_update_that_goes_on_from_it() -> None:
    part, one = "activations of the vision tower", ("training.prompts_per_step=1",)
    assert part in planned(*one).rollout and part not in planned().rollout
    for word in ("model.branch_checkpointing=true", "objective.max_resamples=1", "model.freeze_vision=true"):
        assert part not in planned(*one, word).rollout


def test_vllm_beside_the_policy_takes_its_share_of_the_card_while_it_samples() -> None:
    """It holds the weights a second time; asleep it holds nothing, and a server is on other cards."""
    own, asleep, awake, server = (
        memory_plan(full_size(*words), on_cpu=False, card_gib=80)
        for words in (
            [],
            ["rollout=vllm"],
            ["rollout=vllm", "rollout.vllm.sleep=false"],
            ["rollout=vllm_server"],
        )
    )
    assert own is not None and asleep is not None and awake is not None and server is not None
    assert asleep.rollout == {"vllm": pytest.approx(0.4 * 80 * 2**30)}
    assert asleep.kept == server.kept == own.kept and server.rollout == {}
    assert awake.kept == {**own.kept, **asleep.rollout}
    least = planned("rollout=vllm").rollout["vllm"]
    assert least == pytest.approx(own.kept["weights"] + sum(own.rollout.values()))
    settings = full_size("rollout=vllm", "rollout.vllm.gpu_memory_utilization=0.6", "adapter=lora")
    changes = fitting_changes(settings, gib=48, answer_tokens=200)
    assert "rollout.vllm.gpu_memory_utilization=0.25" not in changes, "the weights alone are more than it"
    assert any(
        "gpu_memory_utilization=0.25" in c for c in fitting_changes(settings, gib=141, answer_tokens=200)
    )


def test_the_lines_name_the_largest_part_and_what_helps() -> None:
    lines = memory_lines(full_size(), answer_tokens=200, on_cpu=False)
    assert lines[0].startswith("memory     about 112 GiB a process, estimated, with answers of 200 tokens; ")
    assert lines[1].startswith("           most of it: moments 61.8 GiB, ")
    assert lines[-1] == "           141 GiB: fits"
    assert lines[2].endswith("24 GiB: adapter=lora or adapter=qlora")
    long = memory_lines(full_size("adapter=lora"), answer_tokens=200, on_cpu=False)
    assert long[2].startswith(
        "           24 GiB: fits, but not where all answers are as long as allowed; then with "
    )
    heavy = memory_lines(full_size("model.gradient_checkpointing=false"), answer_tokens=200, on_cpu=False)
    assert heavy[2].endswith("24 GiB: no single change is enough")


def test_a_change_is_named_where_it_is_enough_alone() -> None:
    heavy = full_size("model.gradient_checkpointing=false", "strengths.group_size=16")
    changes = fitting_changes(heavy, gib=141, answer_tokens=200)
    assert "model.gradient_checkpointing=true" in changes and "objective.kl_coef=0" not in changes


@pytest.mark.parametrize("experiment", ["q_insight", "q_hawkeye"])
def test_the_words_of_a_change_do_what_the_plan_takes_them_for(experiment: str) -> None:
    """But for vLLM's, whose words are held above."""
    own = [f"experiment={experiment}", "training.prompts_per_device=2", "rollout.group_size=8"]
    own += ["model.path=Qwen/Qwen2.5-VL-7B-Instruct", "model.gradient_checkpointing=false"]

    def composed(*words: str) -> Settings:
        (settings,) = training_settings(last_of_each([*own, *words]), [0], repository_catalogue())
        return settings

    base = composed()
    changes = [change for change in CHANGES if not change.words.startswith("rollout.vllm")]
    for change in changes:
        written = composed(change.words.removesuffix(f" on {SPREAD} processes"))
        plans = [memory_plan(each, on_cpu=False) for each in (written, change.apply(base), base)]
        assert plans[0] == plans[1], change.words
    assert sum(change.apply(base) != base for change in changes) >= len(changes) - 2


def test_fewer_pictures_and_answers_and_4_bits_are_named_where_they_are_less() -> None:
    """32B holds 27 GiB with 4 bits; neither a cold start nor a division nor vLLM goes with them."""
    huge = ("model.path=Qwen/Qwen2.5-VL-32B-Instruct",)
    assert "adapter=qlora" in fitting_changes(full_size(*huge), gib=40, answer_tokens=200)
    for word in ("cold_start=sft", "distributed=fsdp2", "rollout=vllm"):
        assert "adapter=qlora" not in fitting_changes(full_size(*huge, word), gib=999, answer_tokens=200)
    many = full_size("adapter=lora", "strengths.group_size=16")
    assert "rollout.group_size=4" in fitting_changes(many, gib=40, answer_tokens=None)
    small = full_size("adapter=lora", "strengths.group_size=2", "model.max_pixels=262144")
    less = {"rollout.group_size=4", "model.max_pixels=262144", "rollout.max_new_tokens=256"}
    assert less <= set(fitting_changes(many, gib=999, answer_tokens=None))
    assert less & set(fitting_changes(small, gib=999, answer_tokens=None)) == {"rollout.max_new_tokens=256"}


def test_a_model_of_unknown_size_has_no_plan() -> None:
    settings = full_size("model.path=somebody/else")
    assert memory_plan(settings, on_cpu=False) is None
    assert (
        "the size of somebody/else is not known" in memory_lines(settings, answer_tokens=9, on_cpu=False)[0]
    )


def test_a_model_spread_over_processes_keeps_a_share_and_gathers_the_rest() -> None:
    """A quarter of weights, gradients, moments and reference each; a rollout needs the whole policy."""
    alone, spread = full_size(), full_size("distributed=fsdp2")
    one, four = (memory_plan(each, on_cpu=False, processes=4) for each in (alone, spread))
    assert one is not None and four is not None
    assert {name: size / 4 for name, size in one.kept.items()} == four.kept
    assert four.rollout["gathered weights"] == pytest.approx(one.kept["weights"] * 3 / 4)
    lines = memory_lines(spread, answer_tokens=200, on_cpu=False)
    assert "each of 4 processes" in lines[0] and "adapter=lora" in " ".join(lines)
    assert "distributed=fsdp2 on 4 processes" in fitting_changes(alone, gib=48, answer_tokens=200)
    for adapter, can_be_divided in (("lora", True), ("qlora", False)):
        changes = fitting_changes(full_size(f"adapter={adapter}"), gib=999, answer_tokens=9)
        assert changes and ("distributed=fsdp2 on 4 processes" in changes) == can_be_divided


def test_zero_divides_what_it_says_and_keeps_a_copy_of_the_part_that_it_steps() -> None:
    one, two, three = (
        memory_plan(full_size(f"distributed={form}"), on_cpu=False, processes=4)
        for form in ("ddp", "zero2", "zero3")
    )
    assert one is not None and two is not None and three is not None
    stepped = {"weights that are stepped": one.kept["weights"] / 4}
    divided = {name: size / 4 for name, size in one.kept.items()}
    assert three.kept == divided | stepped
    whole = {name: one.kept[name] for name in ("weights", "reference")}
    assert two.kept == pytest.approx(divided | whole | stepped)
    assert "gathered weights" in three.rollout and "gathered weights" not in two.rollout


README = (config_root() / "experiments" / "README.md").read_text().partition("## What fits a card")[2]
PLANS = re.findall(
    r"^\| `([^`]*(?:group_size|optimizer|distributed|adapter)=[^`]*)`([^|]*)\|(.*)\|$", README, re.M
)


@pytest.mark.parametrize(("words", "more", "cells"), PLANS, ids=[f"{one} {two}" for one, two, _ in PLANS])
def test_the_table_of_plans_says_what_a_dry_run_says(words: str, more: str, cells: str) -> None:
    processes = int(found[0]) if (found := re.findall(r"on (\d) processes", more)) else 1
    for size, cell in zip(("3B", "7B", "32B"), cells.split("|"), strict=True):
        settings = full_size(f"model.path=Qwen/Qwen2.5-VL-{size}-Instruct", *words.split())
        for tokens, written in zip((200, None), cell.split(","), strict=True):
            plan = memory_plan(settings, answer_tokens=tokens, on_cpu=False, processes=processes)
            assert plan is not None and f"{plan.total / 2**30:.0f}" == written.strip(), size


def test_the_table_of_plans_is_there() -> None:
    assert len(PLANS) == 10
