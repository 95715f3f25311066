"""vLLM as far as the adapter speaks to it: its documented calls, with a tiny policy inside that samples.

It is strict where vLLM is (unknown arguments, weights and routes), and silent where vLLM is: a widened prompt
beside a picture is widened once more, weights that did not come stay, and what was computed with earlier
weights is used again if it was not dropped.
"""

from __future__ import annotations

import base64
import copy
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import numpy as np
import torch
from torch import Tensor, nn

from qhk.policy.adapter import load_adapter
from qhk.policy.load import Policy
from qhk.policy.prompt import EncodedPrompt, rotary_positions
from qhk.policy.template import render_chat
from qhk.policy.tokenizer import CHAT_TEMPLATE
from qhk.rollout.decode import sample_groups

VERSION = "0.33.0"

ARGUMENTS = {
    *("model", "dtype", "load_format", "max_model_len", "max_num_seqs", "gpu_memory_utilization"),
    *("enable_sleep_mode", "limit_mm_per_prompt", "enable_mm_embeds", "mm_processor_cache_gb"),
    *(
        "skip_mm_profiling",
        "enforce_eager",
        "logprobs_mode",
        "generation_config",
        "worker_extension_cls",
        "seed",
    ),
    *("distributed_executor_backend", "enable_lora", "max_loras", "max_lora_rank"),
}
"""Of ``LLM`` and ``EngineArgs`` at v0.32.0 and v0.33.0, those that are used."""


@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = 16
    stop_token_ids: list[int] = field(default_factory=list)
    logprobs: int | None = None
    detokenize: bool = True
    seed: int | None = None


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


FUSED = {
    "self_attn.q_proj": "self_attn.qkv_proj",
    "self_attn.k_proj": "self_attn.qkv_proj",
    "self_attn.v_proj": "self_attn.qkv_proj",
    "mlp.gate_proj": "mlp.gate_up_proj",
    "mlp.up_proj": "mlp.gate_up_proj",
}


def own_name(name: str) -> str:
    """The name of a weight inside vLLM: other prefixes, and some layers in one."""
    for before, after in (
        ("model.language_model.", "language_model.model."),
        ("model.visual.", "visual."),
        ("lm_head.", "language_model.lm_head."),
    ):
        if name.startswith(before):
            name = after + name.removeprefix(before)
            break
    for before, after in FUSED.items():
        name = name.replace(before, after)
    return name


class Model:
    """vLLM's model around a policy's: fused names, and a loader that refuses what it does not know."""

    def __init__(self, plain: nn.Module, extra: Sequence[str]) -> None:
        self.plain, self.extra, self.head_is_new = plain, extra, True

    def get_language_model(self) -> Any:
        """A head that shares the embedding's weights: a kernel's copy of them is made anew when asked for."""
        return SimpleNamespace(lm_head=SimpleNamespace(quant_method=self))

    def process_weights_after_loading(self, head: Any) -> None:
        self.head_is_new = True

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.plain.named_parameters():
            if ".lora_" not in name:
                yield own_name(name), parameter
        yield from ((name, torch.zeros(1)) for name in self.extra)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        places = dict(self.plain.named_parameters())
        loaded, self.head_is_new = set[str](), False
        for name, tensor in weights:
            if name not in places:
                raise ValueError(f"There is no module or parameter named {name!r} in the model")
            with torch.no_grad():
                places[name].copy_(tensor)
            loaded.add(own_name(name))
        return loaded


class Worker:
    """The worker that an extension is mixed into."""

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.model_runner = SimpleNamespace(get_model=lambda: llm.model)

    def reload_weights(self, weights_iterator: Iterable[tuple[str, Tensor]]) -> None:
        assert "weights" in self.llm.awake, "loads into memory that is not there"
        self.llm.model.load_weights((name, tensor.to(self.llm.rounds)) for name, tensor in weights_iterator)


