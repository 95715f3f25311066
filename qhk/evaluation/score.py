"""Answers about single images, with the reasoning and how far several samples agree."""

from __future__ import annotations

import csv
import glob
import io
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from qhk.data.framing import frame
from qhk.data.image import check_header, load_image
from qhk.data.prompts import build_messages, num_pictures
from qhk.data.seeds import stream_generator
from qhk.errors import UserError
from qhk.evaluation.predictions import most_said, reasoning
from qhk.policy.load import Policy
from qhk.policy.prompt import EncodedPrompt
from qhk.rollout.sample import read_completions, sample_in_batches
from qhk.settings.root import Settings
from qhk.tables import Table
from qhk.tasks import Task, build_task
from qhk.types import Completion


@dataclass(frozen=True, kw_only=True)
class FoundImages:
    """The ``paths`` to score, each once; ``skipped`` counts what is no image, by kind."""

    paths: list[Path] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class ScoredImage:
    """One image's answer on the task's scale.

    ``score`` is the mean of the samples that could be read, each clipped to the scale, or None where
    none could; ``spread`` their standard deviation, None under two. ``reasoning`` is that of the sample
    nearest to the mean. ``error`` says why the image could not be opened, None where it was: then there are
    no samples.
    """

    image: str
    score: float | None
    spread: float | None
    samples: list[float | None]
    unparsed: int
    reasoning: str
    error: str | None


@dataclass(frozen=True, kw_only=True)
class NamedImage:
    """One image's answer in words.

    ``labels`` is what most of the readable samples say, or None where there are none; ``agreement`` the
    share of those that say it. ``reasoning`` is that of the first of them. ``error`` as of ``ScoredImage``.
    """

    image: str
    labels: dict[str, str] | None
    agreement: float | None
    samples: list[dict[str, str] | None]
    unparsed: int
    reasoning: str
    error: str | None


Scored = ScoredImage | NamedImage


def check_one_picture(settings: Settings) -> None:
    """Raise UserError where the task's prompt shows several pictures."""
    shown = num_pictures(settings.prompt.user)
    if shown != 1:
        raise UserError(
            f"prompt.user shows {shown} pictures, qhk score gives it one image at a time; "
            "use qhk evaluate with a set made for this task"
        )


@cache
def image_endings() -> frozenset[str]:
    """Return the endings of Pillow's formats that are pictures; it also has some of documents and videos."""
    known = Image.registered_extensions()
    return frozenset(
        ending for ending, name in known.items() if Image.MIME.get(name, "image/").startswith("image/")
    )


def find_images(patterns: Sequence[str]) -> FoundImages:
    """Return the images that are named, lie in folders that are named, or match a glob, in that order.

    In folders and among matches, hidden files, folders and files with another ending than an image's are
    left out. Raises UserError where a pattern leads to no image, and for a named file that is no image.
    """
    found, taken = FoundImages(), dict[Path, None]()
    for pattern in patterns:
        try:
            path = Path(pattern).expanduser()
            is_file = path.exists() and not path.is_dir()
            entries = path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
            kinds = {} if is_file else {entry: _foreign(entry) for entry in sorted(entries)}
        except (OSError, RuntimeError) as error:  # a name that is too long, a home or a folder out of reach
            raise UserError(f"{pattern}: cannot be looked up ({error}): correct the name") from None
        if is_file:
            check_header(path)
            taken[path] = None
            continue
        if all(kinds.values()):
            raise UserError(f"{pattern}: no such image, and no image in a folder or glob of that name")
        taken |= dict.fromkeys(entry for entry, kind in kinds.items() if not kind)
        found.skipped.update(filter(None, kinds.values()))
    found.paths.extend(taken)
    return found


def _foreign(path: Path) -> str:
    """Return which kind of thing that is no image lies there, "" for an image, readable or not."""
    if path.name.startswith("."):
        return "hidden"
    if path.is_dir():
        return "folders"
    return "" if path.suffix.lower() in image_endings() else "other files"


def score_images(
    policy: Policy, settings: Settings, paths: Sequence[Path], *, num_samples: int
) -> Iterator[list[Scored]]:
    """Yield the answers, batch by batch. An image's samples depend on the seed and its file name alone.

    An image that cannot be opened has its error for an answer.
    """
    messages = build_messages(user=settings.prompt.user, system=settings.prompt.system)
    task, rollout = build_task(settings.task), settings.rollout
    for start in range(0, len(paths), settings.evaluation.batch_images):
        answers, prompts = dict[Path, Scored](), dict[Path, EncodedPrompt]()
        batch = paths[start : start + settings.evaluation.batch_images]
        for path in batch:
            try:
                image = load_image(path)
            except UserError as error:
                answers[path] = _failed(str(path), str(error), task)
            else:
                prompts[path] = policy.encoder.encode(messages, [frame(image, settings.framing)])
        sampled = sample_in_batches(
            policy,
            list(prompts.values()),
            [stream_generator(settings.seed, "score", path.name) for path in prompts],
            group_size=num_samples,
            max_new_tokens=rollout.max_new_tokens,
            temperature=rollout.temperature,
            decode_batch=max(rollout.decode_batch, num_samples),
        )
        for path, group in zip(prompts, sampled, strict=True):
            completions = read_completions(policy, group, task.parse)
            answers[path] = (
                combine_answers(str(path), completions, low=task.low, high=task.high)
                if task.has_scores
                else summarise_words(str(path), completions)
            )
        yield [answers[path] for path in batch]


def _failed(image: str, error: str, task: Task) -> Scored:
    """Return the answer about an image that could not be opened."""
    if task.has_scores:
        return ScoredImage(
            image=image, score=None, spread=None, samples=[], unparsed=0, reasoning="", error=error
        )
    return NamedImage(
        image=image, labels=None, agreement=None, samples=[], unparsed=0, reasoning="", error=error
    )


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
        reasoning=reasoning(nearest),
        error=None,
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
        reasoning=reasoning(completions[first].text),
        error=None,
    )


def as_csv(scored: Sequence[Scored], task: Task, *, heading: bool) -> str:
    """Return the answers as lines of CSV with the fields of the JSON lines, numbers in full.

    Each of the task's labels is a column of its own; the samples are one, as JSON. What is None is empty.
    """
    rows = []
    for item in scored:
        row = asdict(item)
        labels = row.pop("labels", None) or {}
        named = {name: labels.get(name) for name in task.labels}
        rows.append({"image": row["image"], **named, **row, "samples": json.dumps(row["samples"])})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    if heading:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_table(scored: Sequence[Scored], task: Task) -> Table:
    """Return the answers as a table: a score and its spread, or a column for each of the task's labels.

    Numbers have two decimals. The error of an image that could not be opened stands in place of a reasoning.
    """
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
        table.add_row(
            item.image, *cells, read, item.reasoning if item.error is None else f"error: {item.error}"
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
