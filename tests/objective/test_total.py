from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from qhk.config.compose import compose_config, plain_config
from qhk.objective.aggregate import Counts
from qhk.objective.credit import gated_credit, top_tokens, visual_credit
from qhk.objective.entropy import categorical_entropy
from qhk.objective.perception import categorical_kl
from qhk.objective.terms import Terms
from qhk.objective.total import Branch, LossOutput, NonFiniteTermError, check_finite, total_loss
from tests.conftest import repository_catalogue

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)
COUNTS = Counts(sequences=4, tokens=10)
VOCABULARY = 6

OFF = Terms(
    ratio="token",
    clip_low=0.2,
    clip_high=0.28,
    aggregation="sequence_mean",
    constant_length=None,
    kl_coef=0.0,
    kl_estimator="k3",
    entropy_coef=0.0,
    entropy_scope="completion",
    perception="none",
    gamma=0.0,
    exponent_bound=20.0,
    value_bound=10.0,
    perception_aggregation="token_mean",
    entropy="off",
    eta_original=0.0,
    eta_degraded=0.0,
)
FULL = replace(
    OFF,
    kl_coef=0.04,
    entropy_coef=0.01,
    perception="exact",
    gamma=0.1,
    entropy="exact",
    eta_original=0.02,
    eta_degraded=0.03,
)

TERMS_ON = {
    "reference KL": replace(OFF, kl_coef=0.04),
    "entropy bonus": replace(OFF, entropy_coef=0.01),
    "release": replace(OFF, perception="release", gamma=0.1),
    "paper": replace(OFF, perception="paper", gamma=0.1),
    "exact": replace(OFF, perception="exact", gamma=0.1),
    "original entropy": replace(OFF, perception="exact", entropy="exact", eta_original=0.02),
    "degraded entropy": replace(OFF, perception="exact", entropy="exact", eta_degraded=0.03),
    "sampled original": replace(OFF, perception="release", entropy="sampled", eta_original=0.02),
}
BRANCHES_MOVED = {
    "reference KL": (True, False),
    "entropy bonus": (True, False),
    "release": (True, False),
    "paper": (True, True),
    "exact": (True, True),
    "original entropy": (True, False),
    "degraded entropy": (False, True),
    "sampled original": (True, False),
}


@dataclass
class Scene:
    """A toy policy: logits on both images, sampled tokens, and everything that follows from them."""

    original: Tensor
    degraded: Tensor
    reference: Tensor
    old: Tensor
    targets: Tensor
    advantages: Tensor
    mask: Tensor

    def loss(
        self,
        terms: Terms,
        counts: Counts = COUNTS,
        rows: slice = slice(None),
        old: bool = True,
        answers: Tensor | None = None,
        correction: Tensor | None = None,
        selected: Tensor | None = None,
    ) -> LossOutput:
        first = self.branch(self.original[rows], rows)
        second = self.branch(self.degraded[rows], rows)
        pairs = categorical_kl(self.original[rows].flatten(0, 1), self.degraded[rows].flatten(0, 1))
        return total_loss(
            mask=self.mask[rows],
            advantages=self.advantages[rows],
            original=first,
            old_logprobs=self.branch(self.old[rows], rows).logprobs if old else None,
            reference_logprobs=self.branch(self.reference[rows], rows).logprobs,
            degraded=second,
            exact_kl=pairs.view(first.logprobs.shape),
            counts=counts,
            terms=terms,
            answer_mask=None if answers is None else answers[rows],
            correction=None if correction is None else correction[rows],
            selected=None if selected is None else selected[rows],
            group_size=2,
        )

    def branch(self, logits: Tensor, rows: slice) -> Branch:
        logprobs = logits.log_softmax(-1).gather(-1, self.targets[rows, :, None]).squeeze(-1)
        entropy = categorical_entropy(logits.flatten(0, 1)).view(logprobs.shape)
        return Branch(logprobs=logprobs, entropy=entropy)

    def gradients(self, output: LossOutput) -> tuple[Tensor, Tensor]:
        leaves = [self.original, self.degraded]
        found = torch.autograd.grad(output.loss, leaves, allow_unused=True, retain_graph=True)
        first, second = (
            torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)
        )
        return first, second


