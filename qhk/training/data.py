"""The data of a run: training sets, validation part and benchmarks, loaded and checked before any weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qhk.data.datasets import LoadedDataset, load_dataset_entry
from qhk.data.inventory import FileFacts
from qhk.data.names import file_key
from qhk.data.prompts import check_pictures
from qhk.data.roots import picture_roots
from qhk.data.selection import (
    TrainedImages,
    TrainingData,
    check_images,
    find_shared,
    refuse_leakage,
    select_benchmark,
    select_training_data,
    trained_images,
)
from qhk.data.twin import attach_others, attach_twins
from qhk.errors import UserError
from qhk.settings.data import DatasetSettings
from qhk.settings.root import Settings
from qhk.settings.views import task_shares, task_views
from qhk.tasks import build_task
from qhk.training.display import Display
from qhk.types import Example


@dataclass(frozen=True, kw_only=True)
class BenchmarkSet:
    """The images of one benchmark that are reported on, for which task, and how they were chosen."""

    name: str
    dataset: str
    task: str
    split: str
    protocol: str
    miniature: bool
    ratings: float | None
    examples: Sequence[Example]


@dataclass(frozen=True, kw_only=True)
class RunData:
    """What a run reads, of all its tasks.

    ``train`` and ``weights`` go by a set's key: its name, in another than the main task after the task's
    name and a slash. ``tasks`` names the task of each key; ``validation`` goes by task; ``files`` are the
    facts of every image file of the sets.
    """

    train: Mapping[str, Sequence[Example]]
    weights: Mapping[str, float]
    tasks: Mapping[str, str]
    validation: Mapping[str, Sequence[Example]]
    benchmarks: Sequence[BenchmarkSet]
    fingerprints: Mapping[str, str]
    files: Mapping[Path, FileFacts]

    @property
    def num_examples(self) -> int:
        """Return the number of training examples of all sets."""
        return sum(len(examples) for examples in self.train.values())

    @property
    def examples_by_task(self) -> dict[str, list[Example]]:
        """Return the training examples of every task by its name."""
        parts: dict[str, list[Example]] = {}
        for task, example in self.train_examples:
            parts.setdefault(task, []).append(example)
        return parts

    @property
    def train_examples(self) -> list[tuple[str, Example]]:
        """Return every training example with its task's name, set by set."""
        return [(self.tasks[key], example) for key, part in self.train.items() for example in part]


def load_sets(settings: Settings, names: Sequence[str], display: Display) -> dict[str, LoadedDataset]:
    """Return the named dataset entries; miniature sets are generated where they are not cached yet."""
    loaded = {}
    for name in names:
        with display.task(f"preparing {name}") as progress:
            spec = settings.dataset[name]
            loaded[name] = load_dataset_entry(
                name,
                spec,
                cache=Path(settings.paths.cache),
                progress=progress,
                workers=settings.loading.workers,
            )
    return loaded


def select_benchmarks(
    settings: Settings, loaded: Mapping[str, LoadedDataset], *, task: str
) -> list[BenchmarkSet]:
    """Return the benchmarks of a task with the images that are reported on, each a readable picture.

    Raises UserError for an empty part, at the first image that is broken, and at the first example that
    does not fit the task's prompt or lacks what it asks about.
    """
    benchmarks = [
        BenchmarkSet(
            name=name,
            dataset=name,
            task=task,
            split=benchmark.split,
            protocol=loaded[name].protocol,
            miniature=loaded[name].miniature,
            ratings=_ratings(settings.dataset[name]),
            examples=select_benchmark(
                loaded[name], split=benchmark.split, limit=benchmark.limit, seed=settings.seed
            ),
        )
        for name, benchmark in settings.benchmark.items()
    ]
    for benchmark in benchmarks:
        check_images(benchmark.examples, files=loaded[benchmark.name].files)
        check_pictures(settings.prompt.user, benchmark.examples)
        build_task(settings.task).check_examples(benchmark.examples)
    return benchmarks


def _ratings(entry: DatasetSettings) -> float | None:
    """Return how many opinions each image of a set has, where that is known."""
    return None if entry.expected is None else entry.expected.under(entry.options).ratings


def select_all_benchmarks(settings: Settings, loaded: Mapping[str, LoadedDataset]) -> list[BenchmarkSet]:
    """Return the benchmarks of every task, as ``select_benchmarks`` has them.

    Those that several tasks report on are named after the task as well.
    """
    benchmarks = [
        benchmark
        for task, view in task_views(settings).items()
        for benchmark in select_benchmarks(view, loaded, task=task)
    ]
    times = Counter(benchmark.name for benchmark in benchmarks)
    return [
        replace(benchmark, name=f"{benchmark.name}.{benchmark.task}")
        if times[benchmark.name] > 1
        else benchmark
        for benchmark in benchmarks
    ]


