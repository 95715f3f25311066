"""Images that one stage or task of a run learns from and another is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhk.data.selection import TrainedImages, find_shared, trained_images
from qhk.errors import UserError
from qhk.training.data import RunData
from qhk.types import Example


def refuse_shared_images(stages: Sequence[tuple[str, RunData]]) -> None:
    """None; ``ValueError`` where a stage learns from what any stage reports on, or holds back for validation.

    ``stages`` are (name, data), the name empty for a run that has none. What one stage reads by itself is
    held against its own benchmarks where it is loaded, a set's validation part is cut from its training part
    by contents; so here are looked at the benchmarks of other stages, and the validation parts of other
    tasks and stages. What a task holds back itself may be held back by others.
    """
    distinct = {id(data): (name, data) for name, data in reversed(stages)}
    for name, data in distinct.values():
        examples = [example for _, example in data.train_examples]
        examples += [example for part in data.validation.values() for example in part]
        seen = trained_images(examples, files=data.files)
        for other, judged in distinct.values():
            if judged is not data:
                _refuse_benchmarks(seen, name, other, judged)
            for task in data.validation:
                _refuse_validation(data, task, name, other, judged)


def _refuse_benchmarks(seen: TrainedImages, name: str, other: str, judged: RunData) -> None:
    for benchmark in judged.benchmarks:
        shared = find_shared(seen, benchmark.examples, files=judged.files)
        if shared is not None:
            raise UserError(
                f"stages.{other}.benchmark.{benchmark.name}: {shared.what}, in stages.{name}: {shared.fix}"
            )


def _refuse_validation(data: RunData, task: str, name: str, other: str, judged: RunData) -> None:
    """Holds what ``task`` learns from in one stage against the validation parts of another, or its own."""
    own = {image for example in data.validation[task] for image in example.images}
    seen = trained_images([e for known, e in data.train_examples if known == task], files=data.files)
    for held, part in judged.validation.items():
        if judged is data and held == task:
            continue
        shared = find_shared(seen, [e for e in part if not _is_among(e, own)], files=judged.files)
        if shared is not None:
            judge, learner = (f"stages.{stage}, " if stage else "" for stage in (other, name))
            raise UserError(
                f"{judge}validation part of task {held}: {shared.what}, by {learner}task {task}: "
                f"{shared.fix}, or cut both alike (loading.validation_fraction, validation_limit)"
            )


def _is_among(example: Example, images: set[Path]) -> bool:
    return all(image in images for image in example.images)
