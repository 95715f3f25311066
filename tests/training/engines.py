"""Trains small runs in this process, which may be one of several under torchrun, and keeps what they did."""

from __future__ import annotations

import copy
import itertools
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from qhk.objective.total import NonFiniteTermError
from qhk.policy.adapter import at_reference, put_adapter
from qhk.policy.packed import encode_images, pack_groups
from qhk.settings.identity import run_directory
from qhk.training import loop, step
from qhk.training.distributed import Processes
from qhk.training.forward import token_logprobs
from qhk.training.launch import launch
from qhk.training.memory import LORA
from qhk.training.optimizer import NonFiniteGradientError, StochasticAdamW, apply_gradients
from qhk.training.sharding import (
    backward,
    gathered,
    load_optimizer_state,
    load_weights,
    part_of,
    run_in_forward,
    shard_by_zero,
    shard_model,
    whole,
    whole_optimizer_state,
    whole_weights,
    zero_of,
)
from tests.conftest import MESSAGES, build_policy, picture
from tests.training.conftest import small_settings
from tests.training.kill import environment

Weights = dict[str, torch.Tensor]
KILLED = "killed"
"""Name of the copy of a run as it lay behind the checkpoint of step 2, as a kill at that moment leaves it."""


def train_watched(root: Path, cache: Path, words: Sequence[str], base: Sequence[str]) -> int:
    """Train below ``root``; gradients go to ``root/gradients``, the copy behind step 2 to ``root/killed``."""
    settings = small_settings(root, cache, *words, base=base)
    directory, gradients = run_directory(settings), root / "gradients"
    gradients.mkdir(parents=True, exist_ok=True)
    apply, save = step.apply_gradients, loop.save_checkpoint

    def keep_gradients(model: Any, optimizer: torch.optim.Optimizer, **keys: Any) -> float:
        norm, own = step_watched(apply, model, optimizer, **keys)
        if is_main():
            torch.save(own, gradients / f"{len(list(gradients.iterdir()))}.pt")
        return norm

    def keep_copy(run: Any, policy: Any, learner: Any, *, step: int) -> None:
        save(run, policy, learner, step=step)
        if step == 2 and is_main():
            shutil.copytree(directory, root / KILLED / directory.relative_to(root), symlinks=True)

    with (
        patch.object(step, "apply_gradients", keep_gradients),
        patch.object(loop, "save_checkpoint", keep_copy),
    ):
        return launch(settings)


Jobs = Mapping[str, tuple[str | None, Sequence[str]]]
"""Name of a run -> the run that it resumes, as a kill left that, and its words."""


def train_alone(root: Path, jobs: Jobs, cache: Path, base: Sequence[str]) -> None:
    """Each run in its own folder below ``root``, by this process."""
    for name, (resumes, words) in jobs.items():
        if resumes:
            shutil.copytree(root / resumes / KILLED, root / name, symlinks=True)
        assert train_watched(root / name, cache, words, base) == 0