def load_run_data(settings: Settings, display: Display) -> RunData:
    """Return everything a training run reads, with every image's header checked.

    Raises UserError in one line for what is missing, unreadable, out of range, shared between training
    and a benchmark, or lacking a degraded twin that the loss would look at.
    """
    views = task_views(settings)
    names = [name for view in views.values() for name in (*view.data, *view.benchmark)]
    loaded = load_sets(settings, list(dict.fromkeys(names)), display)
    parts = {task: _select_task(view, loaded, display) for task, view in views.items()}
    benchmarks = select_all_benchmarks(settings, loaded)
    learnt = {task: [e for own in part.train.values() for e in own] for task, part in parts.items()}
    used = [example for part in learnt.values() for example in part]
    used += [example for part in parts.values() for example in part.validation]
    files = {path: facts for dataset in loaded.values() for path, facts in dataset.files.items()}
    check_images(used, files=files)
    refuse_leakage(used, {benchmark.name: benchmark.examples for benchmark in benchmarks}, files=files)
    for task, view in views.items():
        own = [*learnt[task], *parts[task].validation]
        for place, text in enumerate(view.prompt.texts):
            check_pictures(text, own, key="prompt.wordings" if place else "prompt.user")
        build_task(view.task).check_examples(own)
    shares, main = task_shares(settings), settings.task.form
    keys = {
        (task, name): name if task == main else f"{task}/{name}"
        for task in parts
        for name in parts[task].train
    }
    return RunData(
        train={key: parts[task].train[name] for (task, name), key in keys.items()},
        weights={
            key: weight_in_mixture(parts[task].weights, name, share=shares[task])
            for (task, name), key in keys.items()
        },
        tasks={key: task for (task, _), key in keys.items()},
        validation={task: part.validation for task, part in parts.items()},
        benchmarks=benchmarks,
        fingerprints={name: dataset.fingerprint for name, dataset in loaded.items()},
        files=files,
    )


def weight_in_mixture(weights: Mapping[str, float], name: str, *, share: float) -> float:
    """Return the weight of a task's set among all sets of a run; as given where the task is the only one."""
    return weights[name] if share == 1.0 else share * weights[name] / math.fsum(weights.values())


def _select_task(view: Settings, loaded: Mapping[str, LoadedDataset], display: Display) -> TrainingData:
    """Return one task's training and validation examples, with prepared twins where the loss needs them."""
    chosen = select_training_data(
        [loaded[name] for name in view.data],
        weights=view.data,
        split=view.loading.split,
        validation_fraction=view.loading.validation_fraction,
        validation_limit=view.loading.validation_limit,
        limit=view.loading.limit,
        seed=view.seed,
    )
    if not view.looks_at_twins or view.twin.form == "generated":
        return chosen
    several = [e for part in chosen.train.values() for e in part if e.more_images]
    if several:
        raise UserError(
            f"twin.form: {several[0].id!r} shows {len(several[0].images)} pictures, a twin of form "
            f"{view.twin.form} is one; choose twin=generated or perception=none"
        )
    if view.twin.form == "another":
        train = {name: attach_others(part, seed=view.seed) for name, part in chosen.train.items()}
        return replace(chosen, train=train)
    assert view.twin.manifest is not None
    manifest = Path(view.twin.manifest)
    missing = view.twin.missing
    roots = picture_roots(view.paths, view.pairs, list(view.dataset.values()))
    train = {
        name: attach_twins(part, manifest, missing=missing, roots=roots)
        for name, part in chosen.train.items()
    }
    left_out = sum(map(len, chosen.train.values())) - sum(map(len, train.values()))
    if left_out:
        display.line(f"{left_out} training images have no pair in {manifest} and are left out")
    return replace(chosen, train=train)


def refuse_shared_images(stages: Sequence[tuple[str, RunData]]) -> None:
    """Raise ``UserError`` where a stage learns from what any stage reports on, or holds back for validation.

    ``stages`` are (name, data), the name empty for a run that has none. A stage is checked against
    its own benchmarks where it is loaded, and a set's validation part is cut from its training part by
    contents. This check compares it with the benchmarks of other stages and with the validation parts of
    other tasks and stages. Two tasks may hold back the same images.
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
    own = {file_key(image) for example in data.validation[task] for image in example.images}
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


def _is_among(example: Example, images: set[str]) -> bool:
    return all(file_key(image) in images for image in example.images)
