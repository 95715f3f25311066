"""Loads a ``dataset`` entry: finds it, reads its labels, maps them to [1, 5], matches images, splits.

Everything a user can get wrong with a set is refused here, before a model is loaded, in one line that
names the file or key, the value and the fix.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qhk.data.adapters import ADAPTERS
from qhk.data.adapters.base import Adapter, LabelRow, Options
from qhk.data.adapters.matching import index_images
from qhk.data.miniature import MARKER, ensure_miniature_set, miniature_folder
from qhk.data.rows import check_rows, make_examples, refuse_unlabelled
from qhk.data.scale import Scale, fit_scale
from qhk.types import Example

Scalar = str | int | float | bool | None
Progress = Callable[[int, int], None]

MINIATURE_OPTIONS = ("generator_seed", "size")
"""Options that belong to the generator of a miniature set, not to its adapter."""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """One entry of ``dataset`` as the config gives it; None where a value has still to be filled in.

    Of a miniature entry, ``root`` is the name of the generated set and ``options`` also hold
    ``generator_seed`` and ``size``; of any other, ``root`` is a folder on disk.
    """

    adapter: str
    root: str | None
    protocol: str
    normalisation: str | None
    bounds: tuple[float, float] | None
    higher_is_better: bool | None
    miniature: bool
    options: Mapping[str, Scalar]


@dataclass(frozen=True, kw_only=True)
class LoadedDataset:
    """A set in memory: ``examples`` by split (train, validation, test; only those that exist).

    ``scale`` is the map from native scores to [1, 5], None where the set has labels only; ``fingerprint``
    is a sha256 over splits, ids, MOS, labels asked for and file sizes. ``left_out`` has one line per row
    that the adapter does not use: file, row and reason.
    """

    name: str
    protocol: str
    miniature: bool
    scale: Scale | None
    examples: Mapping[str, list[Example]]
    fingerprint: str
    left_out: tuple[str, ...] = ()


def load_dataset_entry(name: str, spec: DatasetSpec, *, cache: Path, progress: Progress) -> LoadedDataset:
    """The set ``name`` as ``spec`` describes it. A miniature set is generated below ``cache`` if needed.

    Example ids are the file names of the label file, unique within the set; ``mos_std`` is on the
    [1, 5] scale. ``progress`` is called while a miniature set is generated. Raises ``ValueError`` on
    everything listed in the room's docstring.
    """
    adapter = _check_spec(name, spec)
    root = _make_root(name, spec, cache, progress)
    missing = _missing(name, adapter, root, spec)
    if missing:
        raise ValueError(
            f"dataset.{name}.root: {missing[0]}; expected layout: {adapter.layout} (README, section Data)"
        )
    if (root / MARKER).is_file() != spec.miniature:
        wanted = (
            "true: the folder holds a generated set"
            if not spec.miniature
            else "false: the folder has no marker"
        )
        raise ValueError(f"dataset.{name}.miniature must be {wanted} ({root / MARKER})")
    options = _adapter_options(spec)
    try:
        every_row = adapter.read_labels(root, options)
        rows = [row for row in every_row if row.left_out is None]
        check_rows(rows, bounds=spec.bounds, scored=adapter.scored, root=root)
        splits = adapter.assign_splits(rows, spec.protocol, root, options)
        index = index_images(adapter.images(root, options), endings=adapter.endings)
    except ValueError as error:
        raise ValueError(f"dataset.{name}: {error}") from None
    scale = _fit_scale(name, rows, spec)
    examples = make_examples(name, rows, splits, index, scale)
    if adapter.derive is not None:
        examples = _derive(adapter.derive, examples, options, cache, progress)
    if spec.adapter == "folder" and options.get("allow_unlabelled") is not True:
        refuse_unlabelled(name, index, examples)
    return LoadedDataset(
        name=name,
        protocol=spec.protocol,
        miniature=spec.miniature,
        scale=scale,
        examples=examples,
        fingerprint=fingerprint(examples),
        left_out=tuple(f"{row.where}: {row.left_out}" for row in every_row if row.left_out is not None),
    )


def _derive(
    derive: Callable[[Path, Options, Path], tuple[Path, ...]],
    examples: Mapping[str, list[Example]],
    options: Options,
    cache: Path,
    progress: Progress,
) -> dict[str, list[Example]]:
    """The examples with the pictures that stand for their files, in place of the files."""
    total, done = sum(len(part) for part in examples.values()), 0
    derived: dict[str, list[Example]] = {split: [] for split in examples}
    for split, part in examples.items():
        for example in part:
            first, *others = derive(example.image, options, cache)
            derived[split].append(replace(example, image=first, more_images=tuple(others)))
            progress(done := done + 1, total)
    return derived


def missing_files(name: str, spec: DatasetSpec, *, cache: Path) -> list[str]:
    """What the set still lacks on disk, one line each; empty when it can be loaded or generated.

    Nothing is read, generated or downloaded: this is for a dry run. Raises ``ValueError`` only for
    values that are wrong in themselves (unknown adapter, protocol or option).
    """
    adapter = _check_spec(name, spec)
    if spec.miniature:
        return []
    assert spec.root is not None
    return [
        f"dataset.{name}.root: {line}" for line in _missing(name, adapter, Path(spec.root).expanduser(), spec)
    ]


def fingerprint(examples: Mapping[str, Sequence[Example]]) -> str:
    """sha256 (hex) over split, id, MOS and file sizes of every example, in order.

    Labels count where they are all that an example has.
    """
    digest = hashlib.sha256()
    for split in sorted(examples):
        for example in examples[split]:
            record = [split, example.id, repr(example.mos), *(path.stat().st_size for path in example.images)]
            if example.mos is None:
                record += [str(item) for item in sorted(example.labels.items())]
            digest.update(json.dumps(record).encode())
    return digest.hexdigest()


def _check_spec(name: str, spec: DatasetSpec) -> Adapter:
    if spec.adapter not in ADAPTERS:
        raise ValueError(
            f"dataset.{name}.adapter is {spec.adapter!r}: choose one of {', '.join(sorted(ADAPTERS))}"
        )
    adapter = ADAPTERS[spec.adapter]
    if spec.protocol not in adapter.protocols:
        raise ValueError(
            f"dataset.{name}.protocol is {spec.protocol!r}: "
            f"{spec.adapter} offers {', '.join(adapter.protocols)}"
        )
    known = adapter.options | (set(MINIATURE_OPTIONS) if spec.miniature else set())
    unknown = sorted(set(spec.options) - known)
    if unknown:
        raise ValueError(
            f"dataset.{name}.options.{unknown[0]} is unknown: {spec.adapter} takes {', '.join(sorted(known))}"
        )
    if spec.root is None:
        raise ValueError(f"dataset.{name}.root is null: give the folder (dataset.{name}.root=/path/to/set)")
    if adapter.scored:
        _check_scale_keys(name, adapter, spec)
        return adapter
    for key, value in (
        ("normalisation", spec.normalisation),
        ("bounds", spec.bounds),
        ("higher_is_better", spec.higher_is_better),
    ):
        if value is not None:
            raise ValueError(
                f"dataset.{name}.{key} is {value}: set it to null, {spec.adapter} has labels and no scores"
            )
    return adapter


def _check_scale_keys(name: str, adapter: Adapter, spec: DatasetSpec) -> None:
    if spec.normalisation is None:
        raise ValueError(f"dataset.{name}.normalisation is null: choose whole_set or given")
    if spec.higher_is_better is None:
        raise ValueError(
            f"dataset.{name}.higher_is_better is null: say true (MOS) or false (DMOS), it cannot be guessed"
        )
    if adapter.higher_is_better not in (None, spec.higher_is_better):
        fix = str(adapter.higher_is_better).lower()
        raise ValueError(
            f"dataset.{name}.higher_is_better must be {fix}: that is the polarity of {spec.adapter}'s scores"
        )
    if adapter.higher_is_better is None and spec.bounds is None:
        raise ValueError(
            f"dataset.{name}.bounds is null: give the native range, as in dataset.{name}.bounds=[0,100]"
        )


def _fit_scale(name: str, rows: Sequence[LabelRow], spec: DatasetSpec) -> Scale | None:
    if spec.normalisation is None:
        return None
    assert spec.higher_is_better is not None
    return fit_scale(
        (row.score for row in rows if row.score is not None),
        name=name,
        normalisation=spec.normalisation,
        bounds=spec.bounds,
        higher_is_better=spec.higher_is_better,
    )


def _make_root(name: str, spec: DatasetSpec, cache: Path, progress: Progress) -> Path:
    assert spec.root is not None
    if not spec.miniature:
        return Path(spec.root).expanduser()
    seed, size = (spec.options.get(key) for key in MINIATURE_OPTIONS)
    if type(seed) is not int or type(size) is not int:
        raise ValueError(
            f"dataset.{name}.options: generator_seed and size must be whole numbers, got {seed!r}, {size!r}"
        )
    miniature_folder(cache, seed=seed, size=size)
    return ensure_miniature_set(spec.root, cache, seed=seed, size=size, progress=progress)


def _adapter_options(spec: DatasetSpec) -> dict[str, Scalar]:
    return {key: value for key, value in spec.options.items() if key not in MINIATURE_OPTIONS}


def _missing(name: str, adapter: Adapter, root: Path, spec: DatasetSpec) -> list[str]:
    if not root.is_dir():
        return [f"no folder {root}"]
    try:
        expected = adapter.expected(root, spec.protocol, _adapter_options(spec))
    except ValueError as error:
        raise ValueError(f"dataset.{name}: {error}") from None
    return [
        f"no {' or '.join(str(path) for path in alternatives)}"
        for alternatives in expected
        if not any(path.exists() for path in alternatives)
    ]
