"""The adapter to vLLM: the one file that knows its interface, at the versions of ``VLLM_VERSIONS``.

The policy stays the one that sees. Its own vision tower turns pictures into features, and those go to vLLM
instead of pictures (``image_embeds``), so that no picture is resized a second time, no other image processor
rounds otherwise, and no features of an earlier tower can be found under the digest of a picture. Three things
would go wrong without a word, and are checked:

weights    every parameter of vLLM's model is filled at each hand-over, by names that it knows: it refuses
           those that it does not, and a parameter that none was meant for ends the run here. Weights that
           are asked to be ``dummy`` at the start would show at once if one were forgotten.
caches     prefixes and image features of earlier weights are dropped at each hand-over.
prompts    vLLM is given one placeholder per picture and widens it itself; what it says that the prompt has
           become must be ours, token by token. What it then sampled is compared by log-probability with the
           training forward, see ``rollout.vllm.max_logprob_gap``.

Sources, read at v0.32.0 and v0.33.0: ``LLM`` (vllm/entrypoints/llm.py: generate, collective_rpc, sleep,
wake_up, reset_prefix_cache, reset_mm_cache) and ``LLMEngine.reset_encoder_cache``; ``SamplingParams``
(vllm/sampling_params.py); embeddings of Qwen2.5-VL (vllm/model_executor/models/qwen2_5_vl.py,
docs.vllm.ai/en/v0.32.0/features/multimodal_inputs, "Embedding Inputs"); ``Worker.reload_weights``
(vllm/v1/worker/gpu_worker.py) and ``worker_extension_cls`` (docs.vllm.ai/en/v0.32.0/training/rlhf);
docs.vllm.ai/en/v0.32.0/features/sleep_mode; of the server vllm/entrypoints/serve/dev/{rpc,cache}/
api_router.py (VLLM_SERVER_DEV_MODE=1), serve/lora/api_router.py (VLLM_ALLOW_RUNTIME_LORA_UPDATING=1) and
openai/chat_completion/protocol.py. Known faults of other trainers, met by the above: trl#7198 and
vllm#44910 (stale image features; ``reset_mm_cache`` alone leaves the encoder's), trl#6401 (widened prompt and
raw picture), trl#5269 and vllm#48019 (names of weights), trl#6688 (adapters merged in place), trl#5312 (sleep
level 2 drops weights).
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qhk.errors import UserError
from qhk.files import writing
from qhk.policy.adapter import merged_weights, save_language_adapter
from qhk.policy.load import Policy
from qhk.policy.packed import encode_images
from qhk.policy.prompt import EncodedPrompt
from qhk.rollout.decode import Group
from qhk.rollout.installed import installed_problem, refuse, too_short, version_problem
from qhk.settings.rollout import RolloutSettings, VllmSettings

RECEIVER = "qhk.rollout.vllm.WeightReceiver"
WEIGHTS_FILE = "model.safetensors"
SHARD_BYTES = 4 << 30
TIMEOUT_S = 1800.0
"""How long a server may take over one call: a rollout of long answers, or reading a large model."""


class WeightReceiver:
    """What ``worker_extension_cls`` adds to vLLM's worker: weights in, an account of what they filled out."""

    def receive_policy(self: Any, weights: str | Iterable[tuple[str, Tensor]]) -> dict[str, Any]:
        """Load weights, by name or from the files of a folder; return how many were filled, and which not.

        ``Worker.reload_weights`` undoes and redoes whatever a kernel does to its weights, and drops what was
        computed from the earlier ones, but only logs what it did not load; so its loader is watched.
        """
        model = self.model_runner.get_model()
        # A model that takes adapters wraps the layers beside which they may stand.
        wanted = {name.replace(".base_layer.", ".") for name, _ in model.named_parameters()}
        filled: set[str] = set()
        plain = model.load_weights

        def watched(items: Iterable[tuple[str, Tensor]]) -> set[str]:
            loaded: set[str] = plain(items)
            filled.update(loaded)
            return loaded

        model.load_weights = watched
        try:
            items = _read_shards(Path(weights)) if isinstance(weights, str) else iter(weights)
            self.reload_weights(weights_iterator=items)
        finally:
            del model.load_weights
        head = getattr(model.get_language_model(), "lm_head", None)
        if head is not None and hasattr(head, "quant_method"):
            # One that shares the embedding's weights has received none, and kernels of the CPU keep a copy.
            head.quant_method.process_weights_after_loading(head)
        return {"filled": len(wanted & filled), "missing": sorted(wanted - filled)}


