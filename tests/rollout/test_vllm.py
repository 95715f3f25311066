"""The adapter to vLLM, driven by a fake of its documented interface in which a tiny policy samples."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from qhk.errors import UserError
from qhk.policy.adapter import merge_adapter, merged_weights, put_adapter
from qhk.policy.adapter_base import Base
from qhk.policy.load import Policy
from qhk.rollout import installed, vllm
from qhk.rollout.decode import Group
from qhk.rollout.vllm import Colocated, Request, Server, VllmEngine
from qhk.settings.model import AdapterSettings
from qhk.settings.rollout import CorrectionSettings, RolloutSettings, VllmSettings
from tests.conftest import MESSAGES, build_policy, picture
from tests.rollout import fake_vllm
from tests.rollout.fake_vllm import LLM, Serving, install
from tests.rollout.test_decode import scored_at

URL = "http://127.0.0.1:8000"
PAIR = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "blurred"}, {"type": "image"}]}
]


def options(exchange: Path, **changed: Any) -> VllmSettings:
    values: dict[str, Any] = {
        "mode": "colocated",
        "url": None,
        "exchange": str(exchange),
        "adapter": "merged",
        "max_model_len": None,
        "gpu_memory_utilization": 0.4,
        "sleep": True,
        "enforce_eager": False,
        "max_logprob_gap": 0.2,
    }
    return VllmSettings(**(values | changed))


def rollout(own: VllmSettings) -> RolloutSettings:
    return RolloutSettings(
        group_size=3,
        max_new_tokens=8,
        temperature=0.7,
        decode_batch=6,
        engine="vllm",
        correction=CorrectionSettings(level="token", bound=2.0),
        vllm=own,
    )


class Setting:
    """An engine with its fake, a policy, and prompts of one and of two pictures."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.monkeypatch, self.folder = monkeypatch, folder
        self.policy = build_policy()
        self.prompts = [
            self.policy.encoder.encode(MESSAGES, [picture(64, 64)]),
            self.policy.encoder.encode(MESSAGES, [picture(96, 32)]),
            self.policy.encoder.encode(PAIR, [picture(32, 64), picture(64, 64)]),
        ]

    def colocated(self, *, rank: int | None = None, **changed: Any) -> tuple[VllmEngine, LLM]:
        behaviour = {key: changed.pop(key) for key in ("extra", "rounds", "drops_caches") if key in changed}
        kind = install(self.monkeypatch, build_policy, **behaviour)
        self.options = options(self.folder, **changed)
        connection = Colocated(
            "folder",
            self.options,
            rollout(self.options),
            dtype="float32",
            max_model_len=200,
            num_pictures=2,
            adapter_rank=rank,
            processes=1,
        )
        return VllmEngine(connection, self.options), kind.made[-1]

    def server(self, *, rank: int | None = None, **changed: Any) -> tuple[VllmEngine, Serving]:
        _, llm = self.colocated(rank=rank)
        llm.wake_up(["weights", "kv_cache"])
        serving = Serving(llm, **{key: changed.pop(key) for key in ("version",) if key in changed})
        self.options = options(self.folder, mode="server", url=URL, **changed)
        return VllmEngine(
            Server(self.options, max_model_len=200, client=serving.client(URL)), self.options
        ), serving

    def sample(self, engine: VllmEngine, seed: int = 0) -> list[Group]:
        streams = [np.random.default_rng([seed, place]) for place in range(3)]
        return engine.sample(self.policy, self.prompts, streams, rollout=rollout(self.options), features=[])

    def gap(self, groups: list[Group]) -> float:
        """The widest gap between what was sampled with and the training forward."""
        gaps = [
            (scored_at(self.policy, prompt, ids, 0.7) - logprobs).abs().max()
            for prompt, group in zip(self.prompts, groups, strict=True)
            for ids, logprobs in zip(group.completion_ids, group.logprobs, strict=True)
        ]
        return float(torch.stack(gaps).max())

    def learn(self) -> None:
        """Move all weights a little, the tower's too."""
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.policy.model.parameters():
                parameter.add_(
                    0.02 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                )


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, full_precision: None) -> Setting:
    return Setting(monkeypatch, tmp_path / "exchange")


