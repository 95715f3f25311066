"""A model trained by DeepSpeed's ZeRO: stage 2 divides gradients and moments, stage 3 weights, too.

DeepSpeed keeps what a process owns as flat tensors, in which a parameter's part lies at some place. All that
goes to a checkpoint is put together by parameter, so that other engines and other numbers of processes take
it up. Its config is made here; none is asked of the user.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")

BUCKET = 2**26
"""Elements of gradients that are summed over processes together."""


class _Pass(nn.Module):
    """Around the model, so that a pass of any of its parts is a forward of DeepSpeed's module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.work: Callable[[], Any] | None = None
        self.result: Any = None

    def forward(self) -> Any:
        assert self.work is not None
        self.result = self.work()
        # DeepSpeed hooks into tensors alone.
        return self.result[0] if isinstance(self.result, tuple) else self.result


@dataclass(frozen=True, kw_only=True)
class Part:
    """Where this process's part of a parameter is: ``count`` elements from ``first`` on.

    In ``flat``, and in whatever is laid out alike, they begin at ``place``.
    """

    flat: Tensor
    place: int
    first: int
    count: int

    def of(self, flat: Tensor) -> Tensor:
        """Return the part of a tensor that is laid out as ``flat``."""
        return flat.narrow(0, self.place, self.count)

    def together(self, flat: Tensor, shape: torch.Size) -> Tensor:
        """Return the whole tensor of one parameter, whose parts lie in each process's ``flat``."""
        whole = flat.new_zeros(shape.numel())
        whole.narrow(0, self.first, self.count).copy_(self.of(flat))
        torch.distributed.all_reduce(whole)
        return whole.view(shape)


