"""From label rows to examples: the checks that every set passes, whatever its format."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from qhk.data.adapter import LabelRow, Options
from qhk.data.matching import ImageIndex
from qhk.data.names import file_key, same_name
from qhk.data.scale import Scale
from qhk.data.video import frame_seconds
from qhk.errors import UserError
from qhk.types import Example


def check_rows(
    rows: Sequence[LabelRow], *, bounds: tuple[float, float] | None, scored: bool, root: Path
) -> None:
    """Raise ``UserError`` on no rows, a repeated id, and a score missing, unasked for or out of bounds."""
    if not rows:
        raise UserError(f"{root}: the label file has no rows: an empty set cannot be used")
    repeated = [key for key, count in Counter(same_name(row.name) for row in rows).items() if count > 1]
    if repeated:
        twice = [row.where for row in rows if same_name(row.name) == repeated[0]]
        raise UserError(
            f"{twice[1]}: image {repeated[0]!r} is listed twice (first {twice[0]}; {len(repeated)} names "
            "in all): keep one row"
        )
    assert all((row.score is not None) == scored for row in rows)
    if bounds is None:
        return
    outside = [row for row in rows if row.score is not None and not bounds[0] <= row.score <= bounds[1]]
    if outside:
        raise UserError(
            f"{outside[0].where}: score {outside[0].score} is outside bounds [{bounds[0]}, {bounds[1]}] "
            f"({len(outside)} rows in all): check the score column or correct the bounds"
        )


def make_examples(
    name: str,
    rows: Sequence[LabelRow],
    splits: Sequence[str | None],
    index: ImageIndex,
    scale: Scale | None,
) -> dict[str, list[Example]]:
    """Return the examples of set ``name`` by split, with their pictures; rows without a split are left out.

    ``scale`` is None where the rows have labels only. Raises ``UserError`` naming file and row for a
    picture that is not there, fits several files, or is the whole of two rows.
    """
    examples: dict[str, list[Example]] = {}
    taken: dict[str, str] = {}
    for row, split in zip(rows, splits, strict=True):
        if split is None:
            continue
        try:
            images = find_pictures(row, index)
        except ValueError as error:
            raise UserError(f"dataset.{name}: {error}") from None
        if not row.pictures:
            _take(name, images[0], row.where, taken)
        examples.setdefault(split, []).append(_example(name, row, images, scale))
    return examples


def labelled_examples(name: str, rows: Sequence[LabelRow], scale: Scale | None) -> list[Example]:
    """Return the examples of label rows whose pictures nobody will open: their paths lead nowhere."""
    return [_example(name, row, tuple(map(Path, row.pictures or (row.name,))), scale) for row in rows]


def find_pictures(row: LabelRow, index: ImageIndex) -> tuple[Path, ...]:
    """Return the files of a row's pictures: an absolute path that is there, else what the index finds.

    Raises ``UserError`` naming the row of a missing one, and of an absolute path that leads elsewhere than to
    the set and its ``roots``: the label file may be somebody else's.
    """
    return tuple(_find_picture(picture, row.where, index) for picture in row.pictures or (row.name,))


def _find_picture(picture: str, where: str, index: ImageIndex) -> Path:
    if not (os.path.isabs(picture) and os.path.isfile(picture)):
        return index.find(picture, where)
    if index.holds(Path(picture)):
        return Path(picture)
    try:
        return index.find(picture, where)  # the tail of a path of the authors' that is here by chance
    except UserError:
        raise UserError(
            f"{where}: {picture} lies outside the set; if it may be read, add {os.path.dirname(picture)} to "
            "the set's roots"
        ) from None


def derive_examples(
    derive: Callable[[Path, Options, Path], tuple[Path, ...]],
    examples: Mapping[str, list[Example]],
    options: Options,
    *,
    cache: Path,
    progress: Callable[[int, int], None],
) -> dict[str, list[Example]]:
    """Return the examples with derived pictures (of a video: its frames) in place of their files."""
    total, done = sum(len(part) for part in examples.values()), 0
    derived: dict[str, list[Example]] = {split: [] for split in examples}
    for split, part in examples.items():
        for example in part:
            first, *others = derive(example.image, options, cache)
            seconds = frame_seconds((first, *others))
            derived[split].append(replace(example, image=first, more_images=tuple(others), seconds=seconds))
            progress(done := done + 1, total)
    return derived


def refuse_unlabelled(name: str, index: ImageIndex, examples: Mapping[str, Sequence[Example]]) -> None:
    """Raise ``UserError`` when a picture of the set's folders belongs to no example."""
    spare = index.images_beside(
        image for split in examples.values() for example in split for image in example.images
    )
    if spare:
        raise UserError(
            f"dataset.{name}: {len(spare)} images have no label, first {spare[0]}: add rows, "
            f"remove the files, or set dataset.{name}.options.allow_unlabelled=true"
        )


def _take(name: str, image: Path, where: str, taken: dict[str, str]) -> None:
    owner = taken.setdefault(file_key(image), where)
    if owner != where:
        raise UserError(f"dataset.{name}: {where}: {image} already belongs to {owner}: keep one row")


def _example(name: str, row: LabelRow, images: tuple[Path, ...], scale: Scale | None) -> Example:
    return Example(
        id=row.name,
        dataset=name,
        image=images[0],
        mos=scale.mos(row.score) if scale is not None and row.score is not None else None,
        mos_native=row.score,
        higher_is_better=scale.higher_is_better if scale is not None else True,
        mos_std=scale.deviation(row.std) if scale is not None else None,
        reference=row.reference,
        labels=dict(row.labels),
        more_images=images[1:],
    )