def toy_scene() -> Scene:
    generator = torch.Generator().manual_seed(7)

    def logits() -> Tensor:
        return torch.randn(4, 4, VOCABULARY, generator=generator, dtype=torch.float64)

    original = logits()
    return Scene(
        original=original.clone().requires_grad_(),
        degraded=logits().requires_grad_(),
        reference=logits(),
        old=original + 0.3 * logits(),
        targets=torch.randint(VOCABULARY, (4, 4), generator=generator),
        advantages=torch.tensor([1.2, -0.4, 0.7, -1.5], dtype=torch.float64),
        mask=MASK,
    )


@pytest.fixture
def scene() -> Scene:
    return toy_scene()


def naive_loss(scene: Scene, terms: Terms) -> float:
    """Everything again, in loops over completions, tokens and vocabulary."""
    log_p = {
        name: getattr(scene, name).detach().log_softmax(-1).tolist()
        for name in ("original", "degraded", "reference", "old")
    }
    sequence_total, tokens = 0.0, {"kl": 0.0, "h_original": 0.0, "h_degraded": 0.0}
    for row in range(4):
        length = int(MASK[row].sum())
        for t in range(length):
            target = int(scene.targets[row, t])
            lp, ref, old = (log_p[name][row][t][target] for name in ("original", "reference", "old"))
            advantage = float(scene.advantages[row])
            ratio = math.exp(lp - old)
            bounded = min(max(ratio, 0.8), 1.28)
            entropy = {
                name: -sum(math.exp(v) * v for v in log_p[name][row][t]) for name in ("original", "degraded")
            }
            per_token = -min(ratio * advantage, bounded * advantage)
            per_token += terms.kl_coef * (math.exp(ref - lp) - (ref - lp) - 1)
            per_token -= terms.entropy_coef * entropy["original"]
            sequence_total += per_token / length
            pairs = zip(log_p["original"][row][t], log_p["degraded"][row][t], strict=True)
            tokens["kl"] += sum(math.exp(o) * (o - d) for o, d in pairs)
            tokens["h_original"] += entropy["original"]
            tokens["h_degraded"] += entropy["degraded"]
    return (
        sequence_total / COUNTS.sequences
        - terms.gamma * tokens["kl"] / COUNTS.tokens
        + terms.eta_original * tokens["h_original"] / COUNTS.tokens
        + terms.eta_degraded * tokens["h_degraded"] / COUNTS.tokens
    )


def test_all_terms_together_equal_a_loop(scene: Scene) -> None:
    assert scene.loss(FULL).loss.item() == pytest.approx(naive_loss(scene, FULL), rel=1e-13)


def test_hand_worked_release() -> None:
    # lo = -1, ld = -.5: x = .5, k3 .1487213; policy -1 * 2; reference at lo: KL 0; log-prob sum -1
    lo = torch.tensor([[-1.0]], dtype=torch.float64, requires_grad=True)
    ld = torch.tensor([[-0.5]], dtype=torch.float64, requires_grad=True)
    terms = replace(
        OFF,
        kl_coef=1.0,
        perception="release",
        gamma=0.1,
        entropy="sampled",
        eta_original=0.01,
        eta_degraded=0.02,
    )
    output = total_loss(
        mask=torch.ones(1, 1, dtype=torch.bool),
        advantages=torch.tensor([2.0], dtype=torch.float64),
        original=Branch(logprobs=lo, entropy=None),
        old_logprobs=None,
        reference_logprobs=lo.detach(),
        degraded=Branch(logprobs=ld, entropy=None),
        exact_kl=None,
        counts=Counts(sequences=1, tokens=1),
        terms=terms,
    )
    assert output.loss.item() == pytest.approx(-2.0 - 0.1 * 0.1487212707 + 0.01 * 1.0 + 0.02 * 0.5)
    assert output.sums["perception_kl"] == (pytest.approx(0.1487212707), 1)
    assert output.sums["logprob_sum_original"] == (-1.0, 1)
    assert output.sums["logprob_sum_degraded"] == (-0.5, 1)
    first, second = torch.autograd.grad(output.loss, [lo, ld], allow_unused=True)
    assert first.item() == pytest.approx(-2.0 - 0.1 * (1 - math.exp(0.5)) - 0.01)
    assert second is None


