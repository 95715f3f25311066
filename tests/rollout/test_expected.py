"""Expected scores equal plain forward passes over every possible score, whatever shares the batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from qhk.policy.load import Policy
from qhk.policy.packed import encode_images
from qhk.policy.prompt import EncodedPrompt
from qhk.rollout.decode import EncodedPrompts, Group
from qhk.rollout.expected import ExpectedScores, build_tree, distribution_of, score_trees
from qhk.rollout.sample import read_completions
from qhk.types import Completion, ScoreDistribution
from tests.conftest import build_policy
from tests.rollout.test_decode import Encode
from tests.tasks.builders import task_of

TEXTS = (
    "<think>blurred</think><answer>3.5</answer>",
    "<think>blurred noisy</think><answer> 2 </answer>",
    "<answer>4.25</answer> blurred",
    "<think>noisy</think>",
    "<answer>none</answer>",
)


def written(policy: Policy, texts: Sequence[str]) -> Group:
    """The texts as completions that end with the end of the turn."""
    ids = [torch.tensor([*policy.tokenizer(text)["input_ids"], policy.end_tokens[0]]) for text in texts]
    return Group(completion_ids=ids, logprobs=[], truncated=[False] * len(ids))


def read(
    policy: Policy,
    prompts: Sequence[EncodedPrompt],
    groups: Sequence[Group],
    *,
    decimals: int = 1,
    form: str = "score",
    rule: str = "strict",
    rows_at_once: int = 100,
) -> list[list[Completion]]:
    task = task_of(form, rule)
    scores = ExpectedScores(
        policy,
        grid=task.possible_scores(decimals=decimals),
        spans=task.number_spans,
        rows_at_once=rows_at_once,
    )
    with torch.no_grad():
        encoded = EncodedPrompts(policy.model, prompts, encode_images(policy.model, prompts))
        completions = [read_completions(policy, group, task.parse) for group in groups]
        return scores.read(encoded, groups, completions)


def plain_logprobs(
    policy: Policy, prompt: EncodedPrompt, given: Tensor, wanted: Sequence[Sequence[int]]
) -> list[float]:
    """log p(one of wanted | image, prompt, given), a row of the stock model for each, without any cache.

    Rows of one length share a forward pass, so that none is padded.
    """
    found = dict[int, float]()
    for length in {len(tokens) for tokens in wanted}:
        places = [place for place, tokens in enumerate(wanted) if len(tokens) == length]
        rows = [torch.cat([prompt.input_ids, given, torch.tensor(list(wanted[place]))]) for place in places]
        ids, count = torch.stack(rows), len(rows)
        steps = torch.arange(len(given) + length) + prompt.next_position
        positions = torch.cat([prompt.position_ids, steps.expand(3, -1)], dim=1)
        with torch.no_grad():
            logits = policy.model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                position_ids=positions[:, None].expand(-1, count, -1),
                pixel_values=prompt.pixel_values.repeat(count, 1),
                image_grid_thw=prompt.image_grid_thw.repeat(count, 1),
            ).logits
        logprobs = logits[:, -length - 1 : -1].log_softmax(-1)
        for place, row, own in zip(places, ids[:, -length:], logprobs, strict=True):
            found[place] = float(own.gather(1, row[:, None]).sum())
    return [found[place] for place in range(len(wanted))]


def plain_distribution(
    policy: Policy, prompt: EncodedPrompt, before: str, behind: str, decimals: int
) -> ScoreDistribution:
    """The definition, by one forward pass for each possible score, tokens of whole texts."""
    tokenizer, wanted = policy.tokenizer, list[list[int]]()
    given = torch.tensor(tokenizer(before)["input_ids"], dtype=torch.long)
    grid = task_of("score", "strict").possible_scores(decimals=decimals)
    for number in grid:
        whole = tokenizer(before + number + behind)["input_ids"]
        assert whole[: len(given)] == given.tolist()
        for length in range(len(given) + 1, len(whole) + 1):
            if len(tokenizer.decode(whole[:length])) > len(before + number):
                break
        wanted.append(whole[len(given) : length])
    found = list(zip(plain_logprobs(policy, prompt, given, wanted), grid.values(), strict=True))
    mass = math.fsum(math.exp(logprob) for logprob, _ in found)
    by_value: dict[float, float] = {}
    for logprob, value in found:
        by_value[value] = by_value.get(value, 0.0) + math.exp(logprob) / mass
    mean = math.fsum(p * value for value, p in by_value.items())
    return ScoreDistribution(
        mean=mean,
        std=math.sqrt(math.fsum(p * (value - mean) ** 2 for value, p in by_value.items())),
        entropy=-math.fsum(p * math.log(p) for p in by_value.values()),
        mass=mass,
    )


def values(completion: Completion) -> list[float]:
    assert completion.distribution is not None
    return list(completion.distribution.__dict__.values())


def test_equals_a_plain_forward_pass_for_every_score(
    policy: Policy, encode: Encode, full_precision: None
) -> None:
    """Prompts of unequal lengths and answers with and without reasoning share the batch."""
    prompts = [encode(64, 64), encode(96, 32)]
    found = read(policy, prompts, [written(policy, TEXTS), written(policy, TEXTS[2:])])
    for (prompt, _), (completion, text) in itertools.chain(
        (((prompts[0], 0), pair) for pair in zip(found[0][:3], TEXTS[:3], strict=True)),
        (((prompts[1], 1), pair) for pair in zip(found[1][:1], TEXTS[2:3], strict=True)),
    ):
        ((first, last),) = task_of("score", "strict").number_spans(text)
        expected = plain_distribution(policy, prompt, text[:first], text[last:], decimals=1)
        assert values(completion) == pytest.approx(list(expected.__dict__.values()), rel=1e-10)
        assert completion.answer.score == values(completion)[0]
        assert completion.text == text
    unread = [completion for group in found for completion in group if completion.distribution is None]
    assert [completion.text for completion in unread] == [*TEXTS[3:], *TEXTS[3:]]
    assert all(not completion.answer.parsed and completion.answer.reason for completion in unread)


def test_does_not_depend_on_what_shares_the_batch(
    policy: Policy, encode: Encode, full_precision: None
) -> None:
    prompts = [encode(64, 64), encode(96, 32), encode(32, 32)]
    groups = [written(policy, TEXTS[:2]), written(policy, TEXTS[1:3]), written(policy, TEXTS[:1])]
    together = read(policy, prompts, groups)
    for rows_at_once in (1, 2, 3):
        again = read(policy, prompts, groups, rows_at_once=rows_at_once)
        for one, other in zip(itertools.chain(*together), itertools.chain(*again), strict=True):
            assert values(one) == pytest.approx(values(other), rel=1e-11)
    for prompt, group, expected in zip(prompts, groups, together, strict=True):
        (alone,) = read(policy, [prompt], [group])
        for one, other in zip(alone, expected, strict=True):
            assert values(one) == pytest.approx(values(other), rel=1e-11)


def test_tree_equals_enumeration_and_its_mass_is_the_share_of_all_continuations(
    policy: Policy, encode: Encode, full_precision: None
) -> None:
    """Over continuations that leave nothing out the mass is 1; those of a few are plain log-probabilities."""
    prompt = encode(32, 32)
    with torch.no_grad():
        encoded = EncodedPrompts(policy.model, [prompt], encode_images(policy.model, [prompt]))
        few = [(5, 6), (5, 7, 8), (9,)]
        given = torch.tensor([4, 3])
        (found,) = score_trees(policy.model, encoded, [(0, given, build_tree(few))], rows_at_once=1)
        assert found.tolist() == pytest.approx(plain_logprobs(policy, prompt, given, few), rel=1e-10)
        size = policy.model.lm_head.out_features
        every = [(3, token) for token in range(size)] + [(token,) for token in range(size) if token != 3]
        empty = torch.empty(0, dtype=torch.long)
        (found,) = score_trees(policy.model, encoded, [(0, empty, build_tree(every))], rows_at_once=1)
    assert float(found.exp().sum()) == pytest.approx(1.0, rel=1e-12)


def test_several_numbers_are_marginalised_one_by_one(
    policy: Policy, encode: Encode, full_precision: None
) -> None:
    prompt, numbers = encode(32, 32), ["1.5", "3.0", "4.5", "2.0", "5.0"]
    text = "<answer>" + "\n".join(numbers) + "</answer>"
    ((found,),) = read(policy, [prompt], [written(policy, [text])], form="multi_aspect", rule="lines")
    each, start = [], 0
    for number in numbers:
        first = text.index(number, start)
        start = first + len(number)
        each.append(plain_distribution(policy, prompt, text[:first], text[start:], decimals=1))
    assert found.answer.aspects == pytest.approx([one.mean for one in each], rel=1e-10)
    assert found.answer.score == pytest.approx(math.fsum(one.mean for one in each) / 5, rel=1e-10)
    std = math.sqrt(math.fsum(one.std**2 for one in each)) / 5
    assert values(found)[1:] == pytest.approx(
        [std, math.fsum(one.entropy for one in each), math.prod(one.mass for one in each)], rel=1e-9
    )


def test_other_ways_to_cut_the_same_text_are_kept_as_sampled(
    policy: Policy, encode: Encode, full_precision: None
) -> None:
    """What was sampled before the number is not the tokenizer's own way to write it."""
    prompt, tokenizer = encode(32, 32), policy.tokenizer
    own = tokenizer("<think>blurred</think><answer>")["input_ids"]
    letters = [token for letter in "blurred" for token in tokenizer(letter)["input_ids"]]
    tags = [tokenizer(tag)["input_ids"][0] for tag in ("<think>", "</think>", "<answer>", "</answer>")]
    sampled = [tags[0], *letters, tags[1], tags[2]]
    assert sampled != own and tokenizer.decode(sampled) == tokenizer.decode(own)
    ids = torch.tensor([*sampled, *tokenizer("3.5")["input_ids"], tags[3], policy.end_tokens[0]])
    group = Group(completion_ids=[ids], logprobs=[], truncated=[False])
    ((found,),) = read(policy, [prompt], [group], decimals=0)
    logprobs = torch.tensor(
        plain_logprobs(
            policy,
            prompt,
            torch.tensor(sampled),
            [[*tokenizer(str(score))["input_ids"], tags[3]] for score in range(1, 6)],
        ),
        dtype=torch.float64,
    )
    assert values(found) == pytest.approx(
        list(distribution_of(logprobs, torch.arange(1.0, 6.0).double()).__dict__.values()), rel=1e-10
    )


