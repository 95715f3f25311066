"""Records loss, gradient and advantages of TRL's GRPO trainer in trl_parity.json, for test_trl_parity.

TRL is an oracle of development, not a dependency. Beside the project's own environment:

    pip install --no-deps --target /tmp/trlsite trl==1.16.0
    PYTHONPATH=/tmp/trlsite:. python tests/objective/record_trl.py

A real trainer is built and its own code runs, from the rewards to the loss. Replaced are only its sources of
numbers: sampling, the reward function and the forward pass, which returns leaves so that the gradient with
respect to each token's log-probability can be read. No formula of TRL is written here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import trl  # type: ignore[import-not-found,unused-ignore]
from datasets.arrow_dataset import Dataset
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM
from trl.trainer.grpo_config import GRPOConfig  # type: ignore[import-not-found,unused-ignore]
from trl.trainer.grpo_trainer import GRPOTrainer  # type: ignore[import-not-found,unused-ignore]
from trl.trainer.utils import split_tensor_dict  # type: ignore[import-not-found,unused-ignore]

from qhk.config.compose import compose_config, plain_config
from qhk.policy.tokenizer import build_tokenizer
from tests.conftest import repository_catalogue

OUTPUT = Path(__file__).with_name("trl_parity.json")
PRESETS = ("grpo", "clip_higher", "dapo", "dr_grpo", "gspo", "cispo", "sapo", "luspo")
COMMAND = "PYTHONPATH=/tmp/trlsite:. python tests/objective/record_trl.py"
SEED, MAX_COMPLETION_LENGTH, GROUP_SIZE = 23, 9, 6
LOSS_TYPES = {"sequence_mean": "grpo", "token_mean": "dapo", "constant": "dr_grpo"}
SCALINGS = {"group_std": "group", "batch_std": "batch", "none": "none"}
LENGTHS = [3, 6, 1, 4, 6, 2, 5, 6, 3, 4, 6, 1]
HOLES = [(1, 2), (7, 0), (7, 3), (11, 0)]  # not the policy's tokens; the last leaves its completion none
TRUNCATED = [3, 6, 10]  # completions that the length limit cut: they end without an end token
DRIFTS = [0.3, 0.3, 0.3, 1e-4, 0.2, 1e-3, 0.3, 0.3, 2e-4, 0.3, 0.4, 0.3]  # some within GSPO's narrow bounds
DTYPES = {"float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What TRL is asked for; ``update`` 0 has no old log-probabilities, 1 and 2 drift further from them."""

    name: str
    trl: Mapping[str, Any]
    update: int = 2
    dtype: str = "float64"
    micro_batches: int = 1
    preset: str | None = None


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Everything that TRL would have sampled or computed with a model: ``(R, T)``, rewards ``(R,)``."""

    logprobs: Tensor
    old_logprobs: Tensor
    reference_logprobs: Tensor
    entropy: Tensor
    mask: Tensor
    lengths: list[int]
    truncated: list[int]
    rewards: Tensor


class RecordedTrainer(GRPOTrainer):  # type: ignore[misc,unused-ignore]
    """TRL's trainer, with given numbers in place of a model."""

    numbers: Numbers
    rows: slice

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        given = self.numbers
        end = self.processing_class.eos_token_id
        lasts = [5 if row in given.truncated else end for row in range(len(given.lengths))]
        completions = [[5] * (n - 1) + [last] for n, last in zip(given.lengths, lasts, strict=True)]
        kept = [row[:length].long().tolist() for row, length in zip(given.mask, given.lengths, strict=True)]
        return [[5]] * len(prompts), completions, kept, ["x"] * len(prompts), None, {}, None, []

    def _calculate_rewards(self, *_: Any) -> Tensor:
        return self.numbers.rewards.unsqueeze(1).clone()

    def _get_per_token_logps_and_entropies(self, model: Any, *_: Any, **__: Any) -> tuple[Any, Any, None]:
        given = self.numbers
        if torch.is_grad_enabled():
            return given.logprobs[self.rows], given.entropy[self.rows], None
        return (given.reference_logprobs if model is self.ref_model else given.old_logprobs), None, None