class Zero:
    """What DeepSpeed does for one model. ``optimizer`` is None for one that only computes (stage 3 alone)."""

    def __init__(
        self, model: Any, optimizer: torch.optim.Optimizer | None, *, stage: int, count: int, device: str
    ) -> None:
        deepspeed = _deepspeed(on_cpu=torch.device(device).type == "cpu")
        self._zero, self._optimizer, self._count, self.stage = deepspeed.zero, optimizer, count, stage
        self._pass, self._is_gathered = _Pass(model), False
        self._learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.shapes = [parameter.shape for parameter in self._learning]
        dtypes = {parameter.dtype for parameter in self._learning or model.parameters()}
        config = _config(
            stage, is_bfloat16=dtypes == {torch.bfloat16}, hidden=model.config.text_config.hidden_size
        )
        self._engine: Any = deepspeed.initialize(model=self._pass, optimizer=optimizer, config=config)[0]

    # --- passes -------------------------------------------------------------------------------------------

    def run(self, work: Callable[[], Result]) -> Result:
        """Return what ``work`` returns, one pass of the model; see ``run_in_forward``."""
        if self._is_gathered:
            return work()
        self._pass.work = work
        hooked = self._engine()
        result, self._pass.work, self._pass.result = self._pass.result, None, None
        return (hooked, *result[1:]) if isinstance(result, tuple) else hooked  # type: ignore[return-value]

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Hold all weights on every process inside."""
        if self.stage < 3:
            yield
            return
        with self._zero.GatheredParameters(list(self._pass.parameters())), self._without_hooks():
            yield

    @contextmanager
    def _without_hooks(self) -> Iterator[None]:
        # Each layer's own would give its weights away behind it, and the next token would gather them again.
        offload = self._offload
        for hook in (*offload.forward_hooks, *offload.backward_hooks):
            hook.remove()
        offload.forward_hooks, offload.backward_hooks = [], []
        self._is_gathered = True
        try:
            yield
        finally:
            self._is_gathered = False
            offload._register_deepspeed_module(offload.module)

    @property
    def _offload(self) -> Any:
        return self._engine.optimizer if self._optimizer is None else self._engine.optimizer.parameter_offload

    # --- learning -----------------------------------------------------------------------------------------

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of ``loss``, summed over processes."""
        # DeepSpeed averages over processes; losses are divided by counts over all of them already.
        self._engine.backward(loss * self._count)

    def step(self, *, max_grad_norm: float) -> float:
        """Return the gradient norm before clipping, after one optimiser step.

        Where that is not finite, nothing has changed.
        """
        self._engine.optimizer.clip_grad = max_grad_norm
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    # --- checkpoints --------------------------------------------------------------------------------------

    def whole(self, tensor: Tensor) -> Tensor:
        """Return a copy of a weight with the parts of all processes."""
        with self._zero.GatheredParameters([tensor], enabled=hasattr(tensor, "ds_id")):
            return tensor.detach().clone()

    def parts(self) -> list[Part]:
        """Return where this process's part of each parameter that learns is."""
        return [
            (_part_of_two if self.stage < 3 else _part_of_three)(self._engine.optimizer, parameter, shape)
            for parameter, shape in zip(self._learning, self.shapes, strict=True)
        ]

    def optimizer_state(self, *, keep: bool) -> dict[str, Any]:
        """Return the optimiser's state as one process would have it, on the CPU."""
        assert self._optimizer is not None
        state = dict[int, dict[str, Any]]()
        for number, (part, shape) in enumerate(zip(self.parts(), self.shapes, strict=True)):
            moments = self._optimizer.state.get(part.flat, {})
            own = {
                name: part.together(value, shape) if value.dim() else value for name, value in moments.items()
            }
            if keep and own:
                state[number] = {name: value.detach().cpu().clone() for name, value in own.items()}
        (group,) = self._optimizer.param_groups
        return {"state": state, "param_groups": [{**group, "params": list(range(len(self.shapes)))}]}

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Continue from the state of one process or of any number, of which this one takes its part."""
        assert self._optimizer is not None
        (group,), (saved,) = self._optimizer.param_groups, state["param_groups"]
        group.update({name: value for name, value in saved.items() if name != "params"})
        for number, part in enumerate(self.parts()):
            own = self._optimizer.state[part.flat]
            for name, value in state["state"].get(number, {}).items():
                if not value.dim():
                    own[name] = value.clone()
                    continue
                if name not in own:
                    own[name] = torch.zeros_like(part.flat, dtype=value.dtype)
                part.of(own[name]).copy_(value.flatten().narrow(0, part.first, part.count))


def _part_of_two(optimizer: Any, parameter: Any, shape: torch.Size) -> Part:
    """Stage 2 lays out all parameters one after another and gives each process an equal piece of that."""
    (flat,) = optimizer.single_partition_of_fp32_groups
    mapping = parameter._hp_mapping
    if mapping is None:
        return Part(flat=flat, place=0, first=0, count=0)
    held, own = mapping.hp_fragment_address, mapping.lp_fragment_address
    return Part(flat=flat, place=held.start, first=own.start, count=own.numel)


def _part_of_three(optimizer: Any, parameter: Any, shape: torch.Size) -> Part:
    """Stage 3 gives each process an equal piece of every parameter, the last one's filled up."""
    (flat,) = optimizer.fp32_partitioned_groups_flat
    _, place, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
    first = min(torch.distributed.get_rank() * size, shape.numel())
    return Part(flat=flat, place=place, first=first, count=min(size, shape.numel() - first))


def _deepspeed(*, on_cpu: bool) -> Any:
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if on_cpu:
        # It would compile a transport of its own beside torch's.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _config(stage: int, *, is_bfloat16: bool, hidden: int) -> dict[str, Any]:
    """Return DeepSpeed's config: weights and moments in the types that they have on one process."""
    bfloat16 = {
        "enabled": True,
        "bf16_master_weights_and_grads": True,
        "bf16_optimizer_states": True,
        "check_grad_overflow": True,
    }
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # The step says when its last micro-batch has been.
        "managed_gradient_accumulation": False,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": False,
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
            "stage3_prefetch_bucket_size": BUCKET,
            # Norms and biases are too small to be worth gathering.
            "stage3_param_persistence_threshold": 10 * hidden,
            # One flat tensor, so that the optimiser steps once per update.
            "sub_group_size": 10**13,
        },
        **({"bf16": bfloat16} if is_bfloat16 else {}),
    }
