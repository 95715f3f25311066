"""The data of a run: training sets, validation part and benchmarks, loaded and checked before any weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qhk.data.datasets import LoadedDataset, load_dataset_entry
from qhk.data.inventory import FileFacts
from qhk.data.prompts import check_pictures
from qhk.data.sampling import step_indices
from qhk.data.selection import (
    TrainingData,
    check_images,
    refuse_leakage,
    select_benchmark,
    select_training_data,
)
from qhk.data.targets import check_answers
from qhk.data.twin import attach_twins
from qhk.errors import UserError
from qhk.settings import Settings, task_shares, task_views
from qhk.training.display import Display
from qhk.training.evaluate import BenchmarkSet
from qhk.training.inputs import PlannedPrompt
from qhk.types import Example


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
        """Training examples of all sets."""
        return sum(len(examples) for examples in self.train.values())

    @property
    def train_examples(self) -> list[tuple[str, Example]]:
        """Every training example with its task's name, set by set."""
        return [(self.tasks[key], example) for key, part in self.train.items() for example in part]

    def plan(
        self,
        step: int,
        *,
        seed: int,
        prompts_per_step: int,
        twin_factor: float = 1.0,
        task: str | None = None,
    ) -> list[PlannedPrompt]:
        """The examples of a step, a pure function of (seed, step), with twins of that strength.

        With ``task``, those of an order over that task's sets alone.
        """
        keys = [key for key in self.train if task in (None, self.tasks[key])]
        draws = step_indices(
            seed,
            step,
            sizes={key: len(self.train[key]) for key in keys},
            weights={key: self.weights[key] for key in keys},
            prompts_per_step=prompts_per_step,
        )
        return [
            PlannedPrompt(
                index=index,
                task=self.tasks[draw.dataset],
                example=self.train[draw.dataset][draw.index],
                epoch=draw.epoch,
                twin_factor=twin_factor,
            )
            for index, draw in enumerate(draws)
        ]


def load_sets(settings: Settings, names: Sequence[str], display: Display) -> dict[str, LoadedDataset]:
    """The named dataset entries; miniature sets are generated where they are not cached yet."""
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
    """The benchmarks of a task with the images that are reported on, each a readable picture.

    Raises ValueError for an empty part, at the first image that is broken, and at the first example that
    does not fit the task's prompt or lacks what it asks about.
    """
    benchmarks = [
        BenchmarkSet(
            name=name,
            task=task,
            split=benchmark.split,
            protocol=loaded[name].protocol,
            miniature=loaded[name].miniature,
            examples=select_benchmark(
                loaded[name], split=benchmark.split, limit=benchmark.limit, seed=settings.seed
            ),
        )
        for name, benchmark in settings.benchmark.items()
    ]
    for benchmark in benchmarks:
        check_images(benchmark.examples, files=loaded[benchmark.name].files)
        check_pictures(settings.prompt.user, benchmark.examples)
        check_answers(settings.task.form, benchmark.examples)
    return benchmarks


def select_all_benchmarks(settings: Settings, loaded: Mapping[str, LoadedDataset]) -> list[BenchmarkSet]:
    """The benchmarks of every task, as ``select_benchmarks`` has them.

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
    """Everything a training run reads, with every image's header checked.

    Raises ValueError in one line for what is missing, unreadable, out of range, shared between training
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
        check_pictures(view.prompt.user, own)
        check_answers(view.task.form, own)
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
    """The weight of a task's set among all sets of a run; as given where the task has the whole run."""
    return weights[name] if share == 1.0 else share * weights[name] / math.fsum(weights.values())


def _select_task(view: Settings, loaded: Mapping[str, LoadedDataset], display: Display) -> TrainingData:
    """The training and validation examples of one task, with prepared twins where the loss looks at them."""
    chosen = select_training_data(
        [loaded[name] for name in view.data],
        weights=view.data,
        split=view.loading.split,
        validation_fraction=view.loading.validation_fraction,
        validation_limit=view.loading.validation_limit,
        limit=view.loading.limit,
        seed=view.seed,
    )
    if view.perception.form == "none" or view.twin.form != "manifest":
        return chosen
    assert view.twin.manifest is not None
    manifest = Path(view.twin.manifest)
    several = [e for part in chosen.train.values() for e in part if e.more_images]
    if several:
        raise UserError(
            f"twin.manifest: {several[0].id!r} shows {len(several[0].images)} pictures, a manifest has one; "
            "choose twin=generated or perception=none"
        )
    missing = view.twin.missing
    train = {name: attach_twins(part, manifest, missing=missing) for name, part in chosen.train.items()}
    left_out = sum(map(len, chosen.train.values())) - sum(map(len, train.values()))
    if left_out:
        display.line(f"{left_out} training images have no pair in {manifest} and are left out")
    return replace(chosen, train=train)