@pytest.mark.parametrize("name", TERMS_ON)
def test_every_term_moves_the_gradient_of_the_branches_it_trains(scene: Scene, name: str) -> None:
    plain = scene.gradients(scene.loss(OFF))
    moved = scene.gradients(scene.loss(TERMS_ON[name]))
    changed = tuple(bool((a - b).abs().max() > 1e-6) for a, b in zip(plain, moved, strict=True))
    assert changed == BRANCHES_MOVED[name]


@pytest.mark.parametrize("name", TERMS_ON)
def test_zero_coefficients_are_bit_identical_to_absence(scene: Scene, name: str) -> None:
    zeroed = replace(
        TERMS_ON[name], kl_coef=0.0, entropy_coef=0.0, gamma=0.0, eta_original=0.0, eta_degraded=0.0
    )
    plain, off = scene.loss(OFF), scene.loss(zeroed)
    assert torch.equal(plain.loss, off.loss)
    assert plain.sums == off.sums
    for first, second in zip(scene.gradients(plain), scene.gradients(off), strict=True):
        assert torch.equal(first, second)


def test_form_none_is_bit_identical_whatever_its_strengths(scene: Scene) -> None:
    none = replace(FULL, kl_coef=0.0, entropy_coef=0.0, perception="none")
    assert torch.equal(scene.loss(none).loss, scene.loss(OFF).loss)
    off = replace(FULL, kl_coef=0.0, entropy_coef=0.0, gamma=0.0, entropy="off")
    assert torch.equal(scene.loss(off).loss, scene.loss(OFF).loss)


def test_terms_that_are_off_need_no_tensor(scene: Scene) -> None:
    branch = scene.branch(scene.original, slice(None))
    output = total_loss(
        mask=MASK,
        advantages=scene.advantages,
        original=Branch(logprobs=branch.logprobs, entropy=None),
        old_logprobs=scene.branch(scene.old, slice(None)).logprobs,
        reference_logprobs=None,
        degraded=None,
        exact_kl=None,
        counts=COUNTS,
        terms=OFF,
    )
    assert torch.equal(output.loss, scene.loss(OFF).loss)
    assert set(output.sums) == {"policy", "clipped"}


def refused(terms: Terms, key: str) -> None:
    """Asserts that a loss of log-probabilities alone is refused, naming the key."""
    with pytest.raises(ValueError, match=key):
        total_loss(
            mask=MASK,
            advantages=torch.ones(4),
            original=Branch(logprobs=torch.zeros(4, 4), entropy=None),
            old_logprobs=None,
            reference_logprobs=None,
            degraded=None,
            exact_kl=None,
            counts=COUNTS,
            terms=terms,
        )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("reference KL", r"objective\.kl_coef: is 0\.04"),
        ("entropy bonus", r"objective\.entropy_coef: is 0\.01"),
        ("release", r"perception\.gamma: is 0\.1"),
        ("paper", r"perception\.gamma: is 0\.1"),
        ("exact", r"perception\.gamma: is 0\.1"),
        ("original entropy", r"perception\.eta_original: is 0\.02"),
        ("degraded entropy", r"perception\.eta_degraded: is 0\.03"),
    ],
)
def test_a_term_without_its_tensor_is_an_error_not_silence(name: str, key: str) -> None:
    refused(TERMS_ON[name], key)


def test_signs(scene: Scene) -> None:
    """One small step down the loss raises the perception KL and lowers both entropies."""
    for name, metric, rises in (
        ("exact", "perception_kl", True),
        ("paper", "perception_kl", True),
        ("original entropy", "entropy_original", False),
        ("degraded entropy", "entropy_degraded", False),
        ("entropy bonus", "entropy", True),
    ):
        scene_now = replace(scene, advantages=torch.zeros(4, dtype=torch.float64))
        before = scene_now.loss(TERMS_ON[name])
        first, second = scene_now.gradients(before)
        moved = replace(
            scene_now,
            original=(scene.original - 0.1 * first).detach().requires_grad_(),
            degraded=(scene.degraded - 0.1 * second).detach().requires_grad_(),
        )
        after = moved.loss(TERMS_ON[name])
        assert (after.sums[metric][0] > before.sums[metric][0]) is rises


