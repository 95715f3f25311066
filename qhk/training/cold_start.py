"""The supervised cold start: a short, imperfectly labelled lesson for a model that cannot answer yet."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qhk.data.seeds import stream_generator
from qhk.objective.schedule import schedule_factor
from qhk.objective.total import check_finite
from qhk.policy.load import Policy
from qhk.settings import ColdStartSettings
from qhk.tasks import Task
from qhk.tasks.task import ScoreTask
from qhk.training.inputs import ExampleReader
from qhk.training.optimizer import apply_gradients
from qhk.training.supervised import Lesson, answer_ids, supervised_loss
from qhk.types import MOS_HIGH, MOS_LOW, Answer, Example

Validate = Callable[[int], float]
Report = Callable[[int, float], None]


def noisy_label(mos: float, *, noise: float, seed: int, example_id: str, aspect: int) -> float:
    """The score taught for an example: mos plus N(0, noise), within [1, 5]; fixed per example and aspect."""
    if not noise:
        return min(MOS_HIGH, max(MOS_LOW, mos))
    # The first number of an answer has the stream that a single score always had.
    place = (example_id, aspect) if aspect else (example_id,)
    drawn = float(stream_generator(seed, "cold_start_label", *place).normal(0.0, noise))
    return min(MOS_HIGH, max(MOS_LOW, mos + drawn))


def imperfect_answer(example: Example, settings: ColdStartSettings, *, task: Task, seed: int) -> Answer:
    """The answer taught for an example, fixed per example.

    Scores carry ``label_noise``, each sub-score its own. Words are wrong with chance ``wrong_labels``: then
    they are another possible answer, all equally likely.
    """
    truth = task.true_answer(example)
    noise, example_id = settings.label_noise, example.id
    if isinstance(task, ScoreTask):
        scores = tuple(
            noisy_label(score, noise=noise, seed=seed, example_id=example_id, aspect=aspect)
            for aspect, score in enumerate(truth.numbers)
        )
        return task.answer_of(scores)
    others = [answer for answer in task.possible_answers() if answer != truth]
    generator = stream_generator(seed, "cold_start_words", example_id)
    if generator.random() >= settings.wrong_labels:
        return truth
    return others[int(generator.integers(len(others)))]


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """An example of the cold start and the answer it is taught with; its picture is read anew each time."""

    task: str
    example: Example
    answer_ids: Tensor


def choose_assignments(
    examples: Sequence[tuple[str, Example]],
    readers: Mapping[str, ExampleReader],
    policy: Policy,
    settings: ColdStartSettings,
    *,
    seed: int,
) -> list[Assignment]:
    """``num_examples`` assignments drawn from (task, training example) pairs, each with its answer."""
    order = stream_generator(seed, "cold_start_examples").permutation(len(examples))[: settings.num_examples]
    assignments = []
    for index in order:
        task, example = examples[int(index)]
        reader = readers[task]
        taught = imperfect_answer(example, settings, task=reader.task, seed=seed)
        text = reader.task.text_to_teach(
            taught,
            decimals=reader.answer_decimals,
            reasoning=settings.reasoning,
            labels=example.labels,
        )
        assignments.append(Assignment(task=task, example=example, answer_ids=answer_ids(policy, text)))
    return assignments


def run_cold_start(
    policy: Policy,
    readers: Mapping[str, ExampleReader],
    assignments: Sequence[Assignment],
    settings: ColdStartSettings,
    *,
    seed: int,
    validate: Validate,
    report: Report,
) -> int:
    """The step whose weights were kept: the best on the validation part, before any reinforcement.

    ``validate(step)`` returns the figure to be maximised (NaN never wins); it is asked every
    ``validate_every`` steps and at the end. ``report(step, loss)`` hears of every step, after that.
    """
    optimizer = torch.optim.AdamW(
        policy.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    best_value, best_step, best_weights = -math.inf, 0, None
    for step in range(settings.steps):
        generator = stream_generator(seed, "cold_start_batch", step)
        size = min(settings.batch_size, len(assignments))
        chosen = [assignments[int(i)] for i in generator.choice(len(assignments), size=size, replace=False)]
        batch = [
            Lesson(prompt=readers[one.task].lesson_prompt(one.example, epoch=step), answer_ids=one.answer_ids)
            for one in chosen
        ]
        loss = supervised_loss(policy, batch, num_tokens=sum(len(lesson.answer_ids) for lesson in batch))
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