class LLM:
    """``vllm.LLM`` with a copy of ``policy`` inside, whose weights are rounded to ``rounds``."""

    policy: Callable[[], Policy]
    rounds: torch.dtype = torch.float64
    extra: Sequence[str] = ()
    drops_caches = True
    is_spoiled = False
    made: list[LLM]

    def __init__(self, **arguments: Any) -> None:
        assert set(arguments) <= ARGUMENTS, set(arguments) - ARGUMENTS
        self.arguments, self.copy = arguments, type(self).policy()
        self.made.append(self)
        if arguments["load_format"] == "dummy":
            self._spoil()
        self.model, self.llm_engine = Model(self.copy.model, self.extra), self
        self.adapters: dict[int, LoRARequest] = {}
        self.awake, self.resets, self.read_resets = {"weights", "kv_cache"}, 0, 0
        self.prefixes: dict[bytes, nn.Module] = {}
        module, _, name = arguments["worker_extension_cls"].rpartition(".")
        extension = getattr(import_module(module), name)
        self.worker = type("Extended", (Worker, extension), {})(self)

    def _spoil(self) -> None:
        self.is_spoiled = True
        with torch.no_grad():
            for parameter in self.copy.model.parameters():
                parameter.fill_(torch.nan)

    # --- control

    def collective_rpc(
        self, method: str, timeout: Any = None, args: Any = (), kwargs: Any = None
    ) -> list[Any]:
        return [getattr(self.worker, method)(*args, **(kwargs or {}))]

    def sleep(self, level: int = 1) -> None:
        self.awake = set()
        self.reset_prefix_cache()
        if level == 2:
            self._spoil()

    def wake_up(self, tags: list[str]) -> None:
        self.awake |= set(tags)

    def reset_prefix_cache(self) -> bool:
        self.prefixes = {}
        return self.drops_caches

    def reset_mm_cache(self) -> None:
        """What requests were read into, not what the tower made of it."""
        self.read_resets += 1

    def reset_encoder_cache(self) -> None:
        self.resets += 1

    def add_lora(self, request: LoRARequest) -> bool:
        assert self.arguments["enable_lora"]
        self.copy = type(self).policy()
        self.model = Model(self.copy.model, self.extra)
        if self.is_spoiled:
            self._spoil()
        load_adapter(self.copy.model, Path(request.lora_path))
        self.adapters[request.lora_int_id] = request
        return True

    def remove_lora(self, number: int) -> bool:
        return self.adapters.pop(number) is not None

    # --- sampling

    def generate(
        self,
        prompts: Sequence[Mapping[str, Any]],
        sampling_params: Sequence[SamplingParams],
        *,
        use_tqdm: bool,
        lora_request: LoRARequest | None = None,
    ) -> list[Any]:
        assert self.awake == {"weights", "kv_cache"}
        assert lora_request is None or lora_request.lora_int_id in self.adapters
        assert self.arguments["enable_mm_embeds"] and self.arguments["logprobs_mode"] == "processed_logprobs"
        pairs = zip(prompts, sampling_params, strict=True)
        return [self._answer(prompt, params) for prompt, params in pairs]

    def _answer(self, asked: Mapping[str, Any], params: SamplingParams) -> Any:
        picture = asked["multi_modal_data"]["image"]
        grid, features = picture["image_grid_thw"], picture["image_embeds"]
        assert len(grid) <= self.arguments["limit_mm_per_prompt"]["image"]
        merge = self.copy.image_processor.merge_size
        ids = widened(asked["prompt_token_ids"], grid, self.copy.encoder.image_token_id, merge)
        assert len(ids) + params.max_tokens <= self.arguments["max_model_len"]
        is_image = torch.tensor(ids) == self.copy.encoder.image_token_id
        key = json.dumps(ids).encode() + features.float().numpy().tobytes()
        model = self.prefixes.setdefault(key, copy.deepcopy(self.copy.model))
        if not self.model.head_is_new:
            model.lm_head.weight.data.mul_(0.5)
        if int(is_image.sum()) != len(features):  # shifted: the pictures' features end too early
            features = torch.cat([features, features[-1:].expand(int(is_image.sum()) - len(features), -1)])
            positions, following = torch.arange(len(ids)).expand(3, -1), len(ids)
        else:
            positions, following = rotary_positions(is_image, grid, merge_size=merge)
        prompt = EncodedPrompt(
            input_ids=torch.tensor(ids),
            is_image=is_image,
            position_ids=positions,
            next_position=following,
            pixel_values=torch.empty(0),
            image_grid_thw=grid,
        )
        (group,) = sample_groups(
            model,
            [prompt],
            np.random.default_rng(params.seed).random((1, params.n, params.max_tokens)),
            temperature=params.temperature,
            end_tokens=params.stop_token_ids,
            features=features.to(model.dtype),
        )
        assert params.logprobs == 0 and not params.detokenize
        return SimpleNamespace(
            prompt_token_ids=ids,
            outputs=[
                SimpleNamespace(
                    index=index,
                    token_ids=tuple(own.tolist()),
                    logprobs=[
                        {token: SimpleNamespace(logprob=value)}
                        for token, value in zip(own.tolist(), values.tolist(), strict=True)
                    ],
                    finish_reason="length" if cut else "stop",
                )
                for index, (own, values, cut) in enumerate(
                    zip(group.completion_ids, group.logprobs, group.truncated, strict=True)
                )
            ],
        )


