"""AdamW with its moments in 8 bits, of torchao: a quarter of their memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from qhk.data.seeds import stream_seed


def build_adamw_8bit(
    parameters: Sequence[nn.Parameter],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    seed: int,
) -> torch.optim.Optimizer:
    """Return torchao's AdamW with moments in 8 bits, block by block of 256 elements.

    The arithmetic is in float32, and weights in bfloat16 are rounded stochastically. The noise of an update
    depends on the seed and the update's number alone, so all processes of ddp round alike, and a resumed run
    rounds as one that was not interrupted.

    Source: 8-bit Optimizers via Block-wise Quantization (arXiv 2110.02861), sections 2 and 3.
    """
    from torchao.optim import AdamW8bit
    from torchao.optim.subclass_8bit import OptimState8bit

    class SeededAdamW8bit(AdamW8bit):
        """With noise of its own, and a state of plain tensors."""

        @torch.no_grad()
        def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
            """Update every parameter that has a gradient."""
            assert closure is None, "gradients are accumulated before the step"
            (group,) = self.param_groups
            group["updates"] += 1
            # The library asks for a tensor, the step sets a number.
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32)
            device = group["params"][0].device
            on_cpu = device.type == "cpu"
            # It compiles its arithmetic, for which a machine without a GPU may lack the compiler.
            eager = torch.compiler.set_stance("force_eager") if on_cpu else nullcontext()
            with torch.random.fork_rng([] if on_cpu else [device]), eager:
                torch.manual_seed(stream_seed(seed, "rounding", group["updates"]) % 2**63)
                super().step()  # type: ignore[no-untyped-call]

        def state_dict(self) -> dict[str, Any]:
            """Return the state; moments in 8 bits are ``codes`` and ``scale``."""
            state = super().state_dict()
            state["state"] = {
                number: {name: _plain(value) for name, value in moments.items()}
                for number, moments in state["state"].items()
            }
            return state

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            """Continue from a saved state. torch would cast scales to the weights' type; here they stay."""
            super().load_state_dict({**state_dict, "state": {}})
            (group,) = self.param_groups
            for number, saved in state_dict["state"].items():
                parameter = group["params"][number]
                self.state[parameter] = {
                    name: self._restored(parameter, name, value) for name, value in saved.items()
                }

        def _restored(self, parameter: Tensor, name: str, value: Any) -> Tensor:
            if name == "step":
                return torch.as_tensor(value)
            moment: Tensor = self._new_buffer(parameter, name == "exp_avg")
            if not isinstance(moment, OptimState8bit):
                return moment.copy_(value)
            moment.codes.copy_(value["codes"])
            moment.scale.copy_(value["scale"])
            return moment

    def _plain(value: Any) -> Any:
        return {"codes": value.codes, "scale": value.scale} if isinstance(value, OptimState8bit) else value

    optimizer = SeededAdamW8bit(
        parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, bf16_stochastic_round=True
    )
    for group in optimizer.param_groups:
        group["updates"] = 0
    return optimizer