def same(first: list[Group], second: list[Group]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(
        [ids.tolist() for ids in a.completion_ids] == [ids.tolist() for ids in b.completion_ids]
        for a, b in pairs
    )


def test_groups_carry_the_training_forwards_logprobs_through_every_hand_over(setting: Setting) -> None:
    """Neither sleeping, which drops weights, nor prefixes of earlier weights are seen in what is sampled."""
    engine, llm = setting.colocated()
    for _ in range(2):
        engine.load(setting.policy)
        groups = setting.sample(engine)
        assert setting.gap(groups) < 1e-11
        assert same(groups, setting.sample(engine)) and not same(groups, setting.sample(engine, seed=1))
        for group in groups:
            assert len(group.completion_ids) == 3
            for ids, cut in zip(group.completion_ids, group.truncated, strict=True):
                assert (int(ids[-1]) in setting.policy.end_tokens) != cut
                assert len(ids) == 8 or not cut
        engine.rest()
        assert not llm.awake
        setting.learn()
    assert llm.resets == llm.read_resets == 2


def test_without_a_hand_over_the_gap_is_wide(setting: Setting) -> None:
    """What the checks rest on: another model than the trained one cannot hide in the log-probabilities."""
    engine, _ = setting.colocated(sleep=False)
    engine.load(setting.policy)
    setting.learn()
    assert setting.gap(setting.sample(engine)) > 0.05


def test_an_engine_that_sleeps_not_keeps_its_memory(setting: Setting) -> None:
    engine, llm = setting.colocated(sleep=False)
    engine.rest()
    assert llm.awake == {"weights", "kv_cache"} and llm.arguments["enable_sleep_mode"] is False


def test_every_weight_of_the_engine_must_come(setting: Setting) -> None:
    engine, _ = setting.colocated(extra=("language_model.model.layers.0.mlp.new.weight",))
    with pytest.raises(UserError, match=r"1 weights that the policy has not, such as language_model.*new"):
        engine.load(setting.policy)


def test_weights_of_other_names_are_refused(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = setting.colocated()
    renamed = [(name.replace("mlp", "ffn"), value) for name, value in merged_weights(setting.policy.model)]
    monkeypatch.setattr(vllm, "merged_weights", lambda model: iter(renamed))
    with pytest.raises(ValueError, match="no module or parameter named 'model.*ffn"):
        engine.load(setting.policy)
    monkeypatch.setattr(vllm, "merged_weights", lambda model: iter(()))
    with pytest.raises(UserError, match="weights that the policy has not"):
        engine.load(setting.policy)


def test_a_prefix_cache_that_stays_is_refused(setting: Setting) -> None:
    engine, _ = setting.colocated(drops_caches=False)
    with pytest.raises(UserError, match="kept its prefix cache"):
        engine.load(setting.policy)
    with pytest.raises(UserError, match="another run"):
        served, serving = setting.server()
        serving.llm.drops_caches = False
        served.load(setting.policy)


def test_a_widened_prompt_beside_a_picture_is_noticed(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = setting.colocated()
    engine.load(setting.policy)
    monkeypatch.setattr(Request, "narrow_ids", lambda self: self.prompt.input_ids.tolist())
    with pytest.raises(UserError, match=r"read another prompt, of \d+ tokens for \d+, different from token"):
        setting.sample(engine)


def test_pictures_beside_each_other_keep_their_own_place(setting: Setting) -> None:
    """A run of placeholders may be of two pictures: the grids say where one ends."""
    engine, _ = setting.colocated()
    engine.load(setting.policy)
    beside = [
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "?"}]}
    ]
    setting.prompts = [setting.policy.encoder.encode(beside, [picture(32, 64), picture(64, 64)])] * 3
    assert setting.gap(setting.sample(engine)) < 1e-11


