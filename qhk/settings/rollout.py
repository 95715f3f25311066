"""Settings of how completions are sampled."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qhk.errors import UserError
from qhk.settings.base import Count, Node, Positive, Text


class CorrectionSettings(Node):
    """Truncated importance weights between what sampled and what is trained; ``none`` is an exact no-op.

    See ``qhk.objective.correction`` for ``level`` and ``bound``.
    """

    level: Literal["none", "token", "sequence"]
    bound: Annotated[float, Field(ge=1)]


UNCORRECTED = CorrectionSettings(level="none", bound=2.0)
"""Of a run whose policy samples for itself, and of configs from before there was another engine."""


class VllmSettings(Node):
    """How vLLM samples; see ``qhk.rollout.vllm``.

    ``colocated``: every process has an engine of its own on its GPU, of which ``gpu_memory_utilization`` is
    vLLM's share while it samples; it ``sleep``s while the policy learns, and with ``enforce_eager`` captures
    no graphs. ``server``: all processes ask the one at ``url``, which reads weights from the folder
    ``exchange``. ``adapter`` says whether a LoRA adapter
    is handed over ``merged`` into whole weights, or ``alone``. ``max_model_len`` null is what the longest
    prompt and answer need. A step whose mean gap between sampling and training log-probability, in nats per
    token, is above ``max_logprob_gap`` ends the run: such an engine samples from another model.
    """

    mode: Literal["colocated", "server"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+$")] | None
    exchange: Text
    adapter: Literal["merged", "alone"]
    max_model_len: Count | None
    gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)]
    sleep: bool
    enforce_eager: bool
    max_logprob_gap: Positive

    @model_validator(mode="after")
    def _server_has_an_address(self) -> Self:
        if (self.mode == "server") != (self.url is not None):
            raise UserError(
                f"url must be an address with mode server and null otherwise, got {self.url} with {self.mode}"
            )
        return self


class RolloutSettings(Node):
    """How completions are sampled; ``decode_batch`` bounds the sequences decoded together.

    ``engine`` says by what: the ``policy`` itself, exactly as it is trained, or vLLM.
    """

    group_size: Annotated[int, Field(ge=2)]
    max_new_tokens: Count
    temperature: Positive
    decode_batch: Count
    engine: Literal["policy", "vllm"] = "policy"
    correction: CorrectionSettings = UNCORRECTED
    vllm: VllmSettings | None = None

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.decode_batch < self.group_size:
            raise UserError(
                f"decode_batch must be at least group_size {self.group_size}, got {self.decode_batch}"
            )
        return self

    @model_validator(mode="after")
    def _engine_has_its_settings(self) -> Self:
        if (self.engine == "vllm") != (self.vllm is not None):
            raise UserError(
                f"engine {self.engine} goes {'with' if self.engine == 'vllm' else 'without'} the node vllm; "
                "choose rollout=vllm, rollout=vllm_server or rollout=default"
            )
        if self.engine == "policy" and self.correction.level != "none":
            raise UserError(
                f"correction.level {self.correction.level} has no effect with engine policy, which samples "
                "exactly what is trained; leave it none, or choose rollout=vllm"
            )
        return self
