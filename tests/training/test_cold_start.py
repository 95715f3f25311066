from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from torch import Tensor

from qhk.policy.load import Policy
from qhk.policy.start import start_policy
from qhk.settings.root import Settings
from qhk.settings.training import ColdStartSettings
from qhk.training import cold_start
from qhk.training.batch import Batch
from qhk.training.cold_start import choose_taught, imperfect_answer, noisy_label, run_cold_start
from qhk.training.inputs import build_readers
from qhk.training.run import Run
from qhk.types import Example
from tests.tasks.builders import task_of

CONF = Path(__file__).parents[2] / "conf" / "cold_start" / "sft.yaml"


def settings(**changes: object) -> ColdStartSettings:
    return ColdStartSettings(**{**yaml.safe_load(CONF.read_text()), **changes})


SCORE = task_of("score", "strict")


def example(place: int, **labels: str) -> Example:
    mos = None if labels else 3.0
    return Example(
        id=str(place),
        dataset="s",
        image=Path("a"),
        mos=mos,
        mos_native=mos,
        higher_is_better=True,
        labels=labels,
    )


def test_scores_are_noisy_and_fixed_per_example() -> None:
    chosen = settings(label_noise=0.5)
    drawn = [imperfect_answer(example(place), chosen, task=SCORE, seed=1).numbers[0] for place in range(400)]
    assert sum(drawn) / 400 == pytest.approx(3.0, abs=0.1) and min(drawn) < 2.2 and max(drawn) > 3.8
    again = imperfect_answer(example(7), chosen, task=SCORE, seed=1).numbers
    assert again == (drawn[7],) == (noisy_label(3.0, noise=0.5, seed=1, example_id="7", aspect=0),)
    exact = imperfect_answer(example(7), settings(label_noise=0.0), task=SCORE, seed=1)
    assert exact.numbers == (3.0,)


def test_soft_labels_are_drawn_anew_each_step() -> None:
    """Their mean over steps is the truth; a fixed one is the same in every step."""
    soft, fixed = (settings(label_noise=0.5, label_resample=form) for form in ("each_step", "fixed"))

    def taught(chosen: ColdStartSettings) -> list[float]:
        answers = [imperfect_answer(example(7), chosen, task=SCORE, seed=1, step=step) for step in range(400)]
        return [answer.numbers[0] for answer in answers]

    assert sum(taught(soft)) / 400 == pytest.approx(3.0, abs=0.1) and len(set(taught(soft))) == 400
    assert taught(soft) == taught(soft) and len(set(taught(fixed))) == 1
    words = settings(wrong_labels=0.5, label_resample="each_step")
    truth, task = {"distortion_class": "blur", "severity": "slight"}, task_of("degradation", "json")
    said = [
        imperfect_answer(example(7, **truth), words, task=task, seed=0, step=step).labels
        for step in range(200)
    ]
    assert 60 < sum(one == truth for one in said) < 140


@pytest.mark.parametrize("resample", ["fixed", "each_step"])
def test_a_cold_start_teaches_what_was_drawn_for_the_step(
    resample: str,
    small: Callable[..., Settings],
    open_run: Callable[[Settings], Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("cold_start.steps=4", "cold_start.num_examples=1", "cold_start.warmup_steps=0")
    own = ("cold_start.label_noise=1.0", f"cold_start.label_resample={resample}")
    run = open_run(small(*words, *own))
    taught, loss = list[tuple[int, ...]](), cold_start.supervised_loss

    def seen(policy: Policy, batch: Batch, *, num_tokens: int) -> Tensor:
        taught.append(tuple(batch.answers[0].tolist()))
        return loss(policy, batch, num_tokens=num_tokens)

    monkeypatch.setattr(cold_start, "supervised_loss", seen)
    with run.directory:
        examples = [example for _, example in run.data.train_examples]
        policy = start_policy(run.settings, examples, stages=[run.settings], device="cpu")
        readers, chosen = build_readers(run.settings, policy), run.settings.cold_start
        batch = choose_taught(run.data.train_examples, chosen, seed=0)
        run_cold_start(
            policy, readers, batch, chosen, seed=0, validate=lambda step: 0.0, report=lambda step, loss: None
        )
    assert len(taught) == 4 and (len(set(taught)) > 1) == (resample == "each_step")


def test_each_sub_score_has_its_own_noise() -> None:
    scores = imperfect_answer(example(0), settings(), task=task_of("multi_aspect", "lines"), seed=0).numbers
    assert len(set(scores)) == 5


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_the_asked_share_of_words_is_wrong(share: float) -> None:
    truth = {"distortion_class": "blur", "severity": "slight"}
    chosen = settings(wrong_labels=share)
    taught = [
        imperfect_answer(example(place, **truth), chosen, task=task_of("degradation", "json"), seed=0).labels
        for place in range(1000)
    ]
    wrong = [words for words in taught if words != truth]
    assert len(wrong) / 1000 == pytest.approx(share, abs=0.05)
    if share == 1.0:
        counts = Counter(tuple(words.values()) for words in wrong)
        assert len(counts) == 20 and max(counts.values()) < 2.5 * min(counts.values())


def test_similar_is_never_taught_where_it_is_not_on_offer() -> None:
    taught = {
        imperfect_answer(
            example(place, choice="Image A"),
            settings(wrong_labels=1.0),
            task=task_of("comparison", "choice_of_two"),
            seed=0,
        ).labels["choice"]
        for place in range(50)
    }
    assert taught == {"Image B"}
