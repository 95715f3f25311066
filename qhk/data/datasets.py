"""Loads a ``dataset`` entry: labels on [1, 5], the pictures of each, the parts of its protocol.

Everything a user can get wrong with a set is refused here, before a model is loaded, in one line that
names the file or key, the value and the fix.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from qhk.data.image import MAX_PIXELS, MIN_SIDE, check_size, read_header
from qhk.data.inventory import FileFacts, memory_file, take_inventory
from qhk.data.labels import Labels, load_labels
from qhk.data.matching import ImageIndex, index_images
from qhk.data.rows import derive_examples, make_examples, refuse_unlabelled
from qhk.data.scale import Scale
from qhk.data.spec import Progress, adapter_options, check_spec
from qhk.settings.data import DatasetSettings
from qhk.types import Example

UNPACKED_BYTES = 1 << 28
"""Of a set that is unpacked only to be looked at."""


@dataclass(frozen=True, kw_only=True)
class LoadedDataset:
    """A set in memory: ``examples`` by split (train, validation, test; only those that exist).

    ``scale`` is the map from native scores to [1, 5], None where the set has labels only; ``files`` is what
    is known of each picture's file; ``fingerprint`` a sha256 over splits, ids, MOS, labels asked for and the
    pictures' bytes. ``left_out`` has one line per row that the adapter does not use: file, row and reason.
    """

    name: str
    protocol: str
    miniature: bool
    scale: Scale | None
    examples: Mapping[str, list[Example]]
    files: Mapping[Path, FileFacts]
    fingerprint: str
    left_out: tuple[str, ...] = ()


def load_dataset_entry(
    name: str, spec: DatasetSettings, *, cache: Path, progress: Progress, workers: int = 0
) -> LoadedDataset:
    """Return the set ``name`` as ``spec`` describes it; a miniature set is generated where needed.

    Example ids are the file names of the label file, unique within the set; ``mos_std`` is on the
    [1, 5] scale. Pictures are listed, and read by ``workers`` threads where ``cache`` does not remember them
    (digest and header; nothing is decoded); ``progress`` tells how far that is. Raises ``UserError`` on
    everything listed in the room's docstring.
    """
    labels, options = load_labels(name, spec, cache=cache, progress=progress), adapter_options(spec)
    index, examples = _matched(labels, spec)
    if labels.adapter.derive is not None:
        examples = derive_examples(labels.adapter.derive, examples, options, cache=cache, progress=progress)
    _refuse_spare(labels, spec, index, examples)
    files = take_inventory(
        list(dict.fromkeys(image for part in examples.values() for e in part for image in e.images)),
        memory=memory_file(cache, labels.root),
        depth="header",
        near_duplicates=False,
        workers=workers,
        progress=progress,
    )
    return LoadedDataset(
        name=name,
        protocol=spec.protocol,
        miniature=spec.miniature,
        scale=labels.scale,
        examples=examples,
        files=files,
        fingerprint=fingerprint(examples, files),
        left_out=labels.left_out,
    )


def _matched(labels: Labels, spec: DatasetSettings) -> tuple[ImageIndex, dict[str, list[Example]]]:
    folders = labels.adapter.images(labels.root, adapter_options(spec))
    index = index_images(folders, endings=labels.adapter.endings, roots=labels.roots)
    return index, make_examples(labels.name, labels.rows, labels.splits, index, labels.scale)


def _refuse_spare(
    labels: Labels, spec: DatasetSettings, index: ImageIndex, examples: Mapping[str, Sequence[Example]]
) -> None:
    asked = "allow_unlabelled" in labels.adapter.options
    if asked and adapter_options(spec).get("allow_unlabelled") is not True:
        refuse_unlabelled(labels.name, index, examples)


def refuse_pictures(name: str, spec: DatasetSettings, *, splits: Set[str]) -> None:
    """Raise ``UserError`` where a picture of the set is not there, or one of ``splits`` is broken.

    Only the beginning of each file is read, of a video nothing. A set that must be unpacked is unpacked to be
    thrown away where it is of less than ``UNPACKED_BYTES``, else left for the run, and so is a miniature one.
    """
    adapter = check_spec(name, spec)
    if spec.miniature or spec.root is None:
        return
    if adapter.unpack is not None and folder_bytes(Path(spec.root).expanduser()) > UNPACKED_BYTES:
        return
    with TemporaryDirectory() as scratch:
        labels = load_labels(name, spec, cache=Path(scratch), progress=lambda done, total: None)
        index, examples = _matched(labels, spec)
        if adapter.derive is not None:
            return
        _refuse_spare(labels, spec, index, examples)
        for split in sorted(splits & examples.keys()):
            for image in dict.fromkeys(image for example in examples[split] for image in example.images):
                size, _ = read_header(image)
                check_size(image, size, min_side=MIN_SIDE, max_pixels=MAX_PIXELS)


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fingerprint(examples: Mapping[str, Sequence[Example]], files: Mapping[Path, FileFacts]) -> str:
    """Return the SHA-256 (hex) over split, id, MOS and picture digests of every example, in order.

    Labels count where they are all that an example has.
    """
    digest = hashlib.sha256()
    for split in sorted(examples):
        for example in examples[split]:
            record = [split, example.id, repr(example.mos), *(files[path].sha256 for path in example.images)]
            if example.mos is None:
                record += [str(item) for item in sorted(example.labels.items())]
            digest.update(json.dumps(record).encode())
    return digest.hexdigest()