def _read_shards(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for file in sorted(folder.glob("*.safetensors")):
        yield from load_file(file).items()


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt to sample a group from, with the features (image tokens, hidden) of its pictures."""

    prompt: EncodedPrompt
    features: Tensor
    seed: int

    @property
    def grids(self) -> list[list[int]]:
        """Return the patches (t, h, w) of each picture."""
        return [list(map(int, grid)) for grid in self.prompt.image_grid_thw.tolist()]

    def picture_features(self) -> list[Tensor]:
        """Return the features of each picture, on the CPU."""
        sizes = [t * h * w for t, h, w in self.grids]
        share = len(self.features) / sum(sizes)  # patches are merged before they become tokens
        return list(torch.split(self.features.cpu(), [round(size * share) for size in sizes]))

    def narrow_ids(self) -> list[int]:
        """Return the prompt's ids with one placeholder for each picture, as vLLM's processor expects them.

        Given a widened prompt beside a picture, it would take the first placeholder for the whole picture and
        shift all that follows.
        """
        ids, is_image = self.prompt.input_ids.tolist(), self.prompt.is_image.tolist()
        return [
            token
            for place, token in enumerate(ids)
            if not (is_image[place] and place and is_image[place - 1])
        ]


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """One completion as the engine gives it: ids, their log-probabilities, whether the limit ended it."""

    ids: list[int]
    logprobs: list[float]
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What the engine made of a request: the prompt's ids as it saw them, and the completions."""

    prompt_ids: list[int]
    completions: list[Sampled]


class Connection(Protocol):
    """A vLLM in this process, or a server."""

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> Mapping[str, Any]:
        """Hand over all weights; return the account of ``WeightReceiver``."""

    def load_adapter(self, policy: Policy) -> None:
        """Hand over the policy's adapter, which all requests then use."""

    def reset_caches(self) -> None:
        """Drop what was computed with earlier weights."""

    def generate(
        self, requests: Sequence[Request], rollout: RolloutSettings, end_tokens: Sequence[int]
    ) -> list[Answered]:
        """Return what was sampled, in the order of the requests."""

    def rest(self) -> None:
        """Give memory back until weights are loaded again."""


class VllmEngine:
    """Samples by vLLM with the weights that it was given last, see the top of this file."""

    is_exact = False

    def __init__(self, connection: Connection, options: VllmSettings) -> None:
        self.connection, self.options = connection, options

    @property
    def is_shared(self) -> bool:
        return self.options.mode == "server"

    def load(self, policy: Policy) -> None:
        """Hand the policy's weights over, and drop what vLLM computed with earlier ones.

        Of a policy with an adapter, whole weights with the adapter in them, added to copies, or the adapter
        alone. Raises ``UserError`` where a parameter of vLLM's model was not among them.
        """
        if policy.base is not None and self.options.adapter == "alone":
            self.connection.load_adapter(policy)
        else:
            account = self.connection.load_weights(merged_weights(policy.model))
            missing = account["missing"]
            if missing or not account["filled"]:
                raise UserError(
                    f"rollout.engine: vllm has {len(missing)} weights that the policy has not, such as "
                    f"{next(iter(missing), 'all')}; it was started with another model, or names them "
                    "otherwise in this version"
                )
        self.connection.reset_caches()

    def rest(self) -> None:
        """Give the GPU's memory back to the policy, where the engine shares it."""
        self.connection.rest()

    def sample(
        self,
        policy: Policy,
        prompts: Sequence[EncodedPrompt],
        streams: Sequence[np.random.Generator],
        *,
        rollout: RolloutSettings,
        features: Sequence[Tensor],
    ) -> list[Group]:
        """Return one sampled group per prompt, each with a seed of its own from its stream.

        Seeds make a request repeatable; how its tokens come out still depends, in the last bits of vLLM's
        kernels, on what it is batched with.
        """
        if not prompts:
            return []
        features = features or self._features(policy, prompts)
        requests = [
            Request(prompt=prompt, features=own, seed=int(stream.integers(2**31)))
            for prompt, own, stream in zip(prompts, features, streams, strict=True)
        ]
        longest = max(prompt.num_tokens for prompt in prompts) + rollout.max_new_tokens
        if self.options.max_model_len is not None and longest > self.options.max_model_len:
            raise UserError(too_short(self.options.max_model_len, longest))
        answered = self.connection.generate(requests, rollout, policy.end_tokens)
        return [
            _group(request, one, group_size=rollout.group_size, end_tokens=policy.end_tokens)
            for request, one in zip(requests, answered, strict=True)
        ]

    def _features(self, policy: Policy, prompts: Sequence[EncodedPrompt]) -> list[Tensor]:
        """Of a tower that learns, whose features nobody else has; one prompt at a time bounds memory."""
        with torch.no_grad():
            return [encode_images(policy.model, [prompt]) for prompt in prompts]


def _group(request: Request, answered: Answered, *, group_size: int, end_tokens: Sequence[int]) -> Group:
    """Return the completions of one prompt. Raises ``UserError`` where they cannot be those asked for."""
    prompt = request.prompt.input_ids.tolist()
    if answered.prompt_ids != prompt:
        places = zip(prompt, answered.prompt_ids, strict=False)
        first = next((place for place, (a, b) in enumerate(places) if a != b), "the end")
        raise UserError(
            f"rollout.engine: vllm read another prompt, of {len(answered.prompt_ids)} tokens for "
            f"{len(prompt)}, different from token {first} on; give it the policy's tokenizer and template"
        )
    assert len(answered.completions) == group_size, f"{len(answered.completions)} completions"
    for one in answered.completions:
        assert len(one.ids) == len(one.logprobs) > 0
        assert one.truncated or one.ids[-1] in end_tokens, f"ended by {one.ids[-1]}"
    return Group(
        completion_ids=[torch.tensor(one.ids) for one in answered.completions],
        logprobs=[torch.tensor(one.logprobs, dtype=torch.float64) for one in answered.completions],
        truncated=[one.truncated for one in answered.completions],
    )


class Colocated:
    """A vLLM in this process, on the same GPU as the policy that learns.

    It is started with weights of its own only where adapters are handed over alone. Those stay, in the memory
    of the CPU while it sleeps; others are dropped.
    """

    def __init__(
        self,
        folder: str,
        options: VllmSettings,
        rollout: RolloutSettings,
        *,
        dtype: str,
        max_model_len: int,
        num_pictures: int,
        adapter_rank: int | None,
        processes: int,
    ) -> None:
        refuse(installed_problem())
        # In this process, where weights are handed over as they are; read by vLLM as it is imported.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import LLM

        self.options, self.keeps_base = options, adapter_rank is not None
        self._adapter: Any = None
        adapters = {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(adapter_rank)}
        with torch.random.fork_rng():  # it seeds the whole process
            self.llm = LLM(
                model=folder,
                dtype=dtype,
                load_format="auto" if self.keeps_base else "dummy",
                max_model_len=max_model_len,
                max_num_seqs=rollout.decode_batch,
                gpu_memory_utilization=options.gpu_memory_utilization,
                enable_sleep_mode=options.sleep,
                enforce_eager=options.enforce_eager,
                limit_mm_per_prompt={"image": num_pictures, "video": 0},
                enable_mm_embeds=True,
                skip_mm_profiling=True,  # its tower sees no picture
                mm_processor_cache_gb=0,
                logprobs_mode="processed_logprobs",  # of what is sampled from, temperature included
                generation_config="vllm",  # nothing is read from a checkpoint's own
                worker_extension_cls=RECEIVER,
                distributed_executor_backend="external_launcher" if processes > 1 else None,
                seed=0,
                **(adapters if self.keeps_base else {}),
            )
        self.rest()

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> Mapping[str, Any]:
        """Hand over all weights, one after another, in memory."""
        self._wake("weights")
        (account,) = self.llm.collective_rpc("receive_policy", args=(weights,))
        self._wake("kv_cache")
        return dict(account)

    def load_adapter(self, policy: Policy) -> None:
        """Hand over the adapter by way of a folder, under a number that vLLM has not seen yet."""
        from vllm.lora.request import LoRARequest

        self._wake("weights")
        self._wake("kv_cache")
        number = 1 if self._adapter is None else self._adapter.lora_int_id + 1
        with _exchange(self.options) as folder:
            save_language_adapter(policy.model, folder)
            request = LoRARequest(f"policy-{number}", number, str(folder))
            if not self.llm.llm_engine.add_lora(request):
                raise UserError(
                    f"rollout.vllm.adapter: vllm did not take the adapter in {folder}; use merged"
                )
        if self._adapter is not None:
            self.llm.llm_engine.remove_lora(self._adapter.lora_int_id)
        self._adapter = request

    def reset_caches(self) -> None:
        """Drop prefixes, and features both where they are computed and where requests are read."""
        if not self.llm.reset_prefix_cache():
            raise UserError(
                "rollout.engine: vllm kept its prefix cache, of weights that are no longer the policy's"
            )
        self.llm.reset_mm_cache()
        self.llm.llm_engine.reset_encoder_cache()

    def generate(
        self, requests: Sequence[Request], rollout: RolloutSettings, end_tokens: Sequence[int]
    ) -> list[Answered]:
        """Return what was sampled, in the order of the requests."""
        from vllm import SamplingParams

        outputs = self.llm.generate(
            [
                {
                    "prompt_token_ids": request.narrow_ids(),
                    "multi_modal_data": {
                        "image": {
                            "image_embeds": request.features.cpu(),
                            "image_grid_thw": request.prompt.image_grid_thw.cpu(),
                        }
                    },
                }
                for request in requests
            ],
            [
                SamplingParams(
                    n=rollout.group_size,
                    temperature=rollout.temperature,
                    max_tokens=rollout.max_new_tokens,
                    stop_token_ids=list(end_tokens),
                    logprobs=0,  # of the sampled token alone
                    detokenize=False,
                    seed=request.seed,
                )
                for request in requests
            ],
            use_tqdm=False,
            lora_request=self._adapter,
        )
        return [
            Answered(
                prompt_ids=list(output.prompt_token_ids),
                completions=[
                    Sampled(
                        ids=list(one.token_ids),
                        logprobs=[
                            place[token].logprob
                            for token, place in zip(one.token_ids, one.logprobs, strict=True)
                        ],
                        truncated=one.finish_reason == "length",
                    )
                    for one in sorted(output.outputs, key=lambda one: one.index)
                ],
            )
            for output in outputs
        ]

    def rest(self) -> None:
        """Sleep: keys and values are dropped, and weights, but for a base that stays, in the CPU's memory."""
        if self.options.sleep:
            self.llm.sleep(level=1 if self.keeps_base else 2)

    def _wake(self, part: str) -> None:
        if self.options.sleep:
            torch.cuda.empty_cache()
            self.llm.wake_up(tags=[part])


def _rank(rank: int | None) -> int:
    """The smallest rank that vLLM has kernels for, which holds the adapter's."""
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= (rank or 1)), rank or 1)


