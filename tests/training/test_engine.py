"""An engine beside the policy: given its weights once a step, compared, and corrected in every update."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qhk.errors import UserError
from qhk.objective.aggregate import Counts
from qhk.policy.load import Policy, load_policy
from qhk.policy.packed import encode_images, pack_groups, packed_hidden
from qhk.policy.prompt import EncodedPrompt
from qhk.rollout.decode import sample_groups
from qhk.settings.parse import parse_settings, plain_settings
from qhk.settings.rollout import CorrectionSettings
from qhk.settings.root import Settings
from qhk.training import step
from qhk.training.batch import Batch
from qhk.training.distributed import Processes
from qhk.training.dry_run import run_problems
from qhk.training.forward import make_micro_batches
from qhk.training.kept import Kept
from qhk.training.loop import train
from qhk.training.run import Run
from tests.conftest import MESSAGES, build_policy, picture
from tests.objective.test_total import OFF
from tests.rollout.fake_vllm import install
from tests.rollout.test_decode import scored_at
from tests.training.conftest import interrupt

ADVANTAGES = torch.tensor([[1.3, -0.4, 0.2], [-1.1, 0.6, 0.9]], dtype=torch.float64)


class Scene:
    """Two groups that another engine sampled, and a learner whose updates only remember their gradient."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.policy = build_policy()
        self.prompts = [self.policy.encoder.encode(MESSAGES, [picture(64, side)]) for side in (32, 64)]
        other = copy.deepcopy(self.policy.model)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.05)
        uniforms = np.random.default_rng(4).random((2, 3, 6))
        self.groups = sample_groups(other, self.prompts, uniforms, temperature=1.0, end_tokens=range(60))
        self.start = copy.deepcopy(self.policy.model.state_dict())
        monkeypatch.setattr(step, "apply_update", self._update)

    def _update(self, learner: Any, now: Any) -> float:
        model = learner.policy.model
        self.gradients.append({name: value.grad.clone() for name, value in model.named_parameters()})
        model.zero_grad()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)
        return 0.0

    def update(self, *, level: str = "none", is_exact: bool = False, max_gap: float = 9.0) -> Any:
        """The metrics of two updates; their gradients are remembered."""
        self.policy.model.load_state_dict(self.start)
        self.gradients: list[dict[str, Tensor]] = []
        batch = Batch(
            indices=range(2),
            tasks=[],
            examples=[],
            epochs=[],
            prompts=self.prompts,
            groups=self.groups,
            rewards=torch.zeros(2, 3),
            advantages=ADVANTAGES,
            loss_mask=torch.ones(2, 3, dtype=torch.bool),
            counts=Counts(sequences=6, tokens=sum(group.num_tokens for group in self.groups)),
        )
        rollout = SimpleNamespace(
            temperature=1.0,
            correction=CorrectionSettings.model_construct(level=level, bound=1.1),
            vllm=SimpleNamespace(max_logprob_gap=max_gap),
        )
        learner: Any = SimpleNamespace(
            policy=self.policy,
            processes=Processes("single"),
            engine=SimpleNamespace(is_exact=is_exact),
            settings=SimpleNamespace(
                rollout=rollout,
                objective=SimpleNamespace(updates_per_rollout=2),
                model=SimpleNamespace(branch_checkpointing=False),
            ),
        )
        now: Any = SimpleNamespace(terms=OFF)
        parts = make_micro_batches(self.policy.model, batch, size=1, with_degraded=False, kept=Kept(0))
        return step.update(learner, batch, parts, None, now, measure=False)

    def naive(self, level: str) -> tuple[list[dict[str, Tensor]], list[float]]:
        """The gradients of both updates again, completion by completion; the weights beside them."""
        self.policy.model.load_state_dict(self.start)
        gradients, weights, old = [], list[float](), dict[tuple[int, int], Tensor]()
        for _ in range(2):
            loss = torch.zeros((), dtype=torch.float64)
            for row, (prompt, group) in enumerate(zip(self.prompts, self.groups, strict=True)):
                for place, ids in enumerate(group.completion_ids):
                    present = with_gradient(self.policy, prompt, ids)
                    before = old.setdefault((row, place), present.detach())
                    gaps = (before - group.logprobs[place]).tolist()
                    if level == "sequence":
                        gaps = [math.fsum(gaps)] * len(ids)
                    own = [1.0 if level == "none" else min(math.exp(gap), 1.1) for gap in gaps]
                    weights += own
                    advantage = float(ADVANTAGES[row, place])
                    for token, weight in enumerate(own):
                        ratio = (present[token] - before[token]).exp()
                        gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
                        loss = loss - weight * gain / len(ids) / 6
            names, parameters = zip(*self.policy.model.named_parameters(), strict=True)
            gradients.append(dict(zip(names, torch.autograd.grad(loss, parameters), strict=True)))
            with torch.no_grad():
                for parameter in parameters:
                    parameter.mul_(1.01)
        return gradients, weights


