"""The cold start: supervised steps on imperfect answers, before any reinforcement."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from qhk.data.seeds import stream_generator
from qhk.objective.schedule import schedule_factor
from qhk.objective.total import check_finite
from qhk.policy.load import Policy
from qhk.settings.training import ColdStartSettings
from qhk.tasks import Task
from qhk.tasks.task import ScoreTask
from qhk.training.batch import Batch
from qhk.training.inputs import ExampleReader, load
from qhk.training.optimizer import apply_gradients
from qhk.training.supervised import answer_ids, supervised_loss
from qhk.types import MOS_HIGH, MOS_LOW, Answer, Example

Validate = Callable[[int], float]
Report = Callable[[int, float], None]


def noisy_label(
    mos: float, *, noise: float, seed: int, example_id: str, aspect: int, step: int | None = None
) -> float:
    """Return the score taught: mos plus N(0, noise), within [1, 5].

    Fixed per example and aspect, or drawn anew in each ``step`` that is given.
    """
    if not noise:
        return min(MOS_HIGH, max(MOS_LOW, mos))
    # The first number of an answer has the stream that a single score always had.
    place: tuple[str | int, ...] = (example_id, aspect) if aspect else (example_id,)
    place += () if step is None else ("step", step)
    drawn = float(stream_generator(seed, "cold_start_label", *place).normal(0.0, noise))
    return min(MOS_HIGH, max(MOS_LOW, mos + drawn))


def imperfect_answer(
    example: Example, settings: ColdStartSettings, *, task: Task, seed: int, step: int = 0
) -> Answer:
    """Return the answer taught for an example: fixed, or drawn anew each step, as ``label_resample`` says.

    Scores carry ``label_noise``, each sub-score its own. Words are wrong with chance ``wrong_labels``: then
    they are another possible answer, all equally likely.
    """
    truth = task.true_answer(example)
    noise, example_id = settings.label_noise, example.id
    drawn_in = step if settings.label_resample == "each_step" else None
    if isinstance(task, ScoreTask):
        scores = tuple(
            noisy_label(score, noise=noise, seed=seed, example_id=example_id, aspect=aspect, step=drawn_in)
            for aspect, score in enumerate(truth.numbers)
        )
        return task.answer_of(scores)
    others = [answer for answer in task.possible_answers() if answer != truth]
    place = (example_id,) if drawn_in is None else (example_id, drawn_in)
    generator = stream_generator(seed, "cold_start_words", *place)
    if generator.random() >= settings.wrong_labels:
        return truth
    return others[int(generator.integers(len(others)))]


def choose_taught(
    examples: Sequence[tuple[str, Example]], settings: ColdStartSettings, *, seed: int
) -> Batch:
    """Return ``num_examples`` of the (task, training example) pairs."""
    order = stream_generator(seed, "cold_start_examples").permutation(len(examples))[: settings.num_examples]
    chosen = [examples[int(index)] for index in order]
    return Batch(
        indices=range(len(chosen)),
        tasks=[task for task, _ in chosen],
        examples=[example for _, example in chosen],
        epochs=[0] * len(chosen),
    )


def teach(
    batch: Batch,
    readers: Mapping[str, ExampleReader],
    policy: Policy,
    settings: ColdStartSettings,
    *,
    seed: int,
    step: int,
) -> Batch:
    """Return the batch with the answers that a step teaches."""
    answers = list[Tensor]()
    for task, example in zip(batch.tasks, batch.examples, strict=True):
        reader = readers[task]
        text = reader.task.text_to_teach(
            imperfect_answer(example, settings, task=reader.task, seed=seed, step=step),
            decimals=reader.answer_decimals,
            reasoning=settings.reasoning,
            labels=example.labels,
        )
        answers.append(answer_ids(policy, text))
    return replace(batch, answers=answers)


def run_cold_start(
    policy: Policy,
    readers: Mapping[str, ExampleReader],
    taught: Batch,
    settings: ColdStartSettings,
    *,
    seed: int,
    validate: Validate,
    report: Report,
) -> int:
    """Return the step whose weights were kept: the best on the validation part, before any reinforcement.

    ``validate(step)`` returns the figure to be maximised (NaN never wins); it is asked every
    ``validate_every`` steps and at the end. ``report(step, loss)`` hears of every step, after that.
    """
    optimizer = torch.optim.AdamW(
        policy.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    best_value, best_step, best_weights = -math.inf, 0, None
    for step in range(settings.steps):
        generator = stream_generator(seed, "cold_start_batch", step)
        size = min(settings.batch_size, len(taught))
        places = generator.choice(len(taught), size=size, replace=False)
        chosen = taught.select([int(place) for place in places])
        chosen = teach(chosen, readers, policy, settings, seed=seed, step=step)
        # Pictures are read anew each time: a step is a pass of its own, with its own orientation.
        batch = load(replace(chosen, epochs=[step] * size, twin_factor=None), readers)
        loss = supervised_loss(policy, batch, num_tokens=sum(map(len, batch.answers)))
        check_finite({f"cold start, step {step + 1}": (float(loss.detach()), 1)})
        loss.backward()  # type: ignore[no-untyped-call]
        rate = settings.lr * schedule_factor(
            step,
            form="cosine",
            warmup_steps=settings.warmup_steps,
            until_steps=settings.steps,
            final=settings.final_factor,
        )
        apply_gradients(policy.model, optimizer, learning_rate=rate, max_grad_norm=settings.max_grad_norm)
        done = step + 1
        if done % settings.validate_every == 0 or done == settings.steps:
            value = validate(done)
            if value > best_value or best_weights is None:
                best_value, best_step = value if not math.isnan(value) else -math.inf, done
                best_weights = copy.deepcopy(policy.model.state_dict())
        report(done, float(loss.detach()))
    assert best_weights is not None
    policy.model.load_state_dict(best_weights)
    return best_step
