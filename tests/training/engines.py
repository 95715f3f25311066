"""Trains small runs in this process, which may be one of several under torchrun, and keeps what they did."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from qhk.objective.total import NonFiniteTermError
from qhk.settings.identity import run_directory
from qhk.training import loop, step
from qhk.training.distributed import Processes
from qhk.training.launch import launch
from qhk.training.optimizer import StochasticAdamW, apply_gradients
from qhk.training.sharding import load_weights, part_of, whole
from tests.training.conftest import small_settings

KILLED = "killed"
"""Name of the copy of a run as it lay behind the checkpoint of step 2, as a kill at that moment leaves it."""


def train_watched(root: Path, cache: Path, words: Sequence[str], base: Sequence[str]) -> int:
    """Train below ``root``; gradients go to ``root/gradients``, the copy behind step 2 to ``root/killed``."""
    settings = small_settings(root, cache, *words, base=base)
    directory, gradients = run_directory(settings), root / "gradients"
    gradients.mkdir(parents=True, exist_ok=True)
    apply, save = step.apply_gradients, loop.save_checkpoint

    def keep_gradients(model: Any, *args: Any, **keys: Any) -> float:
        parameters = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
        own = {name: whole(gradient).clone() for name, gradient in parameters}
        if is_main():
            torch.save(own, gradients / f"{len(list(gradients.iterdir()))}.pt")
        return apply(model, *args, **keys)

    def keep_copy(run: Any, policy: Any, learner: Any, *, step: int) -> None:
        save(run, policy, learner, step=step)
        if step == 2 and is_main():
            shutil.copytree(directory, root / KILLED / directory.relative_to(root), symlinks=True)

    with (
        patch.object(step, "apply_gradients", keep_gradients),
        patch.object(loop, "save_checkpoint", keep_copy),
    ):
        return launch(settings)


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


def is_main() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def main() -> None:
    processes = Processes("fsdp2")
    check_stochastic_rounding()
    check_loaded_weights()
    jobs, cache, base = json.loads(Path(sys.argv[1]).read_text())
    for name, (resumes, words) in jobs.items():
        root = Path(sys.argv[1]).with_name(name)
        if resumes and is_main():
            shutil.copytree(root.with_name(resumes) / KILLED, root, symlinks=True)
        processes.wait()
        if name == "fails":
            fail_alone(root, Path(cache), words, base)
        else:
            assert train_watched(root, Path(cache), words, base) == 0


if __name__ == "__main__":
    main()
