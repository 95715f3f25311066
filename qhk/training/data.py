"""The data of a run: training sets, validation part and benchmarks, loaded and checked before any weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qhk.data.datasets import DatasetSpec, LoadedDataset, load_dataset_entry
from qhk.data.image import MAX_PIXELS, MIN_SIDE
from qhk.data.sampling import step_indices
from qhk.data.selection import check_images, refuse_leakage, select_benchmark, select_training_data
from qhk.data.twin import attach_twins
from qhk.settings import DatasetSettings, Settings
from qhk.training.display import Display
from qhk.training.evaluate import BenchmarkSet
from qhk.training.inputs import PlannedPrompt
from qhk.types import Example


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Training examples by set with the sets' weights, validation part, benchmarks, fingerprints."""

    train: Mapping[str, Sequence[Example]]
    weights: Mapping[str, float]
    validation: Sequence[Example]
    benchmarks: Sequence[BenchmarkSet]
    fingerprints: Mapping[str, str]

    @property
    def num_examples(self) -> int:
        """Training examples of all sets."""
        return sum(len(examples) for examples in self.train.values())

    def plan(self, step: int, *, seed: int, prompts_per_step: int) -> list[PlannedPrompt]:
        """The examples of a step, a pure function of (seed, step)."""
        sizes = {name: len(examples) for name, examples in self.train.items()}
        draws = step_indices(seed, step, sizes=sizes, weights=self.weights, prompts_per_step=prompts_per_step)
        return [
            PlannedPrompt(index=index, example=self.train[draw.dataset][draw.index], epoch=draw.epoch)
            for index, draw in enumerate(draws)
        ]


def dataset_spec(settings: DatasetSettings) -> DatasetSpec:
    """The entry as the data room takes it."""
    return DatasetSpec(
        adapter=settings.adapter,
        root=settings.root,
        protocol=settings.protocol,
        normalisation=settings.normalisation,
        bounds=settings.bounds,
        higher_is_better=settings.higher_is_better,
        miniature=settings.miniature,
        options=settings.options,
    )


def load_sets(settings: Settings, names: Sequence[str], display: Display) -> dict[str, LoadedDataset]:
    """The named dataset entries; miniature sets are generated where they are not cached yet."""
    loaded = {}
    for name in names:
        with display.task(f"preparing {name}") as progress:
            spec = dataset_spec(settings.dataset[name])
            loaded[name] = load_dataset_entry(name, spec, cache=Path(settings.paths.cache), progress=progress)
    return loaded


def select_benchmarks(settings: Settings, loaded: Mapping[str, LoadedDataset]) -> list[BenchmarkSet]:
    """The benchmarks of the run with the images that are reported on."""
    return [
        BenchmarkSet(
            name=name,
            split=benchmark.split,
            protocol=loaded[name].protocol,
            miniature=loaded[name].miniature,
            examples=select_benchmark(
                loaded[name], split=benchmark.split, limit=benchmark.limit, seed=settings.seed
            ),
        )
        for name, benchmark in settings.benchmark.items()
    ]


def load_run_data(settings: Settings, display: Display) -> RunData:
    """Everything a training run reads, with every image's header checked.

    Raises ValueError in one line for what is missing, unreadable, out of range, shared between training
    and a benchmark, or lacking a degraded twin that the loss would look at.
    """
    names = list(dict.fromkeys([*settings.data.sets, *settings.benchmark]))
    loaded = load_sets(settings, names, display)
    chosen = select_training_data(
        [loaded[name] for name in settings.data.sets],
        weights=settings.data.sets,
        split=settings.data.split,
        validation_fraction=settings.data.validation_fraction,
        validation_limit=settings.data.validation_limit,
        limit=settings.data.limit,
        seed=settings.seed,
    )
    benchmarks = select_benchmarks(settings, loaded)
    used = [example for examples in chosen.train.values() for example in examples] + chosen.validation
    refuse_leakage(used, {benchmark.name: benchmark.examples for benchmark in benchmarks})
    train = chosen.train
    if settings.perception.form != "none" and settings.twin.form == "manifest":
        assert settings.twin.manifest is not None
        manifest = Path(settings.twin.manifest)
        train = {name: attach_twins(examples, manifest) for name, examples in train.items()}
    everything = used + [example for benchmark in benchmarks for example in benchmark.examples]
    with display.task("checking images") as progress:
        check_images(everything, min_side=MIN_SIDE, max_pixels=MAX_PIXELS, progress=progress)
    return RunData(
        train=train,
        weights=chosen.weights,
        validation=chosen.validation,
        benchmarks=benchmarks,
        fingerprints={name: dataset.fingerprint for name, dataset in loaded.items()},
    )
