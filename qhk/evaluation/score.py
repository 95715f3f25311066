"""Answers about single images, with the reasoning and how far several samples agree."""

from __future__ import annotations

import glob
import math
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from qhk.data.image import load_image
from qhk.data.prompts import build_messages, num_pictures
from qhk.data.seeds import stream_generator
from qhk.errors import UserError
from qhk.evaluation.predictions import most_said
from qhk.policy.load import Policy
from qhk.rollout.sample import read_completions, sample_in_batches
from qhk.settings import Settings
from qhk.tables import Table
from qhk.tasks import Task, build_task
from qhk.types import Completion

THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ScoredImage:
    """One image's answer on the task's scale.

    ``score`` is the mean of the samples that could be read, each clipped to the scale, or None where
    none could; ``spread`` their standard deviation, None under two. ``reasoning`` is that of the sample
    nearest to the mean.
    """

    image: str
    score: float | None
    spread: float | None
    samples: list[float | None]
    unparsed: int
    reasoning: str


@dataclass(frozen=True, kw_only=True)
class NamedImage:
    """One image's answer in words.

    ``labels`` is what most of the readable samples say, or None where there are none; ``agreement`` the
    share of those that say it. ``reasoning`` is that of the first of them.
    """

    image: str
    labels: dict[str, str] | None
    agreement: float | None
    samples: list[dict[str, str] | None]
    unparsed: int
    reasoning: str


Scored = ScoredImage | NamedImage


def check_one_picture(settings: Settings) -> None:
    """Raise UserError where the task's prompt shows several pictures."""
    shown = num_pictures(settings.prompt.user)
    if shown != 1:
        raise UserError(
            f"prompt.user shows {shown} pictures, qhk score gives it one image at a time; "
            "use qhk evaluate with a set made for this task"
        )


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Return the files that are named, lie in folders that are named, or match a glob; each once, in order.

    Raises UserError where a pattern leads to no image.
    """
    known = set(Image.registered_extensions())
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            matches = sorted(file for file in path.iterdir() if file.suffix.lower() in known)
        elif path.exists():
            matches = [path]
        else:
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        if not matches:
            raise UserError(f"{pattern}: no such image, and no image in a folder or glob of that name")
        found.update(dict.fromkeys(matches))
    return list(found)


def score_images(
    policy: Policy, settings: Settings, paths: Sequence[Path], *, num_samples: int
) -> Iterator[list[Scored]]:
    """Yield the answers, batch by batch. An image's samples depend on the seed and its file name alone."""
    messages = build_messages(user=settings.prompt.user, system=settings.prompt.system)
    task, rollout = build_task(settings.task), settings.rollout
    for start in range(0, len(paths), settings.evaluation.batch_images):
        batch = paths[start : start + settings.evaluation.batch_images]
        sampled = sample_in_batches(
            policy,
            [policy.encoder.encode(messages, [load_image(path)]) for path in batch],
            [stream_generator(settings.seed, "score", path.name) for path in batch],
            group_size=num_samples,
            max_new_tokens=rollout.max_new_tokens,
            temperature=rollout.temperature,
            decode_batch=max(rollout.decode_batch, num_samples),
        )
        read = [read_completions(policy, group, task.parse) for group in sampled]
        yield [
            combine_answers(str(path), completions, low=task.low, high=task.high)
            if task.has_scores
            else summarise_words(str(path), completions)
            for path, completions in zip(batch, read, strict=True)
        ]


def combine_answers(image: str, completions: Sequence[Completion], *, low: float, high: float) -> ScoredImage:
    """Return one image's completions as its answer."""
    read = [(min(high, max(low, c.answer.score)), c.text) for c in completions if c.answer.score is not None]
    scores = [score for score, _ in read]
    mean = math.fsum(scores) / len(scores) if scores else None
    nearest = min(read, key=lambda item: abs(item[0] - mean))[1] if mean is not None else completions[0].text
    return ScoredImage(
        image=image,
        score=mean,
        spread=statistics.stdev(scores) if len(scores) > 1 else None,
        samples=[c.answer.score for c in completions],
        unparsed=len(completions) - len(read),
        reasoning=_reasoning(nearest),
    )


def summarise_words(image: str, completions: Sequence[Completion]) -> NamedImage:
    """Return one image's completions as its answer in words."""
    said = [dict(c.answer.labels) if c.answer.parsed else None for c in completions]
    labels, read = most_said(said), [answer for answer in said if answer is not None]
    first = said.index(labels)
    return NamedImage(
        image=image,
        labels=labels,
        agreement=read.count(labels) / len(read) if labels else None,
        samples=said,
        unparsed=len(said) - len(read),
        reasoning=_reasoning(completions[first].text),
    )


def _reasoning(text: str) -> str:
    thought = THINK.search(text)
    return thought[1].strip() if thought else ""


def as_table(scored: Sequence[Scored], task: Task) -> Table:
    """Return the answers as a table: a score and its spread, or a column for each of the task's labels."""
    table, labels = Table(), task.labels
    answer = (*labels, "agreement") if labels else ("score", "spread")
    for heading in ("image", *answer, "samples read", "reasoning"):
        is_text = heading in ("image", *labels, "reasoning")
        table.add_column(heading, overflow="fold", justify="left" if is_text else "right")
    for item in scored:
        cells = (
            [*((item.labels or {}).get(name, "-") for name in labels), _number(item.agreement)]
            if isinstance(item, NamedImage)
            else [_number(item.score), _number(item.spread)]
        )
        read = f"{len(item.samples) - item.unparsed}/{len(item.samples)}"
        table.add_row(item.image, *cells, read, item.reasoning)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