def widened(ids: Sequence[int], grid: Tensor, image_token: int, merge: int) -> list[int]:
    """The prompt with its first placeholders, one per picture, replaced by the tokens of the picture."""
    counts = iter([t * h * w // merge**2 for t, h, w in grid.tolist()])
    out: list[int] = []
    for token in ids:
        out += [token] * next(counts, 1) if token == image_token else [token]
    return out


def install(monkeypatch: Any, policy: Callable[[], Policy], **behaviour: Any) -> type[LLM]:
    """Make ``import vllm`` find the fake, with a policy of the given kind inside; return its ``LLM``."""
    own = type("LLM", (LLM,), {"policy": staticmethod(policy), "made": [], **behaviour})
    vllm, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    vllm.LLM, vllm.SamplingParams, request.LoRARequest = own, SamplingParams, LoRARequest  # type: ignore[attr-defined]
    for name, module in (("vllm", vllm), ("vllm.lora", lora), ("vllm.lora.request", request)):
        monkeypatch.setitem(import_module("sys").modules, name, module)
    monkeypatch.setattr("qhk.rollout.installed.find_spec", lambda name: object())
    monkeypatch.setattr("qhk.rollout.installed.version", lambda name: VERSION)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")  # undone after the test
    return own


class Serving:
    """``vllm serve`` around the fake: the routes that are used, by name and body."""

    def __init__(self, llm: LLM, *, version: str = VERSION) -> None:
        self.llm, self.version = llm, version
        self.calls: list[str] = []

    def client(self, url: str) -> httpx.Client:
        return httpx.Client(base_url=url, transport=httpx.MockTransport(self.answer))

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.calls.append(path)
        body = json.loads(request.content) if request.content else {}
        if path == "/version":
            return httpx.Response(200, json={"version": self.version})
        if path == "/v1/models":
            length = self.llm.arguments["max_model_len"]
            return httpx.Response(200, json={"data": [{"id": "base", "max_model_len": length}]})
        if path == "/collective_rpc":
            return httpx.Response(
                200, json={"results": self.llm.collective_rpc(body["method"], args=body["args"])}
            )
        if path == "/reset_prefix_cache":
            return httpx.Response(200, json={"success": self.llm.reset_prefix_cache()})
        if path in ("/reset_mm_cache", "/reset_encoder_cache"):
            getattr(self.llm, path[1:])()
            return httpx.Response(200)
        if path == "/v1/load_lora_adapter":
            assert body["load_inplace"] == bool(self.llm.adapters)
            self.llm.add_lora(LoRARequest(body["lora_name"], 1, body["lora_path"]))
            return httpx.Response(200, text="Success")
        if path == "/v1/chat/completions":
            return httpx.Response(200, json=self._complete(body))
        return httpx.Response(404, json={"detail": "Not Found"})

    def _complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        assert body["model"] == ("policy" if self.llm.adapters else "base")
        assert body["logprobs"] and body["return_token_ids"]
        embeds, messages = list[Mapping[str, Tensor]](), []
        for message in body["messages"]:
            parts = []
            for part in message["content"]:
                if part["type"] == "image_embeds":
                    embeds.append({key: decoded(value) for key, value in part["image_embeds"].items()})
                    count = (
                        int(embeds[-1]["image_grid_thw"].prod())
                        // self.llm.copy.image_processor.merge_size**2
                    )
                    assert len(embeds[-1]["image_embeds"]) == count, "features of another picture"
                    part = {"type": "image"}
                parts.append(part)
            messages.append({**message, "content": parts})
        tokenizer = self.llm.copy.tokenizer
        text = render_chat(tokenizer, messages, own=CHAT_TEMPLATE)
        (output,) = self.llm.generate(
            [
                {
                    "prompt_token_ids": tokenizer(text, add_special_tokens=False)["input_ids"],
                    "multi_modal_data": {
                        "image": {
                            "image_embeds": torch.cat([one["image_embeds"] for one in embeds]),
                            "image_grid_thw": torch.stack([one["image_grid_thw"] for one in embeds]),
                        }
                    },
                }
            ],
            [
                SamplingParams(
                    n=body["n"],
                    temperature=body["temperature"],
                    max_tokens=body["max_completion_tokens"],
                    stop_token_ids=body["stop_token_ids"],
                    logprobs=body["top_logprobs"],
                    detokenize=False,
                    seed=body["seed"],
                )
            ],
            use_tqdm=False,
        )
        choices = [
            {
                "index": one.index,
                "token_ids": list(one.token_ids),
                "logprobs": {
                    "content": [{"logprob": next(iter(place.values())).logprob} for place in one.logprobs]
                },
                "finish_reason": one.finish_reason,
            }
            for one in output.outputs
        ]
        return {"prompt_token_ids": output.prompt_token_ids, "choices": choices[::-1]}


def decoded(text: str) -> Tensor:
    tensor: Tensor = torch.load(io.BytesIO(base64.b64decode(text)), weights_only=True)
    return tensor
