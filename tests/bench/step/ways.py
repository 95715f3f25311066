"""The ways of a step, one process each: ours, TRL's trainer, the published scheme as a plain oracle.

Each makes one prompt group per step: read a picture, sample, score by a reference, forward, backward, AdamW.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    GenerationConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    TrainerCallback,
)
from transformers.processing_utils import ProcessorMixin

from qhk.config.catalogue import config_root, read_catalogue
from qhk.config.training import training_settings
from qhk.policy.load import save_policy
from qhk.policy.prompt import EncodedPrompt
from qhk.rewards.compose import build_terms
from qhk.rollout.engine import PolicyEngine
from qhk.settings.views import build_tasks, task_views
from qhk.training import inputs, step
from qhk.training.batch import Batch
from qhk.training.distributed import Processes
from qhk.training.kept import Kept
from qhk.training.loop import add_in_order
from qhk.training.optimizer import build_optimizer, coefficients, horizon
from qhk.types import Example
from tests.bench.step.model import (
    KL_COEF,
    LEARNING_RATE,
    MESSAGES,
    QUESTION,
    SIDES,
    Cell,
    Clock,
    Memory,
    bench_policy,
    matmul_rate,
    step_flops,
    write_picture,
)

Take = Callable[[], list[dict[str, float]]]
"""Takes the steps, each of another picture: CPU seconds of each by part."""


def ours(cell: Cell, folder: Path, clock: Clock, steps: int, *words: str) -> Take:
    """The steps of this project, as a run takes them between two logged ones."""
    every = [
        *("model.dtype=float32", "objective=grpo", f"objective.kl_coef={KL_COEF}"),
        *(f"rollout.group_size={cell.group}", f"rollout.max_new_tokens={cell.completion}"),
        *("training.prompts_per_step=1", "training.prompts_per_device=1", "optimizer=adamw"),
        f"optimizer.lr={LEARNING_RATE}",
    ]
    add_in_order("cpu")
    (settings,) = training_settings([*every, *words], [0], read_catalogue(config_root()))
    policy = bench_policy()
    reference = copy.deepcopy(policy.model).requires_grad_(False)
    learner = step.Learner(
        policy=policy,
        reference=reference,
        optimizer=build_optimizer(policy.model, settings.optimizer, seed=0),
        settings=settings,
        terms={task: build_terms(view.reward.specs) for task, view in task_views(settings).items()},
        tasks=build_tasks(settings),
        processes=Processes("single"),
        memory={},
        missing={},
        engine=PolicyEngine(),
        features=Kept(0),
    )
    readers = inputs.build_readers(settings, policy)
    for reader in readers.values():
        reader.messages = MESSAGES
    (task,) = readers
    length = horizon(settings.training.duration, num_examples=1000, prompts_per_step=1)
    for model in (policy.model, reference):
        clock.wrap(model.model.visual, "forward", "vision")
    clock.wrap(inputs, "load", "read")
    clock.wrap(step, "sample", "rollout")
    clock.wrap(step, "accumulate", "forward")
    clock.wrap(step, "reference_logprobs", "forward")
    clock.wrap(step, "apply_update", "optimizer")

    def one(number: int) -> dict[str, float]:
        image = write_picture(folder, SIDES[cell.prompt], number)
        example = Example(
            id=f"{number}", dataset="bench", image=image, mos=3.0, mos_native=3.0, higher_is_better=True
        )
        clock.take()
        batch = inputs.load(Batch(indices=range(1), tasks=[task], examples=[example], epochs=[0]), readers)
        step.reinforcement_step(
            learner,
            batch,
            step=number,
            now=coefficients(settings, number, length),
            measure=False,
            fresh=lambda number, places: batch,
        )
        return clock.take()

    return lambda: [one(number) for number in range(steps)]


def published(cell: Cell, folder: Path, clock: Clock, steps: int) -> Take:
    """The scheme of the published releases: prompt and picture once per completion, logits everywhere.

    The degraded picture is scored without gradient, as the release of Q-Hawkeye does.
    """
    policy = bench_policy()
    model, count = policy.model, cell.group
    model.set_attn_implementation("sdpa")
    reference = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for each in (model, reference):
        clock.wrap(each.model.visual, "forward", "vision")
    limits = {"min_new_tokens": cell.completion, "max_new_tokens": cell.completion}
    generation = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, **limits)  # type: ignore[no-untyped-call]

    def inputs_of(prompt: EncodedPrompt, rows: Tensor) -> dict[str, Tensor]:
        types = torch.zeros_like(rows)
        types[:, : prompt.num_tokens] = prompt.is_image.long()
        return {"input_ids": rows, "attention_mask": torch.ones_like(rows), "mm_token_type_ids": types}

    def logprobs(scorer: Any, prompt: EncodedPrompt, rows: Tensor) -> Tensor:
        pixels = prompt.pixel_values.repeat(count, 1)
        grid = prompt.image_grid_thw.repeat(count, 1)
        logits = scorer(
            **inputs_of(prompt, rows), pixel_values=pixels, image_grid_thw=grid, use_cache=False
        ).logits
        scores: Tensor = logits[:, :-1].log_softmax(-1).gather(2, rows[:, 1:, None])[..., 0]
        return scores[:, prompt.num_tokens - 1 :]

    def one(number: int) -> dict[str, float]:
        path = write_picture(folder, SIDES[cell.prompt], number)
        clock.take()
        with clock.part("read"):
            image = Image.open(path).convert("RGB")
            prompt = policy.encoder.encode(MESSAGES, [image])
            twin = prompt.with_pixels(*policy.encoder.encode_pixels([image.point(lambda value: value // 2)]))
        with clock.part("rollout"), torch.no_grad():
            rows = model.generate(
                **inputs_of(prompt, prompt.input_ids[None]),
                pixel_values=prompt.pixel_values,
                image_grid_thw=prompt.image_grid_thw,
                generation_config=generation,
                num_return_sequences=count,
            )
        with clock.part("forward"):
            with torch.no_grad():
                frozen = logprobs(reference, prompt, rows)
                degraded = logprobs(model, twin, rows)
            original = logprobs(model, prompt, rows)
            advantages = torch.linspace(-1, 1, count)[:, None]
            apart, blind = frozen - original, degraded - original
            loss = (-advantages * (original - original.detach()).exp()).mean()
            loss = loss + KL_COEF * (apart.exp() - apart - 1).mean()
            loss = loss - 1e-4 * (blind.exp() - blind - 1).mean()
        with clock.part("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        with clock.part("optimizer"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return clock.take()

    return lambda: [one(number) for number in range(steps)]


class PicturesAndText(Qwen2_5_VLProcessor):
    """The stock processor without one for videos, which would need torchvision."""

    def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str | None = None) -> None:
        ProcessorMixin.__init__(  # type: ignore[no-untyped-call]
            self, image_processor, tokenizer, chat_template=chat_template
        )
        for name in ("image", "video"):
            setattr(self, f"{name}_token", f"<|{name}_pad|>")
            setattr(self, f"{name}_token_id", tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>"))


def trl(cell: Cell, folder: Path, clock: Clock, steps: int) -> Take:
    """The steps of TRL's trainer: no degraded picture; its head reads completions alone."""
    from datasets.arrow_dataset import Dataset
    from trl.trainer.grpo_config import GRPOConfig  # type: ignore[import-not-found,unused-ignore]
    from trl.trainer.grpo_trainer import GRPOTrainer  # type: ignore[import-not-found,unused-ignore]

    policy = bench_policy()
    save_policy(policy, folder / "model")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "model", attn_implementation="sdpa")
    template = policy.tokenizer.chat_template
    processor = PicturesAndText(policy.image_processor, policy.tokenizer, chat_template=template)

    rows = [
        {
            "prompt": [{"role": "user", "content": QUESTION}],
            "image": Image.open(write_picture(folder, SIDES[cell.prompt], number)).convert("RGB"),
        }
        for number in range(steps)
    ]
    taken: list[dict[str, float]] = []

    class Taker(TrainerCallback):
        def on_train_begin(  # type: ignore[override]
            self, *args: Any, optimizer: Any, **kwargs: Any
        ) -> None:
            clock.wrap(optimizer, "step", "optimizer")
            clock.take()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            taken.append(clock.take())

    trainer = GRPOTrainer(
        model=model,
        processing_class=processor,
        reward_funcs=lambda completions, **_: [float(len(str(one))) for one in completions],
        args=GRPOConfig(
            output_dir=str(folder / "trl"),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=cell.group,
            num_generations=cell.group,
            max_completion_length=cell.completion,
            generation_kwargs={"min_new_tokens": cell.completion},
            beta=KL_COEF,
            learning_rate=LEARNING_RATE,
            max_steps=steps,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
        ),
        train_dataset=Dataset.from_list(rows),
        callbacks=[Taker()],
    )
    for each in (trainer.model, trainer.ref_model):
        clock.wrap(each.model.visual, "forward", "vision")
    clock.wrap(trainer, "_generate_single_turn", "rollout")
    clock.wrap(trainer, "_get_per_token_logps_and_entropies", "forward")

    def take() -> list[dict[str, float]]:
        trainer.train()
        return taken

    return take