def train_together(root: Path, jobs: Jobs, cache: Path, base: Sequence[str]) -> None:
    """The same by two processes, which check every engine on a small model first; see ``main``."""
    file = root / "jobs.json"
    file.write_text(json.dumps([jobs, str(cache), base]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    ended = subprocess.run(
        [*torchrun, "-m", "tests.training.engines", str(file)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300 + 60 * len(jobs),
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-6000:]


def step_watched(
    apply: Callable[..., float], model: Any, optimizer: torch.optim.Optimizer, **keys: Any
) -> tuple[float, Weights]:
    """The norm that ``apply`` returns, and the gradient that the optimiser stepped by, clipped, by name."""
    found: Weights = {}
    hook = optimizer.register_step_pre_hook(lambda *args: found.update(whole_gradients(model)))
    norm = apply(model, optimizer, **keys)
    hook.remove()
    return norm, found


def whole_gradients(model: Any) -> Weights:
    """What the optimiser is about to step by, put together over processes."""
    zero, learning = zero_of(model), [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if zero is None:
        return {name: whole(p.grad).clone() for name, p in learning if p.grad is not None}
    places = zip(learning, zero.parts(), zero.shapes, strict=True)
    return {name: part.together(part.flat.grad, shape) for (name, _), part, shape in places}


def deal_unevenly(root: Path, cache: Path, words: Sequence[str], base: Sequence[str]) -> None:
    """The four prompts of a step are taken for so long that each process has every other one."""
    sizes = [9e6, 8e6, 1e6, 2e6]
    assert Processes("ddp").own_part(sizes) == ([0, 2] if is_main() else [1, 3])
    with patch.object(loop, "prompt_sizes", lambda *planned: sizes):
        assert train_watched(root, cache, words, base) == 0


def fail_alone(root: Path, cache: Path, words: Sequence[str], base: Sequence[str]) -> None:
    """The loss of the second process is not finite: both end, and say so."""

    def fail(**keys: Any) -> Any:
        raise NonFiniteTermError("the loss of process 1")

    with patch.object(step, "total_loss", step.total_loss if is_main() else fail):
        assert train_watched(root, cache, words, base) == 1


def check_stochastic_rounding() -> None:
    """Parts of a model in bfloat16 are updated, clipped and rounded to the bits of the whole."""

    def updated(spread: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 5).bfloat16()
        if spread:
            fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
        values = {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
        optimizer = StochasticAdamW(model.parameters(), seed=1, **values)  # type: ignore[arg-type]
        for number in range(3):
            for parameter in model.parameters():
                gradient = torch.full(parameter.shape, 0.25 * number - 0.125, dtype=torch.bfloat16)
                parameter.grad = part_of(gradient, parameter)
            # The norm is summed part by part; clipped to half or not at all, it moves no bit.
            apply_gradients(model, optimizer, learning_rate=1e-3, max_grad_norm=1e9)
        return [whole(parameter.detach()) for parameter in model.parameters()]

    for one, two in zip(updated(False), updated(True), strict=True):
        assert torch.equal(one, two)


def check_loaded_weights() -> None:
    """Weights that are alike on all processes come to lie in each one's part."""
    model = torch.nn.Linear(3, 5)
    weights = {name: torch.randn_like(parameter) for name, parameter in model.named_parameters()}
    for weight in weights.values():
        torch.distributed.broadcast(weight, 0)
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    load_weights(model, weights)
    for name, parameter in model.named_parameters():
        assert torch.equal(whole(parameter.detach()), weights[name])


PICTURES = {(rank, part): (32 + 8 * rank, 48 + 16 * part) for rank in range(2) for part in range(2)}
"""Sides of the pictures of each process's two micro-batches, whose groups have other lengths each."""


def check_engine(form: str, *, with_adapter: bool, family: str) -> None:
    """Losses, reference, clipped gradient, weights and moments of two processes are those of one."""
    is_zero = form.startswith("zero")
    policy = build_policy(family=family, dtype=torch.float32 if is_zero else torch.float64)
    if with_adapter:
        put_adapter(policy.model, LORA, seed=0)
    model, alone, processes = policy.model, copy.deepcopy(policy.model), Processes(form)

    def negative_likelihood(model: Any, rank: int, part: int) -> torch.Tensor:
        prompt = policy.encoder.encode(MESSAGES, [picture(*PICTURES[rank, part])])
        answers = [torch.arange(5, 8 + rank + 2 * part), torch.arange(9, 11 + rank)]
        packed = pack_groups([prompt], [answers], device=model.device)
        return token_logprobs(model, packed, encode_images(model, [prompt]), temperature=1.0).sum() / -20

    def optimizer(model: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.1
        )

    own = optimizer(model) if is_zero else None
    if own is None:
        shard_model(model, processes)
        own = optimizer(model)
    else:
        shard_by_zero(model, own, processes, stage=int(form[-1]))
    theirs, rank, close = optimizer(alone), processes.rank, partial(torch.testing.assert_close, rtol=0)
    near = 1e-5 if is_zero else 1e-11
    for _ in range(2):
        with gathered(model), torch.no_grad():
            for _ in range(1 + rank):  # each as often as it wants: nothing is gathered inside
                sampled = negative_likelihood(model, rank, 0)
                features = run_in_forward(model, lambda: negative_likelihood(model, rank, 0))
        with torch.no_grad(), at_reference(model), at_reference(alone):
            held = run_in_forward(model, lambda: negative_likelihood(model, rank, 1))
            close(held, negative_likelihood(alone, rank, 1), atol=near)
        for part in range(2):
            loss, more = run_in_forward(
                model, lambda part=part: (negative_likelihood(model, rank, part), part)
            )
            close(loss, negative_likelihood(alone, rank, part), atol=near)
            assert more == part
            backward(model, loss)
            if part == 0:
                close(torch.stack([sampled, features]), loss.detach().expand(2), atol=near)
        for place in PICTURES:
            negative_likelihood(alone, *place).backward()
        (norm, found), (norm_alone, gradients) = (
            step_watched(apply_gradients, *pair, learning_rate=1e-3, max_grad_norm=0.5)
            for pair in ((model, own), (alone, theirs))
        )
        close(found, gradients, atol=near)
        assert 0.5 < norm == pytest.approx(norm_alone, rel=near)
    weights = whole_weights(model, keep=True)
    learnt = {
        name: parameter.detach() for name, parameter in alone.named_parameters() if parameter.requires_grad
    }
    close({name: weights[name] for name in learnt}, learnt, atol=100 * near)
    assert with_adapter == (weights.keys() == learnt.keys())
    state, whole_state = whole_optimizer_state(model, own, keep=True), theirs.state_dict()
    assert state["param_groups"] == whole_state["param_groups"]
    close(state["state"], whole_state["state"], atol=near)
    broken = run_in_forward(model, lambda: negative_likelihood(model, rank, 0))
    backward(model, broken * (math.nan if rank else 1.0))
    with pytest.raises(NonFiniteGradientError):
        apply_gradients(model, own, learning_rate=1e-3, max_grad_norm=0.5)
    kept = whole_weights(model, keep=True)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in weights.items())
    # What one process would save is taken up part by part.
    load_optimizer_state(model, own, whole_state)
    close(whole_optimizer_state(model, own, keep=True)["state"], whole_state["state"], atol=0.0)


def is_main() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def main() -> None:
    processes = Processes("fsdp2")
    check_stochastic_rounding()
    check_loaded_weights()
    jobs, cache, base = json.loads(Path(sys.argv[1]).read_text())
    for form in ("fsdp2", "zero2", "zero3") if find_spec("deepspeed") else ("fsdp2",):
        for family, with_adapter in itertools.product(("qwen2_5_vl", "qwen3_vl"), (False, True)):
            check_engine(form, with_adapter=with_adapter, family=family)
    for name, (resumes, words) in jobs.items():
        root = Path(sys.argv[1]).with_name(name)
        if resumes and is_main():
            shutil.copytree(root.with_name(resumes) / KILLED, root, symlinks=True)
        processes.wait()
        if name.startswith("fails"):
            fail_alone(root, Path(cache), words, base)
        elif name.startswith("dealt"):
            deal_unevenly(root, Path(cache), words, base)
        else:
            assert train_watched(root, Path(cache), words, base) == 0


if __name__ == "__main__":
    main()
