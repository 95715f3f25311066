"""Tokens of a span: some reach over its edges, some are special, some are part of a character."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast

from qhk.policy.spans import tokens_in_span
from qhk.policy.tokenizer import build_tokenizer

OURS = build_tokenizer(["Rate the image.", "blurred, strong"], num_merged_tokens=40)
CORPUS = ["<answer>3.5</answer>", "<answer>4.25</answer>", "x<answer>4</answer>", "r>3.5</answ", "日本"] * 8


def greedy_merger() -> PreTrainedTokenizerFast:
    """Bytes merged without regard for words, so that tokens such as ``r>3`` reach over a tag's edge."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core)


MERGER = greedy_merger()


def inside(tokenizer, text: str, span: tuple[int, int]) -> list[str]:  # type: ignore[no-untyped-def]
    ids = torch.tensor(tokenizer(text)["input_ids"])
    return [tokenizer.decode(token) for token in ids[tokens_in_span(tokenizer, ids, span)]]


def test_tags_of_one_token_stay_outside() -> None:
    text = "<think>blurred</think><answer>3.5</answer>"
    start = text.index("3.5")
    assert inside(OURS, text, (start, start + 3)) == ["3", ".", "5"]


def test_the_end_of_turn_counts_no_character() -> None:
    ids = torch.tensor(OURS("<answer>3.5</answer><|im_end|>")["input_ids"])
    marked = tokens_in_span(OURS, ids, (8, 11))
    assert marked.tolist() == [False, True, True, True, False, False]


def test_a_token_over_the_edge_of_a_tag_is_inside() -> None:
    text = "x<answer>3.5</answer>"
    start = text.index("3.5")
    found = inside(MERGER, text, (start, start + 3))
    assert "".join(found) != "3.5" and "3.5" in "".join(found)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["<answer>", "</answer>", "3.5", "日", "é", "x", " "]), max_size=8), st.data()
)
def test_equals_a_loop_over_prefixes(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces) + "3.5</answer>"
    first = data.draw(st.integers(0, len(text) - 1))
    span = (first, data.draw(st.integers(first + 1, len(text))))
    ids = torch.tensor(MERGER(text)["input_ids"])
    lengths = [len(MERGER.decode(ids[:count], skip_special_tokens=True)) for count in range(len(ids) + 1)]
    assert lengths == sorted(lengths)
    places = [start < span[1] and end > span[0] for start, end in zip(lengths, lengths[1:], strict=False)]
    assert tokens_in_span(MERGER, ids, span).tolist() == places