@pytest.mark.parametrize("form", ["release", "paper", "exact"])
@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean", "constant"])
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_micro_batches_add_up_to_the_whole(scene: Scene, form: str, aggregation: str, ratio: str) -> None:
    terms = replace(FULL, perception=form, aggregation=aggregation, ratio=ratio, constant_length=4)  # type: ignore[arg-type]
    whole = scene.loss(terms)
    halves = [scene.loss(terms, rows=slice(0, 1)), scene.loss(terms, rows=slice(1, 4))]
    torch.testing.assert_close(halves[0].loss + halves[1].loss, whole.loss, rtol=1e-13, atol=1e-15)
    for parts in zip(*(scene.gradients(half) for half in halves), scene.gradients(whole), strict=True):
        torch.testing.assert_close(parts[0] + parts[1], parts[2], rtol=1e-12, atol=1e-15)
    for name, (total, count) in whole.sums.items():
        assert total == pytest.approx(sum(half.sums[name][0] for half in halves), abs=1e-12)
        assert count == sum(half.sums[name][1] for half in halves)


@pytest.mark.parametrize("form", ["release", "paper", "exact"])
def test_padding_changes_nothing_even_if_it_is_nan(scene: Scene, form: str) -> None:
    terms = replace(FULL, perception=form)  # type: ignore[arg-type]
    plain = scene.loss(terms)
    with torch.no_grad():
        for logits in (scene.original, scene.degraded, scene.reference, scene.old):
            logits[~MASK] = torch.nan
    spoiled = scene.loss(terms)
    assert torch.equal(spoiled.loss, plain.loss)
    assert spoiled.sums == plain.sums


def test_nan_padding_leaves_the_gradient_of_logprobs_clean() -> None:
    logprobs = torch.where(MASK, -1.0, torch.nan).requires_grad_()
    degraded = torch.where(MASK, -1.5, torch.nan).requires_grad_()
    output = total_loss(
        mask=MASK,
        advantages=torch.ones(4),
        original=Branch(logprobs=logprobs, entropy=logprobs * -1.0),
        old_logprobs=torch.where(MASK, -1.1, torch.nan),
        reference_logprobs=torch.where(MASK, -0.9, torch.nan),
        degraded=Branch(logprobs=degraded, entropy=degraded * -1.0),
        exact_kl=(logprobs - degraded).square(),
        counts=COUNTS,
        terms=replace(FULL, perception="paper"),
    )
    for gradient in torch.autograd.grad(output.loss, [logprobs, degraded]):
        assert (gradient[~MASK] == 0).all()
        assert (gradient[MASK] != 0).all()


def test_order_of_completions_does_not_matter(scene: Scene) -> None:
    order = torch.tensor([2, 0, 3, 1])
    shuffled = Scene(**{name: value[order] for name, value in vars(scene).items()})
    torch.testing.assert_close(shuffled.loss(FULL).loss, scene.loss(FULL).loss, rtol=1e-13, atol=1e-15)


def test_groups_without_advantage_leave_only_the_other_terms(scene: Scene) -> None:
    without_advantages = replace(scene, advantages=torch.zeros(4, dtype=torch.float64))
    output = without_advantages.loss(OFF)
    assert output.loss.item() == 0.0
    assert all((gradient == 0).all() for gradient in without_advantages.gradients(output))
    assert without_advantages.gradients(without_advantages.loss(TERMS_ON["exact"]))[1].abs().max() > 1e-6


@pytest.mark.parametrize("form", ["release", "paper", "exact"])
def test_gradient_by_finite_differences(scene: Scene, form: str) -> None:
    terms = replace(FULL, perception=form)  # type: ignore[arg-type]
    degraded = scene.degraded.detach() if form == "release" else scene.degraded

    def loss(original: Tensor, degraded: Tensor) -> Tensor:
        moved = replace(scene, original=original, degraded=degraded)
        if form == "release":
            return moved.loss(replace(terms, eta_degraded=0.0)).loss
        return moved.loss(terms).loss

    assert torch.autograd.gradcheck(loss, (scene.original, degraded))


def test_exact_kl_saturates_at_its_bound(scene: Scene) -> None:
    terms = replace(TERMS_ON["exact"], value_bound=0.5)
    sums = scene.loss(terms).sums
    free = scene.loss(TERMS_ON["exact"]).sums
    assert sums["perception_kl"][0] <= 0.5 * COUNTS.tokens
    assert 0 < sums["perception_saturated"][0] <= COUNTS.tokens
    assert free["perception_saturated"] == (0.0, COUNTS.tokens)