class Server:
    """A ``vllm serve`` that all processes ask, started as conf/README.md says.

    Weights go through the folder ``exchange``, which both sides see. Raises ``UserError`` where there is no
    server, where it is of another version, and where its context is too short.
    """

    def __init__(
        self, options: VllmSettings, *, max_model_len: int, client: httpx.Client | None = None
    ) -> None:
        assert options.url is not None
        self.options, self.url = options, options.url
        self.client = client or httpx.Client(base_url=self.url, timeout=TIMEOUT_S, trust_env=False)
        refuse(version_problem(str(self._call("GET", "/version")["version"]), f"at {self.url}"))
        (model, *_) = self._call("GET", "/v1/models")["data"]
        self.model = self._base = str(model["id"])
        if model["max_model_len"] < max_model_len:
            refuse(
                f"rollout.vllm.url: {self.url} has a context of {model['max_model_len']} tokens; "
                f"start it with --max-model-len {max_model_len}"
            )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> Mapping[str, Any]:
        """Write the weights into the folder, and let every worker of the server read them."""
        with _exchange(self.options) as folder:
            _write_shards(weights, folder)
            body = {"method": "receive_policy", "args": [str(folder)]}
            accounts = self._call("POST", "/collective_rpc", json=body)["results"]
        return {
            "filled": min(account["filled"] for account in accounts),
            "missing": sorted({name for account in accounts for name in account["missing"]}),
        }

    def load_adapter(self, policy: Policy) -> None:
        """Write the adapter into the folder, and let the server take it in the place of the one before."""
        with _exchange(self.options) as folder:
            save_language_adapter(policy.model, folder)
            body = {"lora_name": "policy", "lora_path": str(folder), "load_inplace": self.model == "policy"}
            self._call("POST", "/v1/load_lora_adapter", json=body)
        self.model = "policy"

    def reset_caches(self) -> None:
        """Drop prefixes, and features both where they are computed and where requests are read."""
        kept = self._call("POST", "/reset_prefix_cache").get("success") is False
        refuse(
            f"rollout.engine: the server at {self.url} kept its prefix cache; is another run using it?" * kept
        )
        self._call("POST", "/reset_mm_cache")
        self._call("POST", "/reset_encoder_cache")

    def generate(
        self, requests: Sequence[Request], rollout: RolloutSettings, end_tokens: Sequence[int]
    ) -> list[Answered]:
        """Return what was sampled; requests are under way together, as many as ``decode_batch`` allows."""
        together = max(1, rollout.decode_batch // rollout.group_size)
        with ThreadPoolExecutor(min(together, len(requests))) as pool:
            return list(pool.map(lambda request: self._ask(request, rollout, end_tokens), requests))

    def rest(self) -> None:
        """Do nothing: a server has memory of its own."""

    def _ask(self, request: Request, rollout: RolloutSettings, end_tokens: Sequence[int]) -> Answered:
        body = {
            "model": self.model,
            "messages": _messages(request),
            "n": rollout.group_size,
            "temperature": rollout.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "max_completion_tokens": rollout.max_new_tokens,
            "stop_token_ids": list(end_tokens),
            "logprobs": True,
            "top_logprobs": 0,
            "seed": request.seed,
            "return_token_ids": True,
        }
        said = self._call("POST", "/v1/chat/completions", json=body)
        return Answered(
            prompt_ids=said["prompt_token_ids"],
            completions=[
                Sampled(
                    ids=choice["token_ids"],
                    logprobs=[place["logprob"] for place in choice["logprobs"]["content"]],
                    truncated=choice["finish_reason"] == "length",
                )
                for choice in sorted(said["choices"], key=lambda choice: choice["index"])
            ],
        )

    def _call(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """Return what the server answers. Raises ``UserError`` naming it where it does not."""
        try:
            reply = self.client.request(method, path, **body)
        except httpx.HTTPError as error:
            raise UserError(
                f"rollout.vllm.url: no answer from {self.url}{path} ({type(error).__name__}: {error}); "
                "start the server, or give its address"
            ) from error
        if reply.status_code != 200:
            fix = "start it with VLLM_SERVER_DEV_MODE=1" if reply.status_code == 404 else "its log says why"
            said = " ".join(reply.text.split())[:300]
            raise UserError(f"rollout.vllm.url: {self.url}{path} answers {reply.status_code} ({said}); {fix}")
        return (
            dict(reply.json()) if reply.headers.get("content-type", "").startswith("application/json") else {}
        )


def _messages(request: Request) -> list[dict[str, Any]]:
    """The prompt's messages with the features of a picture in each of its places."""
    pictures = iter(zip(request.picture_features(), request.grids, strict=True))

    def part(content: Mapping[str, Any]) -> dict[str, Any]:
        if content["type"] != "image":
            return dict(content)
        features, grid = next(pictures)
        embeds = {"image_embeds": _encoded(features), "image_grid_thw": _encoded(torch.tensor(grid))}
        return {"type": "image_embeds", "image_embeds": embeds}

    return [
        {
            **message,
            "content": message["content"]
            if isinstance(message["content"], str)
            else [part(content) for content in message["content"]],
        }
        for message in request.prompt.messages
    ]


def _encoded(tensor: Tensor) -> str:
    buffer = io.BytesIO()
    torch.save(tensor.clone(), buffer)
    return base64.b64encode(buffer.getvalue()).decode()


class _exchange:
    """A folder that is there inside the block, below the one that both sides see."""

    def __init__(self, options: VllmSettings) -> None:
        self.parent = Path(options.exchange)

    def __enter__(self) -> Path:
        with writing(self.parent):
            self.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix="policy_", dir=self.parent))
        return self.folder

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _write_shards(weights: Iterable[tuple[str, Tensor]], folder: Path) -> None:
    """Write weights into files of a few GiB, so that not all of them are copied at a time."""
    shard, size, number = dict[str, Tensor](), 0, 0

    def write() -> None:
        with writing(folder):
            save_file(shard, folder / f"{number:05d}.safetensors")

    for name, tensor in weights:
        shard[name] = tensor.detach().cpu().contiguous()
        size += tensor.numel() * tensor.element_size()
        if size >= SHARD_BYTES:
            write()
            shard, size, number = {}, 0, number + 1
    if shard:
        write()
