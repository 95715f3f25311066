"""A model spread over processes (FSDP2, ZeRO): of weights, gradients and moments each process keeps a part.

Weights are gathered where they are needed, by all processes together, so every process must come to the same
forward passes: layer by layer in the passes of an update, once for a whole rollout or evaluation, in which
processes decode answers of different lengths. All functions take models that are not spread, too, and then do
what is done on one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import PrefixChange

from qhk.policy.adapter import adapter_layers, start_weights
from qhk.policy.families import family_of
from qhk.training.distributed import Processes
from qhk.training.zero import Zero

Result = TypeVar("Result")
_FORWARD = "run_in_forward"


def shard_model(model: Any, processes: Processes) -> None:
    """Spread the weights of ``model``, alike on all processes, in place (FSDP2).

    Each layer of text and each block of vision is gathered by itself; embeddings, norms and the head, which
    may share weights, together.
    """
    _remember_names(model)
    mesh = init_device_mesh(torch.device(processes.device).type, (processes.count,))
    for unit in (*family_of(model).layers(model), model):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, ignored_params=set(start_weights(model)))
        # Losses are divided by counts over all processes: gradients are added up, where FSDP would average.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    setattr(model, _FORWARD, _call)
    register_fsdp_forward_method(model, _FORWARD)
    # The first forward pass makes its module the one that the others belong to; parts are called before it.
    run_in_forward(model, lambda: None)


def _remember_names(model: Any) -> None:
    """Let the model know by which names its weights are saved.

    One that was read from a folder does. Of another, transformers looks them up by the name of its class when
    it saves, which spreading changes: the checkpoint would have other names than that of one process.
    """
    if getattr(model, "_weight_conversions", None) is None:
        known = get_model_conversion_mapping(model, add_legacy=False)
        # As transformers does itself for a model that was not read from a folder.
        model._weight_conversions = [one for one in known if not isinstance(one, PrefixChange)] or None


def shard_by_zero(
    model: Any, optimizer: torch.optim.Optimizer | None, processes: Processes, *, stage: int
) -> None:
    """Spread gradients and moments of ``model`` over processes, in place (ZeRO); in stage 3 its weights, too.

    These are all there is of a model without an optimiser.
    """
    model.zero = Zero(model, optimizer, stage=stage, device=processes.device, count=processes.count)


def zero_of(model: Any) -> Zero | None:
    """Return what spreads the model by ZeRO, None where nothing does."""
    zero: Zero | None = vars(model).get("zero")
    return zero


def _call(work: Callable[[], Result]) -> Result:
    return work()


def run_in_forward(model: Any, work: Callable[[], Result]) -> Result:
    """Return what ``work`` returns, which runs one forward pass of ``model`` or of parts of it.

    A tensor that is differentiated later must be the result, or stand first in a tuple that is.
    """
    zero = zero_of(model)
    if zero is not None:
        return zero.run(work)
    if not isinstance(model, FSDPModule):
        return work()
    result: Result = getattr(model, _FORWARD)(work)
    return result


@contextmanager
def gathered(model: Any) -> Iterator[None]:
    """Hold all weights on every process inside, gathered once: any process may run any forward pass."""
    zero = zero_of(model)
    if zero is not None:
        with zero.gathered():
            yield
        return
    units = [unit for unit in model.modules() if isinstance(unit, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(True, recurse=False)
            unit.reshard()


def backward(model: Any, loss: Tensor) -> None:
    """Add the gradient of ``loss`` to the model's; where that is spread, it is summed over processes."""
    zero = zero_of(model)
    zero.backward(loss) if zero is not None else loss.backward()  # type: ignore[no-untyped-call]


def is_sharded(model: Any) -> bool:
    """Return whether the model, or what its optimiser changes, is spread over processes."""
    return isinstance(model, FSDPModule) or zero_of(model) is not None


def whole(tensor: Tensor) -> Tensor:
    """Return the tensor with the parts of all processes; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of ``tensor``, which is alike on all, spread as ``like`` is."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def whole_weights(model: Any, *, keep: bool) -> dict[str, Tensor] | None:
    """Return all weights by name, on the CPU; None where this process need not ``keep`` them.

    Those that learn alone, where an adapter does. None as well for a model that is not spread, which holds
    them itself. Shared weights stay shared.
    """
    if not is_sharded(model):
        return None
    has_adapter, zero = bool(adapter_layers(model)), zero_of(model)
    weights, names = dict[str, Tensor](), dict[int, str]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if has_adapter and not tensor.requires_grad:
            continue
        first = names.setdefault(id(tensor), name)
        if first not in weights:
            full = whole(tensor.detach()) if zero is None else zero.whole(tensor)
            weights[first] = full.cpu() if keep else full.new_empty(0)
        weights[name] = weights[first]
    return weights if keep else None


@torch.no_grad()
def load_weights(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Give the parameters that learn the ``weights`` of their names, of which each process takes its part.

    Not of a model under ZeRO, whose optimiser has copies of them.
    """
    assert zero_of(model) is None
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(part_of(weights[name].to(parameter.device), parameter))


def whole_optimizer_state(
    model: Any, optimizer: torch.optim.Optimizer, *, keep: bool
) -> dict[str, Any] | None:
    """Return the optimiser's state as one process would have it; None where this one need not ``keep`` it."""
    zero = zero_of(model)
    state = optimizer.state_dict() if zero is None else zero.optimizer_state(keep=keep)
    state["state"] = {
        number: {
            name: _on_cpu(value, keep=keep) if isinstance(value, DTensor) else value
            for name, value in moments.items()
        }
        for number, moments in state["state"].items()
    }
    return state if keep else None


def _on_cpu(tensor: Tensor, *, keep: bool) -> Tensor:
    full = whole(tensor.detach())
    return full.cpu() if keep else full.new_empty(0)


def load_optimizer_state(model: Any, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Continue from the state of one process or of any number, of which each process takes its part."""
    zero = zero_of(model)
    if zero is not None:
        zero.load_optimizer_state(state)
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        number: {name: part_of(value, parameters[number]) for name, value in saved.items()}
        for number, saved in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": moments})