def test_one_update_per_rollout_is_the_plain_policy_gradient(scene: Scene) -> None:
    output = scene.loss(OFF, old=False)
    logprobs = scene.branch(scene.original, slice(None)).logprobs
    weights = MASK.double() / MASK.sum(1, keepdim=True) / 4
    plain = -(weights * scene.advantages[:, None] * logprobs).sum()
    (expected,) = torch.autograd.grad(plain, scene.original)
    torch.testing.assert_close(scene.gradients(output)[0], expected, rtol=1e-12, atol=1e-15)
    assert output.sums["clipped"] == (0.0, 10)


def test_low_precision_is_summed_in_float32() -> None:
    output = total_loss(
        mask=torch.ones(1, 2, dtype=torch.bool),
        advantages=torch.ones(1),
        original=Branch(logprobs=torch.full((1, 2), -1.0, dtype=torch.bfloat16), entropy=None),
        old_logprobs=None,
        reference_logprobs=torch.full((1, 2), -1.0625, dtype=torch.bfloat16),
        degraded=None,
        exact_kl=None,
        counts=Counts(sequences=1, tokens=2),
        terms=replace(OFF, kl_coef=1.0),
    )
    assert output.loss.dtype == torch.float32
    assert output.sums["reference_kl"][0] == pytest.approx(2 * (math.exp(-0.0625) - 1 + 0.0625), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "field", "term"),
    [
        ("reference KL", "reference", "reference_kl"),
        ("paper", "degraded", "perception_kl"),
        ("exact", "original", "policy"),
    ],
)
def test_a_term_that_is_not_finite_is_named(scene: Scene, name: str, field: str, term: str) -> None:
    with torch.no_grad():
        getattr(scene, field)[0, 0] = torch.nan
    with pytest.raises(NonFiniteTermError, match=f"loss term {term} is nan"):
        scene.loss(TERMS_ON[name])


def test_check_finite_names_the_term() -> None:
    check_finite({"policy": (1.0, 2)})
    with pytest.raises(FloatingPointError, match="loss term entropy is inf"):
        check_finite({"policy": (1.0, 2), "entropy": (math.inf, 2)})


ANSWERS = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
ANSWER_COUNTS = replace(COUNTS, answer_tokens=int((ANSWERS & MASK).sum()))
IN_ANSWERS = replace(OFF, entropy_coef=0.01, entropy_scope="answer")


@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean", "constant"])
def test_the_bonus_on_answers_equals_a_loop_over_their_tokens(scene: Scene, aggregation: str) -> None:
    terms = replace(IN_ANSWERS, aggregation=aggregation, constant_length=5)  # type: ignore[arg-type]
    output = scene.loss(terms, ANSWER_COUNTS, answers=ANSWERS)
    plain = scene.loss(replace(terms, entropy_coef=0.0), COUNTS)
    log_p = scene.original.detach().log_softmax(-1).tolist()
    bonus, total = 0.0, 0.0
    for row in range(4):
        inside = [t for t in range(4) if ANSWERS[row, t] and MASK[row, t]]
        for t in inside:
            entropy = -sum(math.exp(v) * v for v in log_p[row][t])
            total += entropy
            divisor = {"sequence_mean": len(inside) * 4, "token_mean": 4, "constant": 5 * 4}[aggregation]
            bonus += entropy / divisor
    assert (plain.loss - output.loss).item() == pytest.approx(0.01 * bonus, rel=1e-9)
    assert output.sums["entropy"] == (pytest.approx(total), 4)
    assert output.sums["policy"] == plain.sums["policy"]


def test_the_bonus_on_answers_moves_their_logits_alone(scene: Scene) -> None:
    plain, _ = scene.gradients(scene.loss(OFF))
    moved, _ = scene.gradients(scene.loss(IN_ANSWERS, ANSWER_COUNTS, answers=ANSWERS))
    changed = (moved - plain).abs().amax(-1) > 1e-9
    assert torch.equal(changed, ANSWERS & MASK)


