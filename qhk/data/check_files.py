"""The image files of a set: complete, readable, of the official kind, and no picture twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from qhk.data.adapter import LabelRow, Options
from qhk.data.datasets import fingerprint
from qhk.data.finding import Finding, Verdict
from qhk.data.image import check_size
from qhk.data.inventory import Depth, FileFacts, memory_file, take_inventory
from qhk.data.labels import Labels
from qhk.data.matching import ImageIndex, index_images
from qhk.data.names import file_key
from qhk.data.rows import derive_examples, find_pictures, make_examples
from qhk.data.spec import Progress
from qhk.settings.data import ExpectedSettings

LOOK_BITS = 3
"""Perceptual hashes that differ in at most this many of 64 bits are taken for one picture."""

Matched = Mapping[str, tuple[Path, ...]]
"""Name of a row -> the files of its pictures."""

_FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "tiff": "TIFF"}


def check_files(
    labels: Labels,
    options: Options,
    expected: ExpectedSettings | None,
    *,
    cache: Path,
    depth: Depth,
    near_duplicates: bool,
    workers: int,
    progress: Progress,
) -> tuple[list[Finding], str | None]:
    """Return the findings, and the set's fingerprint where every image that a part needs can be read."""
    adapter = labels.adapter
    folders = adapter.images(labels.root, options)
    index = index_images(folders, endings=adapter.endings, roots=labels.roots)
    matched, lost = _match(labels.rows, index)
    used = {path for paths in matched.values() for path in paths}
    if adapter.derive is not None:
        matched = _derived(adapter.derive, matched, lost, options, cache)
    files = take_inventory(
        list(dict.fromkeys(path for paths in matched.values() for path in paths)),
        memory=memory_file(cache, labels.root),
        depth=depth,
        near_duplicates=near_duplicates,
        workers=workers,
        progress=progress,
    )
    broken = list(_broken(files))
    parts = {row.name: split for row, split in zip(labels.rows, labels.splits, strict=True)}
    findings = [
        _missing(len(labels.rows), matched, lost),
        _unlabelled(index, used, expected),
        _listed("unreadable images", broken, "error", "replace each by the file of the download", depth),
        _kinds(files, expected),
        _endings(files),
        _sizes(files, expected),
        *_copies(labels, matched, files, parts),
    ]
    if near_duplicates:
        findings.append(_look_alikes(labels, matched, files, parts))
    usable = not broken and all(parts[name] is None or name in matched for name in parts)
    if not usable:
        return findings, None
    examples = make_examples(labels.name, labels.rows, labels.splits, index, labels.scale)
    if adapter.derive is not None:
        examples = derive_examples(adapter.derive, examples, options, cache=cache, progress=progress)
    return findings, fingerprint(examples, files)


def _match(rows: Sequence[LabelRow], index: ImageIndex) -> tuple[dict[str, tuple[Path, ...]], list[str]]:
    """The pictures of each row by its name, and a line for each row that has none of its own."""
    matched: dict[str, tuple[Path, ...]] = {}
    taken: dict[str, str] = {}
    lost: list[str] = []
    for row in rows:
        try:
            pictures = find_pictures(row, index)
        except ValueError as error:
            lost.append(str(error))
            continue
        owner = row.where if row.pictures else taken.setdefault(file_key(pictures[0]), row.where)
        if owner != row.where:
            lost.append(f"{row.where}: {pictures[0]} already belongs to {owner}")
            continue
        matched[row.name] = pictures
    return matched, lost


def _derived(
    derive: Callable[[Path, Options, Path], tuple[Path, ...]],
    matched: Matched,
    lost: list[str],
    options: Options,
    cache: Path,
) -> dict[str, tuple[Path, ...]]:
    """The pictures that stand for each row's file; a line is added to ``lost`` for a file that gives none."""
    derived: dict[str, tuple[Path, ...]] = {}
    for name, paths in matched.items():
        try:
            derived[name] = derive(paths[0], options, cache)
        except ValueError as error:
            lost.append(str(error))
    return derived


def _missing(total: int, matched: Matched, lost: Sequence[str]) -> Finding:
    if not lost:
        return Finding("images of labels", str(len(matched)), str(total), "ok", "")
    fix = f"{len(lost)} rows have no image of their own, first {lost[0]}"
    return Finding("images of labels", str(len(matched)), str(total), "error", fix, tuple(lost))


def _unlabelled(index: ImageIndex, used: set[Path], expected: ExpectedSettings | None) -> Finding:
    spare = tuple(map(str, index.images_beside(used)))
    known = expected.unlabelled if expected is not None else None
    if len(spare) == known or not spare:
        return Finding("images without label", str(len(spare)), "" if known is None else str(known), "ok", "")
    fix = f"not used; first {spare[0]}: another set, or copies, lie among the images"
    fewer = known is not None and len(spare) < known
    fix = "references or training pictures of the download are not there; they are not used" if fewer else fix
    return Finding("images without label", str(len(spare)), str(known or 0), "warning", fix, spare)


def _broken(files: Mapping[Path, FileFacts]) -> Iterator[str]:
    for path, facts in files.items():
        if facts.problem is not None:
            yield facts.problem
            continue
        try:
            check_size(path, (facts.width, facts.height))
        except ValueError as error:
            yield str(error)


