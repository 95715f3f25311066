"""AdamW for weights that live in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from qhk.data.seeds import stream_seed

_DROPPED_BITS = 16
"""How many low bits of a float32 a bfloat16 has no room for."""


def round_stochastically(values: Tensor, generator: torch.Generator) -> Tensor:
    """``values`` (float32) in bfloat16, each rounded to one of its two neighbours so that the mean is exact.

    A value a share s of the way from one bfloat16 to the next (away from zero) goes there with
    probability s: noise of 16 bits is added below the kept bits, which are then cut off. An exact
    bfloat16 stays itself. Infinities and NaN are left to the caller, who has refused such gradients.
    """
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint(
        0, 1 << _DROPPED_BITS, bits.shape, dtype=torch.int32, device=bits.device, generator=generator
    )
    kept = (bits + noise) & ~((1 << _DROPPED_BITS) - 1)
    return kept.view(torch.float32).to(torch.bfloat16)


class StochasticAdamW(torch.optim.Optimizer):
    """AdamW (decoupled weight decay) with float32 moments and arithmetic and stochastically rounded weights.

    A fine-tuning update of about the learning rate, 5e-6, is far below half the distance of two
    bfloat16 numbers around a usual weight (8e-5 at 0.02): rounding to the nearest loses almost all of
    them, and a float32 copy of a 7B model does not fit beside its moments on one card. Rounding at
    random keeps the expected weight exact without that copy. Parameters of other types are updated as
    in plain AdamW. The noise of an update depends on the seed and the update's number alone.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        seed: int,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "updates": 0}
        super().__init__(parameters, defaults)
        self._seed = seed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        assert closure is None, "gradients are accumulated before the step"
        for number, group in enumerate(self.param_groups):
            group["updates"] += 1
            generators: dict[torch.device, torch.Generator] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                device = parameter.device
                if device not in generators:
                    seed = stream_seed(self._seed, "rounding", number, group["updates"])
                    generators[device] = torch.Generator(device).manual_seed(seed % 2**63)
                self._update(parameter, group, generators[device])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a saved state. torch casts moments to the weights' type; here they stay wide."""
        super().load_state_dict(state_dict)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, saved in state_dict["state"].items():
            parameter = parameters[number]
            self.state[parameter] = {name: moment.to(parameter.device) for name, moment in saved.items()}

    def _update(self, parameter: Tensor, group: dict[str, Any], generator: torch.Generator) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        wide = torch.promote_types(parameter.dtype, torch.float32)
        if not state:
            state["mean"] = torch.zeros_like(parameter, dtype=wide)
            state["square"] = torch.zeros_like(parameter, dtype=wide)
        (beta1, beta2), updates = group["betas"], group["updates"]
        gradient = gradient.to(wide)
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        denominator = (state["square"] / (1 - beta2**updates)).sqrt_().add_(group["eps"])
        weight = parameter.to(wide) * (1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(state["mean"], denominator, value=-group["lr"] / (1 - beta1**updates))
        is_narrow = parameter.dtype == torch.bfloat16
        parameter.copy_(round_stochastically(weight, generator) if is_narrow else weight)