def test_answers_that_are_everything_are_the_whole_completion(scene: Scene) -> None:
    whole = scene.loss(replace(IN_ANSWERS, entropy_scope="completion"))
    answers = scene.loss(IN_ANSWERS, replace(COUNTS, answer_tokens=10), answers=torch.ones_like(MASK))
    assert torch.equal(whole.loss, answers.loss) and whole.sums == answers.sums


def test_a_scope_without_coefficient_changes_no_bit(scene: Scene) -> None:
    assert torch.equal(scene.loss(replace(IN_ANSWERS, entropy_coef=0.0)).loss, scene.loss(OFF).loss)


def test_a_batch_without_any_answer_has_no_bonus(scene: Scene) -> None:
    none = scene.loss(IN_ANSWERS, replace(COUNTS, answer_tokens=0), answers=torch.zeros_like(MASK))
    assert torch.equal(none.loss, scene.loss(OFF).loss)
    assert none.sums["entropy"] == (0.0, 0)


def test_the_answers_places_and_their_number_are_asked_for(scene: Scene) -> None:
    with pytest.raises(ValueError, match=r"objective\.entropy_coef: is 0\.01, but the places of the answers"):
        scene.loss(IN_ANSWERS, ANSWER_COUNTS)
    with pytest.raises(ValueError, match="but the counts of the answers' tokens are missing"):
        scene.loss(IN_ANSWERS, COUNTS, answers=ANSWERS)