def draw_numbers() -> dict[str, Any]:
    """Plain arrays of one scene, rounded so that they are short to write and exact to read."""
    generator = np.random.default_rng(SEED)
    shape = (len(LENGTHS), max(LENGTHS))
    old = -generator.exponential(1.2, shape) - 0.01
    drift = generator.normal(size=shape) * np.array(DRIFTS)[:, None]
    mask = np.arange(shape[1])[None, :] < np.array(LENGTHS)[:, None]
    for position in HOLES:
        mask[position] = False
    arrays = {
        "old_logprobs": old,
        "logprobs_1": old + 0.5 * drift,
        "logprobs_2": old + 1.5 * drift,
        "reference_logprobs": old + 0.4 * generator.normal(size=shape),
        "entropy": generator.exponential(1.0, shape),
        "rewards": generator.uniform(0.0, 2.0, shape[0]),
    }
    scene: dict[str, Any] = {name: np.round(values, 6).tolist() for name, values in arrays.items()}
    return {**scene, "mask": mask.astype(int).tolist(), "lengths": LENGTHS, "truncated": TRUNCATED}


def reward_sets() -> dict[str, list[float]]:
    """Rewards of groups of six: spread, two values, close together, and all equal."""
    generator = np.random.default_rng(SEED + 1)
    spread = np.round(generator.uniform(0.0, 2.0, GROUP_SIZE), 6).tolist()
    others = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.5, 0.5001, 0.5, 0.4999, 0.5, 0.5002]
    return {"varied": [*spread, *others], "with_equal_group": [*spread, *[0.1] * GROUP_SIZE]}


def all_cases() -> list[Case]:
    """Presets at three updates, the grid of what TRL's loss offers, micro-batches, cut answers, entropy."""
    cases = []
    for preset in PRESETS:
        arguments = trl_arguments(objective_values(preset))
        for update, dtype in enumerate(("float64", "float64", "float32")):
            name = f"{preset}/update_{update}/{dtype}"
            cases.append(Case(name=name, trl=arguments, update=update, dtype=dtype, preset=preset))
    # By default TRL multiplies the KL by the importance ratio, which is no option of ours.
    plain_kl = {"use_bias_correction_kl": False}
    settings = (("token", 0.2, 0.04), ("token", 0.28, 0.0), ("sequence", 0.2, 0.0), ("sequence", 0.28, 0.04))
    for kind in ("grpo", "bnpo", "dr_grpo", "dapo"):
        common = {"loss_type": kind, "epsilon": 0.2, **plain_kl}
        for level, high, beta in settings:
            grid = {**common, "importance_sampling_level": level, "epsilon_high": high, "beta": beta}
            name = f"{kind}/{level}/upper_{high}/beta_{beta}"
            cases.append(Case(name=name, trl={**grid, "scale_rewards": "group"}))
        plain = {**common, "epsilon_high": 0.28, "scale_rewards": "batch"}
        cases.append(Case(name=f"{kind}/two_micro_batches", trl={**plain, "beta": 0.04}, micro_batches=2))
        masked = {**plain, "beta": 0.04, "mask_truncated_completions": True}
        cases.append(Case(name=f"{kind}/masked", trl=masked))
        if kind in ("grpo", "dapo"):
            cases.append(Case(name=f"{kind}/entropy_bonus", trl={**plain, "entropy_coef": 0.01}))
    bounded = {"loss_type": "cispo", "epsilon": 0.2, "epsilon_high": 1.1, **plain_kl, "beta": 0.04}
    cases.append(Case(name="cispo/bounded", trl={**bounded, "scale_rewards": "group"}))
    cases.append(Case(name="sapo/token_kl", trl={**bounded, "loss_type": "sapo", "scale_rewards": "none"}))
    weighted_kl = {"loss_type": "grpo", "epsilon": 0.2, "epsilon_high": 0.2, "beta": 0.04}
    weighted_kl |= {"use_bias_correction_kl": True, "scale_rewards": "group"}
    return cases + [Case(name=f"grpo/weighted_kl/{n}", trl=weighted_kl, update=n) for n in (0, 2)]


