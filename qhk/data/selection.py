"""What a run trains, validates and reports on: parts of loaded sets, cut by seed and by content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qhk.data.datasets import LoadedDataset
from qhk.data.image import MAX_PIXELS, MIN_SIDE, check_size
from qhk.data.inventory import FileFacts
from qhk.data.names import file_key
from qhk.data.seeds import stream_seed
from qhk.errors import UserError
from qhk.types import Example


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Training examples per set with the sets' weights, and the validation examples of all sets."""

    train: Mapping[str, list[Example]]
    weights: Mapping[str, float]
    validation: list[Example]


def select_training_data(
    loaded: Sequence[LoadedDataset],
    *,
    weights: Mapping[str, float],
    split: str,
    validation_fraction: float,
    validation_limit: int | None,
    limit: int | None,
    seed: int,
) -> TrainingData:
    """Return the training and validation examples of a run.

    Validation comes from the set's own ``validation`` split where its protocol has one, else from
    ``split`` by ``cut_validation``; never from test. ``validation_fraction`` 0 means none at all.
    ``limit`` and ``validation_limit`` hold per set. Raises ``UserError`` on an empty part.
    """
    train: dict[str, list[Example]] = {}
    validation: list[Example] = []
    for dataset in loaded:
        pool = require_split(dataset, split, key="loading.split")
        if validation_fraction > 0.0:
            held_out = dataset.examples.get("validation", []) if split == "train" else []
            if held_out:
                held_out = limit_examples(held_out, validation_limit, seed=seed)
            else:
                pool, held_out = cut_validation(
                    pool, fraction=validation_fraction, limit=validation_limit, seed=seed, name=dataset.name
                )
            validation += held_out
        train[dataset.name] = limit_examples(pool, limit, seed=seed)
    return TrainingData(train=train, weights=dict(weights), validation=validation)


def select_benchmark(dataset: LoadedDataset, *, split: str, limit: int | None, seed: int) -> list[Example]:
    """Return the examples a benchmark reports on; ``limit`` keeps a seeded subset.

    Raises ``UserError`` on an empty split.
    """
    examples = require_split(dataset, split, key=f"benchmark.{dataset.name}.split")
    return limit_examples(examples, limit, seed=seed)


def require_split(dataset: LoadedDataset, split: str, *, key: str) -> list[Example]:
    """Return the examples of ``split``.

    Raises ``UserError`` naming ``key`` and the splits there are when it is empty.
    """
    examples = dataset.examples.get(split, [])
    if not examples:
        there = ", ".join(sorted(name for name, part in dataset.examples.items() if part)) or "none"
        raise UserError(
            f"{key}={split}: {dataset.name} has no such images under protocol={dataset.protocol} "
            f"(splits there: {there}): choose another split or protocol"
        )
    return examples


def limit_examples(examples: Sequence[Example], limit: int | None, *, seed: int) -> list[Example]:
    """Return at most ``limit`` examples, drawn by ``seed``, in their original order; all of them for None."""
    if limit is None or limit >= len(examples):
        return list(examples)
    ranked = sorted(
        range(len(examples)), key=lambda i: _rank(examples[i].dataset, examples[i].id, "limit", seed)
    )
    return [examples[index] for index in sorted(ranked[:limit])]


def cut_validation(
    examples: Sequence[Example], *, fraction: float, limit: int | None, seed: int, name: str
) -> tuple[list[Example], list[Example]]:
    """Return ``(train, validation)``: whole contents (references) move to validation, drawn by ``seed``.

    Contents are taken until validation holds ``fraction`` of the examples, or ``limit`` of them if that
    is less; beyond ``limit`` a seeded subset is kept and the rest is left unused, so that the two parts
    never share a content. Raises ``UserError`` when one of the parts would be empty.
    """
    target = max(1, round(fraction * len(examples)))
    target = target if limit is None else min(target, limit)
    contents = Counter(content_of(example) for example in examples)
    chosen: set[str] = set()
    count = 0
    for content in sorted(contents, key=lambda content: _rank(name, content, "validation", seed)):
        if count >= target:
            break
        chosen.add(content)
        count += contents[content]
    train = [example for example in examples if content_of(example) not in chosen]
    held_out = [example for example in examples if content_of(example) in chosen]
    if not train or not held_out:
        raise UserError(
            f"loading.validation_fraction={fraction} leaves {len(train)} training images of {name}, "
            f"which has {len(contents)} contents: use a smaller fraction or 0"
        )
    return train, limit_examples(held_out, limit, seed=seed)