ANSWERS = torch.tensor([[0, 0, 1, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
SELECTED = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
WITH_ANSWERS = Counts(sequences=4, tokens=10, answer_tokens=4)
CREDITED = {
    "reasoning": replace(OFF, credit="reasoning"),
    "answer": replace(OFF, credit="answer"),
    "entropy gating": replace(OFF, entropy_share=0.4),
    "clip-cov": replace(OFF, covariance="clip"),
    "kl-cov": replace(OFF, covariance="kl"),
    "vppo": replace(OFF, dependency="vppo"),
    "pgpo": replace(OFF, dependency="pgpo"),
    "all": replace(
        OFF,
        credit="reasoning",
        entropy_share=0.6,
        covariance="kl",
        dependency="pgpo",
        aggregation="token_mean",
    ),
}


def credited(scene: Scene, terms: Terms, rows: slice = slice(None)) -> LossOutput:
    return scene.loss(terms, counts=WITH_ANSWERS, rows=rows, answers=ANSWERS, selected=SELECTED)


@pytest.mark.parametrize("name", CREDITED)
def test_the_policy_term_is_on_the_tokens_that_get_the_credit(scene: Scene, name: str) -> None:
    """In a loop: each token's clipped surrogate by its weight, over the tokens of its part."""
    terms = CREDITED[name]
    logprobs, old = (
        scene.branch(logits.detach(), slice(None)).logprobs for logits in (scene.original, scene.old)
    )
    entropy = scene.branch(scene.original, slice(None)).entropy
    divergence = categorical_kl(scene.original.flatten(0, 1), scene.degraded.flatten(0, 1)).view(4, 4)
    assert entropy is not None
    weights = torch.ones(4, 4, dtype=torch.float64)
    if terms.entropy_share < 1:
        weights *= top_tokens(entropy, MASK, share=terms.entropy_share)
    if terms.covariance == "clip":
        weights *= ~SELECTED
    if terms.dependency == "vppo":
        weights *= visual_credit(divergence, MASK, group_size=2, share=0.4, lowest=0.9)
    if terms.dependency == "pgpo":
        weights *= gated_credit(divergence, MASK, threshold=0.5, strength=1.0)
    part = MASK & {"completion": MASK, "answer": ANSWERS, "reasoning": ~ANSWERS}[terms.credit]
    expected = 0.0
    for row in range(4):
        inside = [t for t in range(4) if part[row, t]]
        for t in inside:
            ratio, advantage = math.exp(float(logprobs[row, t] - old[row, t])), float(scene.advantages[row])
            value = -min(ratio * advantage, min(max(ratio, 0.8), 1.28) * advantage) * float(weights[row, t])
            if terms.covariance == "kl" and SELECTED[row, t]:
                value += abs(float(logprobs[row, t] - old[row, t]))
            expected += value / (int(part.sum()) if terms.aggregation == "token_mean" else 4 * len(inside))
    output = credited(scene, terms)
    assert output.loss.item() == pytest.approx(expected, rel=1e-12)
    if name != "kl-cov":
        assert output.sums["credited"] == (float((part & (weights > 0)).sum()), 10)
    plain, moved = (scene.gradients(credited(scene, one)) for one in (OFF, terms))
    assert float((plain[0] - moved[0]).abs().max()) > 1e-6
    assert not moved[1].any(), "dependency and entropy are weights: nothing flows through them"


@pytest.mark.parametrize("name", CREDITED)
def test_credit_by_micro_batches_of_whole_groups_adds_up(scene: Scene, name: str) -> None:
    whole = credited(scene, CREDITED[name])
    halves = [credited(scene, CREDITED[name], rows=rows) for rows in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(halves[0].loss + halves[1].loss, whole.loss, rtol=1e-13, atol=1e-15)


def test_credit_that_is_off_is_bit_identical_to_absence(scene: Scene) -> None:
    plain, off = scene.loss(OFF), credited(scene, OFF)
    assert torch.equal(plain.loss, off.loss) and plain.sums == off.sums
    first = credited(scene, replace(OFF, covariance="kl", covariance_kl_coef=0.0))
    torch.testing.assert_close(first.loss, plain.loss, rtol=1e-15, atol=0.0)


def test_kl_cov_adds_nothing_in_the_first_update(scene: Scene) -> None:
    one = scene.loss(CREDITED["kl-cov"], old=False, selected=SELECTED)
    assert torch.equal(one.loss, scene.loss(OFF, old=False).loss)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("answer", "objective.credit: is answer, but the places of the answers"),
        ("entropy gating", "objective.entropy_share: is 0.4, but exact entropies"),
        ("clip-cov", "objective.covariance.form: is clip, but the selected tokens"),
        ("vppo", "dependency.form: is vppo, but KL values"),
    ],
)
def test_credit_without_its_tensor_is_an_error(name: str, key: str) -> None:
    refused(CREDITED[name], key)


def papo() -> Terms:
    """The terms of conf/perception/papo.yaml at the start of a run, and nothing beside them."""
    words = ["perception=papo", "twin=masked", "objective.kl_coef=0"]
    config = plain_config(compose_config("train", words, repository_catalogue()))["perception"]
    kept = ("gamma", "exponent_bound", "value_bound", "entropy", "eta_original", "eta_degraded")
    values = {key: config[key] for key in kept}
    return replace(OFF, perception=config["form"], perception_aggregation=config["aggregation"], **values)


@pytest.mark.parametrize("term", ["gamma", "eta_original", "eta_degraded"])
def test_each_term_of_papo_trains_what_it_is_about(scene: Scene, term: str) -> None:
    """The divergence trains both branches, each entropy its own: none is left out of the loss."""
    terms = papo()
    assert terms.gamma > 0 and terms.eta_original > 0 and terms.eta_degraded > 0 and terms.entropy == "exact"
    alone = {
        key: getattr(terms, key) if key == term else 0.0 for key in ("gamma", "eta_original", "eta_degraded")
    }
    quiet = replace(scene, advantages=torch.zeros(4, dtype=torch.float64))
    first, second = quiet.gradients(quiet.loss(replace(terms, **alone)))
    trained = {"gamma": (True, True), "eta_original": (True, False), "eta_degraded": (False, True)}[term]
    assert (bool(first.abs().max() > 1e-5), bool(second.abs().max() > 1e-5)) == trained


def test_papo_against_a_loop(scene: Scene) -> None:
    """GRPO - gamma k3(original, masked) + eta H(original) + eta H(masked), token means."""
    terms, quiet = papo(), replace(scene, advantages=torch.zeros(4, dtype=torch.float64))
    log_p = {name: getattr(scene, name).detach().log_softmax(-1) for name in ("original", "degraded")}
    total = 0.0
    for row in range(4):
        for t in range(int(MASK[row].sum())):
            target = int(scene.targets[row, t])
            x = float(log_p["degraded"][row, t, target] - log_p["original"][row, t, target])
            total -= terms.gamma * (math.exp(x) - x - 1)
            for name, eta in (("original", terms.eta_original), ("degraded", terms.eta_degraded)):
                total += eta * -sum(math.exp(v) * v for v in log_p[name][row, t].tolist())
    assert quiet.loss(terms).loss.item() == pytest.approx(total / 10, rel=1e-12)