def objective_values(preset: str) -> dict[str, Any]:
    """The values of an option of the objective group, the generation budget being TRL's."""
    words = [f"objective={preset}", "strengths=published", f"rollout.max_new_tokens={MAX_COMPLETION_LENGTH}"]
    config = compose_config("train", words, repository_catalogue())
    values: dict[str, Any] = plain_config(config)["objective"]
    return values


def trl_arguments(objective: Mapping[str, Any]) -> dict[str, Any]:
    """GRPOConfig's names for our objective. Its KL is k3 and its advantage epsilon 1e-4, without a choice."""
    assert objective["kl_estimator"] == "k3" and objective["advantage_epsilon"] == 1e-4
    assert objective["kl_placement"] == "loss" and objective["truncated"] in ("keep", "mask")
    kind, high = LOSS_TYPES[objective["aggregation"]], objective["clip_high"]
    if objective["surrogate"] != "clip":
        # TRL's CISPO bounds the ratio by this number itself; its SAPO reads neither.
        kind, high = objective["surrogate"], 0.2 if high is None else 1.0 + high
    elif objective["constant_length"] == 1:
        kind = "luspo"
    return {
        "loss_type": kind,
        "importance_sampling_level": objective["ratio"],
        "epsilon": 0.2 if objective["clip_low"] is None else objective["clip_low"],
        "epsilon_high": high,
        "beta": objective["kl_coef"],
        "scale_rewards": SCALINGS[objective["advantage_scaling"]],
        "entropy_coef": objective["entropy_coef"],
        "mask_truncated_completions": objective["truncated"] == "mask",
        "use_bias_correction_kl": False,
    }


def numbers_of(scene: Mapping[str, Any], *, update: int, dtype: str) -> Numbers:
    """The scene as tensors; log-probabilities and entropies are leaves with gradient."""
    names = scene.keys() - {"mask", "lengths", "truncated"}
    floats = {name: torch.tensor(scene[name], dtype=DTYPES[dtype]) for name in names}
    current = floats["old_logprobs" if update == 0 else f"logprobs_{update}"]
    return Numbers(
        logprobs=current.clone().requires_grad_(),
        old_logprobs=floats["old_logprobs"],
        reference_logprobs=floats["reference_logprobs"],
        entropy=floats["entropy"].requires_grad_(),
        mask=torch.tensor(scene["mask"], dtype=torch.bool),
        lengths=scene["lengths"],
        truncated=scene["truncated"],
        rewards=floats["rewards"],
    )


def build_trainer(
    folder: str, numbers: Numbers, *, update: int, micro_batches: int, **kwargs: Any
) -> RecordedTrainer:
    """A trainer as a user would build it; more than one iteration per rollout makes it keep old log-probs."""
    config = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=len(numbers.rewards) // micro_batches,
        gradient_accumulation_steps=micro_batches,
        num_generations=GROUP_SIZE,
        num_iterations=1 if update == 0 else 2,
        max_completion_length=MAX_COMPLETION_LENGTH,
        use_cpu=True,
        bf16=False,
        report_to="none",
        **kwargs,
    )
    trainer = RecordedTrainer(
        model=Qwen2ForCausalLM.from_pretrained(folder).train(),
        reward_funcs=lambda **_: [],
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["x"] * GROUP_SIZE}),
        processing_class=build_tokenizer(["x"], num_merged_tokens=0),
    )
    trainer.numbers = numbers
    trainer.current_gradient_accumulation_steps = micro_batches  # as its training loop does
    return trainer