def content_of(example: Example) -> str:
    """Return what the example shows: its reference, or its own id where it has none."""
    return example.id if example.reference is None else f"reference {example.reference}"


def refuse_leakage(
    train: Sequence[Example],
    reported: Mapping[str, Sequence[Example]],
    *,
    files: Mapping[Path, FileFacts],
) -> None:
    """Raise ``UserError`` when an image or a content of ``train`` is also in a benchmark.

    ``train`` is everything a run learns from or selects on, validation included; see ``find_shared``.
    """
    seen = trained_images(train, files=files)
    for name, examples in reported.items():
        shared = find_shared(seen, examples, files=files)
        if shared is not None:
            raise UserError(f"benchmark.{name}: {shared.what}: {shared.fix}")


@dataclass(frozen=True, kw_only=True)
class TrainedImages:
    """What is trained on: files (``file_key``), the digests of their bytes with one file each, contents."""

    paths: frozenset[str]
    digests: Mapping[str, Path]
    contents: frozenset[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Something that is trained on and should not be, in words, and what to do about it."""

    what: str
    fix: str


def trained_images(train: Sequence[Example], *, files: Mapping[Path, FileFacts]) -> TrainedImages:
    """Return the images of ``train`` in the forms that ``find_shared`` compares."""
    pictures = {image for example in train for image in example.images}
    return TrainedImages(
        paths=frozenset(map(file_key, pictures)),
        digests={files[image].sha256: image for image in pictures if image in files},
        contents=frozenset(key for example in train for key in _content_keys(example)),
    )


def find_shared(
    seen: TrainedImages, examples: Sequence[Example], *, files: Mapping[Path, FileFacts]
) -> Overlap | None:
    """Return the first image or content of ``examples`` that is trained on, or None.

    Images are compared by file and by the digest of their bytes (``files``), so that a copy under another
    name is caught; contents (references) by set and by folder, so two entries that read one set are.
    """
    for example in examples:
        same = [image for image in example.images if file_key(image) in seen.paths]
        if same:
            return Overlap(what=f"{same[0]} is also trained on", fix="choose disjoint splits")
        copies = [image for image in example.images if image in files and files[image].sha256 in seen.digests]
        if copies:
            return Overlap(
                what=f"{copies[0]} has the bytes of {seen.digests[files[copies[0]].sha256]}, "
                "which is trained on",
                fix="choose disjoint splits, or leave one out by protocol=names",
            )
        if not seen.contents.isdisjoint(_content_keys(example)):
            return Overlap(
                what=f"reference {example.reference} of {example.id} is also trained on",
                fix="choose a protocol that splits by reference",
            )
    return None


def check_images(
    examples: Sequence[Example],
    *,
    files: Mapping[Path, FileFacts],
    min_side: int = MIN_SIDE,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Raise ``UserError`` at the first image that ``files`` knows as broken, too small or too large."""
    for path in dict.fromkeys(image for example in examples for image in example.images):
        facts = files[path]
        if facts.problem is not None:
            raise UserError(facts.problem)
        check_size(path, (facts.width, facts.height), min_side=min_side, max_pixels=max_pixels)


def _content_keys(example: Example) -> set[tuple[str, str]]:
    if example.reference is None:
        return set()
    return {(example.dataset, example.reference), (file_key(example.image.parent), example.reference)}


def _rank(dataset: str, item: str, purpose: str, seed: int) -> tuple[int, str]:
    return stream_seed(seed, purpose, dataset, item), item