WAYS: dict[str, Callable[[Cell, Path, Clock, int], Take]] = {
    "ours": lambda *place: ours(*place, "perception=exact"),
    "ours, lean": lambda *place: ours(*place, "perception=exact", "model.branch_checkpointing=true"),
    "ours, plain": lambda *place: ours(*place, "perception=none"),
    "TRL": trl,
    "published": published,
}
"""In the order of the table."""


def measure(way: str, cell: Cell, steps: int) -> dict[str, Any]:
    """Return CPU seconds by part of the fastest of some steps, and the peak in MiB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clock = Clock()
    with TemporaryDirectory() as folder:
        take = WAYS[way](cell, Path(folder), clock, steps)
        clock.wrap(torch.Tensor, "backward", "backward")
        memory = Memory()
        taken = take()
        return {"seconds": min(taken, key=lambda one: sum(one.values())), "mib": memory.peak_mib()}


def ideal_seconds(cell: Cell) -> dict[str, float]:
    """Return how long each way of ours would take if it did nothing but what it must, as matrix products."""
    torch.set_num_threads(1)
    policy, side = bench_policy(), SIDES[cell.prompt]
    prompt = policy.encoder.encode(MESSAGES, [Image.new("RGB", (side, side))])
    rate, sizes = matmul_rate(), {"prompt": prompt.num_tokens, "patches": len(prompt.pixel_values)}
    return {way: step_flops(cell, degraded=way in ("ours", "ours, lean"), **sizes) / rate for way in WAYS}