def test_a_number_at_the_end_of_a_text_ends_the_turn(
    policy: Policy, encode: Encode, full_precision: None
) -> None:
    prompt = encode(32, 32)
    group = written(policy, ["quality 3"])
    ((found,),) = read(policy, [prompt], [group], decimals=0, rule="visualquality_r1_release")
    before = torch.tensor(policy.tokenizer("quality ")["input_ids"])
    logprobs = torch.tensor(
        plain_logprobs(
            policy,
            prompt,
            before,
            [[*policy.tokenizer(str(score))["input_ids"], policy.end_tokens[0]] for score in range(1, 6)],
        ),
        dtype=torch.float64,
    )
    assert values(found)[3] == pytest.approx(float(logprobs.exp().sum()), rel=1e-10)


def test_hand_worked_distribution() -> None:
    """3 and 3.0 are one value: p(3) = 0.5, p(4) = 0.5 of a mass of 0.8."""
    logprobs = torch.tensor([0.3, 0.1, 0.4], dtype=torch.float64).log()
    found = distribution_of(logprobs, torch.tensor([3.0, 3.0, 4.0], dtype=torch.float64))
    assert list(found.__dict__.values()) == pytest.approx([3.5, 0.5, math.log(2), 0.8], rel=1e-12)


def test_half_precision_answers_are_close_to_full_ones(encode: Encode) -> None:
    """Keys and values stay wide, so bfloat16 weights move a mean by their own rounding alone."""
    wide_policy, narrow = build_policy(), build_policy(dtype=torch.bfloat16)
    prompt = encode(32, 32)
    means = [
        values(read(policy, [prompt], [written(policy, TEXTS[:1])])[0][0])[0]
        for policy in (wide_policy, narrow)
    ]
    assert means[0] == pytest.approx(means[1], abs=0.1)