def _listed(subject: str, lines: Sequence[str], verdict: Verdict, fix: str, how: str) -> Finding:
    if not lines:
        return Finding(subject, f"0 ({how})", "0", "ok", "")
    return Finding(subject, f"{len(lines)} ({how})", "0", verdict, f"first {lines[0]}; {fix}", tuple(lines))


def _kinds(files: Mapping[Path, FileFacts], expected: ExpectedSettings | None) -> Finding:
    counts = Counter(
        "JPEG" if found.format == "MPO" else found.format for found in files.values() if found.format
    )
    text = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())) or "none"
    if expected is None or not expected.formats:
        return Finding("file formats", text, "", "ok", "")
    wanted = ", ".join(f"{kind} {count}" for kind, count in sorted(expected.formats.items()))
    strange = set(counts) - set(expected.formats)
    if not strange:
        return Finding("file formats", text, wanted, "ok", "")
    details = tuple(str(path) for path, found in files.items() if found.format in strange)
    fix = "a converted copy: compression changes quality, so use the official files"
    return Finding("file formats", text, wanted, "error", fix, details)


def _endings(files: Mapping[Path, FileFacts]) -> Finding:
    wrong = []
    for path, found in files.items():
        ending = path.suffix[1:].lower()
        named = _FORMATS.get(ending, ending.upper())
        if found.format and found.format != named and (named, found.format) != ("JPEG", "MPO"):
            wrong.append(f"{path}: holds {found.format}")
    if not wrong:
        return Finding("endings of names", "as the content", "", "ok", "")
    fix = f"first {wrong[0]}: a copy was renamed; it is read by its content"
    return Finding("endings of names", f"{len(wrong)} differ", "", "warning", fix, tuple(wrong))


def _sizes(files: Mapping[Path, FileFacts], expected: ExpectedSettings | None) -> Finding:
    sizes = Counter((found.width, found.height) for found in files.values() if found.width)
    if not sizes:
        return Finding("image size", "none", "", "ok", "")
    (width, height), count = sizes.most_common(1)[0]
    text = f"{width}x{height}" + (f" ({count} of {len(files)})" if len(sizes) > 1 else "")
    if expected is not None and expected.size is not None:
        others = tuple(
            f"{path}: {found.width}x{found.height}"
            for path, found in files.items()
            if found.width and (found.width, found.height) != expected.size
        )
        wanted = f"{expected.size[0]}x{expected.size[1]}"
        fix = (
            f"{len(others)} differ, first {others[0]}: a resized copy, use the official files"
            if others
            else ""
        )
        return Finding("image size", text, wanted, "error" if others else "ok", fix, others)
    side = median(min(found.width, found.height) for found in files.values() if found.width)
    if expected is not None and expected.median_side is not None and side < expected.median_side:
        fix = f"the median short side is {side:g}: a resized copy; record it with your results"
        return Finding("image size", text, f"short side over {expected.median_side}", "warning", fix)
    return Finding("image size", text, "", "ok", "")


def _copies(
    labels: Labels, matched: Matched, files: Mapping[Path, FileFacts], parts: Mapping[str, str | None]
) -> list[Finding]:
    """Different files of equal bytes: an error across parts, a warning within one."""
    groups: dict[str, dict[str, str]] = {}
    for name, paths in matched.items():
        for path in paths:
            groups.setdefault(files[path].sha256, {})[file_key(path)] = name
    scores = {row.name: row.score for row in labels.rows}
    across: list[str] = []
    within: list[str] = []
    for group in groups.values():
        if len(group) < 2:
            continue
        names = list(group.values())
        line = " = ".join(f"{name} ({parts[name] or 'unused'}, {scores[name]})" for name in names)
        (across if len({parts[name] for name in names} - {None}) > 1 else within).append(line)
    return [
        _listed("copies across parts", across, "error", "leave one of each out by protocol=names", "bytes"),
        _listed("copies within a part", within, "warning", "the picture counts twice", "bytes"),
    ]


def _look_alikes(
    labels: Labels,
    matched: Matched,
    files: Mapping[Path, FileFacts],
    parts: Mapping[str, str | None],
) -> Finding:
    """Pictures of different contents and parts whose perceptual hashes are close."""
    references = {row.name: row.reference for row in labels.rows}
    names = [
        name for name, paths in matched.items() if files[paths[0]].perceptual_hash is not None and parts[name]
    ]
    hashes = np.array(
        [int(str(files[matched[name][0]].perceptual_hash), 16) for name in names], dtype=np.uint64
    )
    lines = []
    for place, name in enumerate(names):
        distance = np.bitwise_count(hashes[place + 1 :] ^ hashes[place])
        for other in (names[place + 1 + int(step)] for step in np.flatnonzero(distance <= LOOK_BITS)):
            if parts[name] != parts[other] and (
                references[name] is None or references[name] != references[other]
            ):
                lines.append(f"{name} ({parts[name]}) ~ {other} ({parts[other]})")
    fix = "look at them; leave one of each out by protocol=names if it is one picture"
    return _listed("look-alikes across parts", lines, "warning", fix, "perceptual hash")