def test_known_features_are_used_as_they_are(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = setting.colocated()
    engine.load(setting.policy)
    features = engine._features(setting.policy, setting.prompts)
    groups = setting.sample(engine)
    monkeypatch.setattr(VllmEngine, "_features", None)
    streams = [np.random.default_rng([0, place]) for place in range(3)]
    again = engine.sample(
        setting.policy, setting.prompts, streams, rollout=rollout(setting.options), features=features
    )
    assert same(groups, again)
    none = engine.sample(setting.policy, [], [], rollout=rollout(setting.options), features=[])
    assert none == [], "a process may have no place to fill"


def test_a_prompt_that_does_not_fit_is_refused(setting: Setting) -> None:
    engine, _ = setting.colocated(max_model_len=20)
    engine.load(setting.policy)
    with pytest.raises(UserError, match=r"rollout.vllm.max_model_len: 20 tokens .* give at least \d+"):
        setting.sample(engine)


# --- adapters


LORA = AdapterSettings(
    form="lora",
    rank=4,
    alpha=8.0,
    dropout=0.0,
    targets=["q_proj", "v_proj", "up_proj", "down_proj"],
    vision=True,
    merger=True,
    lr_factor=1.0,
)


@pytest.fixture
def adapted(setting: Setting) -> Setting:
    """The same with an adapter that has learnt."""
    put_adapter(setting.policy.model, LORA, seed=1)
    setting.policy = Policy(
        model=setting.policy.model,
        tokenizer=setting.policy.tokenizer,
        image_processor=setting.policy.image_processor,
        base=Base(path="base", sha256=None, bits=None),
    )
    generator = torch.Generator().manual_seed(2)
    for name, parameter in setting.policy.model.named_parameters():
        if ".lora_" in name:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return setting


def test_merged_weights_are_those_of_a_merge_and_leave_the_base_alone(adapted: Setting) -> None:
    model = adapted.policy.model
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.float() if ".lora_" in name else parameter.data.bfloat16()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = dict(merged_weights(model))
    for _ in range(20):
        again = dict(merged_weights(model))
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "nothing drifts"
    assert all(torch.equal(first[name], again[name]) for name in first)
    whole = copy.deepcopy(model).float()
    merge_adapter(whole)
    expected = {name: value.bfloat16() for name, value in whole.named_parameters()}
    assert first.keys() == expected.keys()
    assert all(torch.equal(first[name], expected[name]) for name in first)


@pytest.mark.parametrize("way", ["merged", "alone"])
@pytest.mark.parametrize("mode", ["colocated", "server"])
def test_an_adapter_samples_as_it_is_trained(adapted: Setting, mode: str, way: str) -> None:
    alone = way == "alone"
    built = adapted.colocated if mode == "colocated" else adapted.server
    engine, _ = built(rank=4 if alone else None, adapter=way)
    for _ in range(2):
        engine.load(adapted.policy)
        assert adapted.gap(adapted.sample(engine)) < 1e-6, "its matrices are float32"
        engine.rest()
        for name, parameter in adapted.policy.model.named_parameters():
            if ".lora_B." in name:
                parameter.data.mul_(-1.5)
    folder = Path(adapted.options.exchange)
    assert not folder.exists() or not list(folder.iterdir()), "nothing is left behind"


# --- a server


def test_a_server_gives_what_a_colocated_engine_gives(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = setting.colocated()
    engine.load(setting.policy)
    expected = setting.sample(engine)
    served, serving = setting.server()
    assert served.is_shared and not engine.is_shared
    monkeypatch.setattr(vllm, "SHARD_BYTES", 1 << 16)
    served.load(setting.policy)
    resets = ["/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache"]
    assert serving.calls == ["/version", "/v1/models", "/collective_rpc", *resets]
    groups = setting.sample(served)
    assert same(groups, expected) and setting.gap(groups) < 1e-11
    assert not list(Path(setting.options.exchange).iterdir()), "nothing is left behind"


def test_a_server_of_another_template_is_noticed(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    served, _ = setting.server()
    served.load(setting.policy)
    rendered = fake_vllm.render_chat
    monkeypatch.setattr(fake_vllm, "render_chat", lambda *args, **keys: rendered(*args, **keys) + "x")
    with pytest.raises(UserError, match="read another prompt"):
        setting.sample(served)


def test_servers_that_cannot_serve_are_refused(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"vllm 0.25.1 is at http://127.0.0.1:8000, .* 0.32 and 0.33"):
        setting.server(version="0.25.1")
    served, serving = setting.server()
    client = serving.client(URL)
    with pytest.raises(UserError, match=r"context of 200 tokens; start it with --max-model-len 201"):
        Server(setting.options, max_model_len=201, client=client)

    def refused(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    nobody = httpx.Client(base_url=URL, transport=httpx.MockTransport(refused))
    with pytest.raises(UserError, match=r"rollout.vllm.url: no answer from http://127.0.0.1:8000/version"):
        Server(setting.options, max_model_len=10, client=nobody)
    answer = serving.answer
    monkeypatch.setattr(
        serving,
        "answer",
        lambda request: httpx.Response(404) if "rpc" in request.url.path else answer(request),
    )
    engine = VllmEngine(
        Server(setting.options, max_model_len=10, client=serving.client(URL)), setting.options
    )
    with pytest.raises(UserError, match="/collective_rpc answers 404 .*VLLM_SERVER_DEV_MODE=1"):
        engine.load(setting.policy)


# --- what is installed


def test_versions_are_pinned_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not installed" in installed.installed_problem() and "qhk[vllm]" in installed.installed_problem()
    monkeypatch.setattr(installed, "find_spec", lambda name: object())
    assert "no installed package" in installed.installed_problem()
    for found, good in (
        ("0.32.0", True),
        ("0.33.1+cpu", True),
        ("0.3", False),
        ("0.330", False),
        ("1.0", False),
    ):
        monkeypatch.setattr(installed, "version", lambda name, found=found: found)
        assert (installed.installed_problem() == "") == good, found


def test_the_engine_is_not_started_without_it(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.colocated()
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="vllm is not installed"):
        Colocated(
            "folder",
            setting.options,
            rollout(setting.options),
            dtype="float32",
            max_model_len=200,
            num_pictures=1,
            adapter_rank=None,
            processes=1,
        )
