"""A limit of answers that no true answer fits is refused before anything is learnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qhk.cli.job import prepare
from qhk.config.catalogue import Catalogue
from qhk.errors import UserError
from qhk.settings.root import Settings
from qhk.training import begin
from qhk.training.fit import refuse_long_answers
from qhk.training.loop import train
from qhk.training.run import Run
from qhk.types import Example

Small = Callable[..., Settings]


def scored(*scores: float) -> list[Example]:
    return [
        Example(id=f"{mos}", dataset="d", image=Path("x"), mos=mos, mos_native=mos, higher_is_better=True)
        for mos in scores
    ]


@pytest.mark.parametrize(
    ("words", "shortest"),
    [
        ((), "<answer>1.0</answer>"),
        (("task=score_json", "prompt=score_json_short"), '<answer>{"rating": 1.0}</answer>'),
        (("task.answer_rule=visualquality_r1_release",), "1.0"),
    ],
)
def test_the_shortest_true_answer_decides(
    catalogue: Catalogue, words: tuple[str, ...], shortest: str
) -> None:
    """It is written without reasoning, in the shortest form that the rule reads; tokens are characters."""
    needed = len(shortest)
    for key in ("rollout.max_new_tokens", "evaluation.readouts.greedy.max_new_tokens"):
        for limit in (needed - 1, needed):
            limits = ("rollout.max_new_tokens=99", f"{key}={limit}", "reward=q_insight_score")
            settings = prepare("train", [*limits, *words], catalogue).settings
            examples = {"score": scored(4.5, 1.0, 3.25)}
            if limit == needed:
                refuse_long_answers(settings, examples, len)
                continue
            with pytest.raises(UserError) as caught:
                refuse_long_answers(settings, examples, len)
            assert str(caught.value) == (
                f"{key}: {limit} tokens hold no true answer of task score; the shortest, {shortest!r}, has "
                f"{needed} and an end, so give at least {needed + 1}"
            )


def test_a_run_refuses_before_its_cold_start(
    small: Small, open_run: Callable[[Settings], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(small("rollout.max_new_tokens=4"))
    monkeypatch.setattr(begin, "_cold_start", lambda *words: pytest.fail("taught"))
    with (
        run.directory,
        pytest.raises(UserError, match="max_new_tokens: 4 tokens hold no true answer.* has 5 "),
    ):
        train(run)