def record_loss(case: Case, scene: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """TRL's loss, summed over micro-batches as its optimizer step does, and its gradients."""
    numbers = numbers_of(scene, update=case.update, dtype=case.dtype)
    trainer = build_trainer(folder, numbers, update=case.update, micro_batches=case.micro_batches, **case.trl)
    batch = trainer._generate_and_score_completions([{"prompt": "x"}] * len(numbers.rewards))
    losses = []
    for index, part in enumerate(split_tensor_dict(batch, case.micro_batches)):
        size = len(numbers.rewards) // case.micro_batches
        trainer.rows = slice(index * size, (index + 1) * size)
        losses.append(trainer._compute_loss(trainer.model, part))  # type: ignore[no-untyped-call,unused-ignore]
    total = torch.stack(losses).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert total.dtype == DTYPES[case.dtype], f"{case.name}: TRL computed in {total.dtype}"
    record = {**asdict(case), "loss": _written(total)}
    record["gradient"] = _inside(numbers.logprobs.grad, numbers.mask)
    if numbers.entropy.grad is not None:
        record["entropy_gradient"] = _inside(numbers.entropy.grad, numbers.mask)
    return record


def record_advantages(scene: Mapping[str, Any], folder: str) -> list[dict[str, Any]]:
    """TRL's advantages of the reward sets under every scaling and precision."""
    records = []
    for name, rewards in {"scene": scene["rewards"], **reward_sets()}.items():
        repeated = {key: (values * 2)[: len(rewards)] for key, values in scene.items()}
        for scaling in SCALINGS.values():
            for dtype in DTYPES:
                numbers = numbers_of({**repeated, "rewards": rewards}, update=1, dtype=dtype)
                trainer = build_trainer(folder, numbers, update=1, micro_batches=1, scale_rewards=scaling)
                batch = trainer._generate_and_score_completions([{"prompt": "x"}] * len(rewards))
                record = {"rewards": name, "scale_rewards": scaling, "dtype": dtype}
                records.append({**record, "advantages": _written(batch["advantages"])})
    return records


def _inside(gradient: Tensor | None, mask: Tensor) -> list[float]:
    """The gradient under the mask, row by row; outside, TRL's is exactly zero."""
    assert gradient is not None and not gradient[~mask].any()
    return list(_written(gradient[mask]))


def _written(values: Tensor) -> Any:
    """Numbers as short JSON: float32 so that it reads back unchanged, float64 with 14 digits."""
    digits = 13 if values.dtype == torch.float64 else None
    array = values.detach().numpy()
    numbers = [float(np.format_float_scientific(value, precision=digits)) for value in array.reshape(-1)]
    return numbers if array.ndim else numbers[0]


def main() -> None:
    """Writes the file anew."""
    scene = draw_numbers()
    with tempfile.TemporaryDirectory() as folder:
        sizes: dict[str, Any] = {
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
        }
        vocabulary = len(build_tokenizer(["x"], num_merged_tokens=0))
        config = Qwen2Config(vocab_size=vocabulary, num_key_value_heads=1, **sizes)
        Qwen2ForCausalLM(config).save_pretrained(folder)
        cases = [record_loss(case, scene, folder) for case in all_cases()]
        advantages = record_advantages(scene, folder)
    presets = {preset: objective_values(preset) for preset in PRESETS}
    header = {
        "command": COMMAND,
        "seed": SEED,
        **{package.__name__: package.__version__ for package in (trl, torch, transformers)},
        "group_size": GROUP_SIZE,
        "max_completion_length": MAX_COMPLETION_LENGTH,
    }
    parts = {"header": header, "presets": presets, "scene": scene, "reward_sets": reward_sets()}
    lines = [f'"{name}": {json.dumps(part)},' for name, part in parts.items()]
    for name, records in (("advantages", advantages), ("cases", cases)):
        lines.append(f'"{name}": [\n' + ",\n".join(json.dumps(record) for record in records) + "\n],")
    OUTPUT.write_text("{" + "\n".join(lines).removesuffix(",") + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
