from __future__ import annotations

import pytest
import torch

from qhk.objective.aggregate import Counts, token_weights

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
COUNTS = Counts(sequences=8, tokens=20)


def weights(aggregation: str, length: int | None = None) -> torch.Tensor:
    return token_weights(MASK, aggregation=aggregation, counts=COUNTS, constant_length=length)  # type: ignore[arg-type]


def test_each_form_by_hand() -> None:
    third = 1 / 24
    assert weights("sequence_mean").tolist() == [pytest.approx([third] * 3 + [0]), [0.125, 0, 0, 0], [0] * 4]
    assert weights("token_mean").tolist() == [[0.05, 0.05, 0.05, 0], [0.05, 0, 0, 0], [0] * 4]
    assert weights("constant", 10).tolist() == [[0.0125] * 3 + [0], [0.0125, 0, 0, 0], [0] * 4]


@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean", "constant"])
def test_padding_adds_zeros_only(aggregation: str) -> None:
    wider = torch.nn.functional.pad(MASK, (0, 3))
    got = token_weights(wider, aggregation=aggregation, counts=COUNTS, constant_length=6)
    assert torch.equal(got[:, :4], weights(aggregation, 6))
    assert (got[:, 4:] == 0).all()


def test_a_whole_update_of_full_completions_weighs_one() -> None:
    mask = torch.ones(4, 5, dtype=torch.bool)
    for aggregation in ("sequence_mean", "token_mean", "constant"):
        counts = Counts(sequences=4, tokens=20)
        got = token_weights(mask, aggregation=aggregation, counts=counts, constant_length=5)
        assert got.sum().item() == pytest.approx(1.0)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"objective\.constant_length: got None"):
        weights("constant")
    with pytest.raises(ValueError, match=r"objective\.aggregation: unknown 'mean'"):
        weights("mean")
    with pytest.raises(ValueError, match="need sequences >= 1"):
        Counts(sequences=0, tokens=0)


def test_an_update_without_tokens_is_zero_not_nan() -> None:
    empty = torch.zeros(2, 3, dtype=torch.bool)
    got = token_weights(
        empty, aggregation="token_mean", counts=Counts(sequences=2, tokens=0), constant_length=None
    )
    assert got.sum() == 0