def with_gradient(policy: Policy, prompt: EncodedPrompt, ids: Tensor) -> Tensor:
    packed = pack_groups([prompt], [[ids]], device=ids.device)
    hidden = packed_hidden(policy.model, packed, encode_images(policy.model, [prompt]))
    return policy.model.lm_head(hidden).log_softmax(-1).gather(1, ids[:, None])[:, 0]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, full_precision: None) -> Scene:
    torch.set_num_threads(1)
    return Scene(monkeypatch)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_both_updates_equal_a_loop_and_weigh_by_what_was_sampled(scene: Scene, level: str) -> None:
    metrics = scene.update(level=level).values()
    corrected = scene.gradients
    expected, weights = scene.naive(level)
    for own, other in zip(corrected, expected, strict=True):
        for name in own:
            torch.testing.assert_close(own[name], other[name], rtol=1e-9, atol=1e-12)
    first = weights[: len(weights) // 2]
    assert first == pytest.approx(weights[len(weights) // 2 :]), "a weight belongs to the sampling"
    assert metrics["train/rollout/weight/mean"] == pytest.approx(sum(first) / len(first))
    assert metrics["train/rollout/weight/min"] == pytest.approx(min(first))
    share = sum(weight == 1.1 for weight in first) / len(first)
    assert 0 < share < 1 and metrics["train/rollout/weight/truncated_frac"] == pytest.approx(share)
    scene.update()
    assert not any(equal(a, b) for a, b in zip(corrected, scene.gradients, strict=True)), "the gradient moves"


def test_without_a_correction_nothing_is_done_but_measured(scene: Scene) -> None:
    exact = scene.update(is_exact=True).values()
    plain = scene.gradients
    metrics = scene.update().values()
    assert all(equal(a, b) for a, b in zip(plain, scene.gradients, strict=True)), "bit for bit"
    added = set(metrics) - set(exact)
    assert added == {"train/rollout/logprob_gap/mean", "train/rollout/kl"}
    scene.policy.model.load_state_dict(scene.start)
    gaps = [
        float(gap)
        for prompt, group in zip(scene.prompts, scene.groups, strict=True)
        for ids, logprobs in zip(group.completion_ids, group.logprobs, strict=True)
        for gap in scored_at(scene.policy, prompt, ids, 1.0) - logprobs
    ]
    assert metrics["train/rollout/logprob_gap/mean"] == pytest.approx(sum(map(abs, gaps)) / len(gaps))
    kl = sum(math.exp(gap) - 1 - gap for gap in gaps) / len(gaps)
    assert metrics["train/rollout/kl"] == pytest.approx(kl) and kl > 0


def test_another_model_behind_the_engine_ends_the_run_before_an_update(scene: Scene) -> None:
    with pytest.raises(FloatingPointError, match=r"max_logprob_gap: .* nats per token apart, at most 1e-06"):
        scene.update(max_gap=1e-6)
    assert not scene.gradients


@pytest.mark.parametrize(("shared", "main"), [(True, True), (True, False), (False, False)])
def test_who_hands_weights_over(shared: bool, main: bool) -> None:
    calls: list[str] = []
    engine = SimpleNamespace(
        is_exact=False,
        is_shared=shared,
        load=lambda policy: calls.append("load"),
        rest=lambda: calls.append("rest"),
    )
    processes = SimpleNamespace(is_main=main, wait=lambda: calls.append("wait"))
    learner: Any = SimpleNamespace(
        engine=engine, processes=processes, policy=SimpleNamespace(model=torch.nn.Linear(1, 1))
    )
    with pytest.raises(ZeroDivisionError), step.engine_loaded(learner):
        calls.append("sample")
        raise ZeroDivisionError
    assert calls == (["load"] if main or not shared else []) + ["wait", "sample", "rest"]


VLLM = ("rollout=vllm", "rollout.group_size=3", "training.duration={steps: 3, epochs: null}")


def test_a_run_by_vllm_goes_on_where_it_was_interrupted(
    taught_small: Callable[..., Settings],
    open_run: Callable[[Settings], Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fake samples as repeatably as it is asked to, so the run that was interrupted ends as the other."""
    settings = taught_small(
        *VLLM, "model.freeze_vision=true", "objective.kl_placement=reward", "objective.kl_coef=0.01"
    )

    def policy() -> Policy:
        return load_policy(
            str(settings.model.path), dtype="float32", min_pixels=4096, max_pixels=4096, device="cpu"
        )

    kind = install(monkeypatch, policy, rounds=torch.bfloat16)
    whole = open_run(settings)
    with whole.directory:
        train(whole)
    (llm,) = kind.made
    assert llm.arguments["max_model_len"] > 14 and llm.arguments["dtype"] == "float32"
    assert llm.resets == 3, "one hand-over a step"
    rows = [json.loads(line) for line in whole.directory.metrics.read_text().splitlines()]
    steps = [row for row in rows if "train/rollout/kl" in row]
    assert len(steps) == 3
    for row in steps:
        assert 0 < row["train/rollout/logprob_gap/mean"] < 0.2
        assert row["train/rollout/weight/mean"] == pytest.approx(1.0, abs=0.05)
        assert row["time/load_engine_s"] > 0
    again = taught_small(
        *VLLM,
        "model.freeze_vision=true",
        "objective.kl_placement=reward",
        "objective.kl_coef=0.01",
        name="again",
    )
    interrupt(open_run(again), before=2)
    resumed = open_run(again)
    with resumed.directory:
        train(resumed)
    last = [run.checkpoints.path(3) / "model.safetensors" for run in (whole, resumed)]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_a_run_without_vllm_is_refused_before_its_data(small: Callable[..., Settings]) -> None:
    assert any("vllm is not installed" in line for line in run_problems(small(*VLLM)))
    served = small(*VLLM[1:], "rollout=vllm_server", "rollout.vllm.max_model_len=10")
    assert [line for line in run_problems(served) if "vllm" in line] == [
        "rollout.vllm.max_model_len: 10 tokens hold no prompt with an answer of rollout.max_new_tokens; "
        "give at least 15, or null"
    ]
    assert not [line for line in run_problems(small(*VLLM, "training.learner=supervised")) if "vllm" in line]


def test_one_engine_serves_all_stages(small: Callable[..., Settings]) -> None:
    plain = plain_settings(small(*VLLM))
    own = {
        **plain["rollout"],
        "engine": "policy",
        "vllm": None,
        "correction": {"level": "none", "bound": 2.0},
    }
    plain["stages"]["first"] = {
        "place": 1,
        "share": 1.0,
        "reference": "run_start",
        "schedules": "run",
        "rollout": own,
    }
    with pytest.raises(UserError, match="stages.first.rollout.engine: one engine serves the whole run"):
        parse_settings(plain)
