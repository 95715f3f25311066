"""Twins of images: degraded on the fly, one seeded kind per image; another image; or a manifest of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from qhk.data.degrade import degrade, eased_strength
from qhk.data.image import load_image, upright_size
from qhk.data.roots import lies_within
from qhk.data.seeds import stream_generator
from qhk.data.selection import content_of
from qhk.errors import UserError
from qhk.files import parse_json, read_text
from qhk.plain import show_value
from qhk.types import Example


def twin_kind(example: Example, *, kinds: Sequence[str], seed: int, epoch: int | None) -> str:
    """Return the degradation that ``example`` gets, drawn uniformly from ``kinds``.

    The stream is (seed, "twin", set, id), plus the epoch where it is given: None keeps one kind for
    the whole run (``resample: fixed``), a number draws anew (``resample: each_epoch``).
    """
    indices = (example.dataset, example.id) if epoch is None else (example.dataset, example.id, epoch)
    return kinds[int(stream_generator(seed, "twin", *indices).integers(len(kinds)))]


def make_twin(
    example: Example,
    image: Image.Image,
    *,
    kinds: Sequence[str],
    strengths: Mapping[str, float],
    seed: int,
    epoch: int | None,
    factor: float = 1.0,
    fit: bool = False,
) -> Image.Image:
    """Return the degraded copy of ``image`` (the RGB picture of ``example``), of the same size.

    ``factor`` in [0, 1] is how far strengths have risen to ``strengths`` (``eased_strength``). Pure: the same
    example, seed, epoch and factor give the same pixels, and the same noise whatever the factor. A prepared
    twin in ``example.twin`` is read instead, as it is; it must have the size of the picture, or is brought to
    it where ``fit`` says so. Raises ``UserError`` when it has not.
    """
    if example.twin is not None:
        prepared = load_image(example.twin)
        if fit:
            return prepared.resize(image.size, Image.Resampling.BICUBIC)
        if prepared.size != image.size:
            raise UserError(_size_message(example, prepared.size, image.size))
        return prepared
    kind = twin_kind(example, kinds=kinds, seed=seed, epoch=epoch)
    indices = (example.dataset, example.id) if epoch is None else (example.dataset, example.id, epoch)
    strength = eased_strength(kind, strengths[kind], factor)
    return degrade(image, kind=kind, strength=strength, rng=stream_generator(seed, "twin pixels", *indices))


def attach_twins(
    examples: Sequence[Example], manifest: Path, *, missing: str, roots: Sequence[Path] | None = None
) -> list[Example]:
    """Return the examples with ``twin`` filled in from ``manifest``.

    Every one of them must have a twin there (``missing`` refuse), or those without are left out.

    The manifest is JSON Lines: ``{"id": ..., "twin": path}`` and, where several sets share ids,
    ``"dataset"``. Relative paths start at the manifest's folder; ids in it that are not among
    ``examples`` are ignored. Raises ``UserError`` on a broken line, a repeated id, a missing pair, a
    missing file, a twin whose stored size differs from its original's, and one that lies neither beside the
    manifest nor in one of ``roots`` (None: anywhere).
    """
    pairs = _read_manifest(manifest)
    paired: list[Example] = []
    lacking: list[str] = []
    for example in examples:
        twin = pairs.get((example.dataset, example.id)) or pairs.get((None, example.id))
        if twin is None:
            lacking.append(example.id)
            continue
        if roots is not None and not lies_within(twin, (manifest.parent.resolve(), *roots)):
            raise UserError(
                f"twin.manifest: {manifest} names {twin}, outside its folder, paths.* and the sets' roots; "
                f"if it may be read, set pairs.roots=[{twin.resolve().parent}]"
            )
        size, original = upright_size(twin), upright_size(example.image)
        if size != original:
            raise UserError(_size_message(replace(example, twin=twin), size, original))
        paired.append(replace(example, twin=twin))
    if lacking and (missing == "refuse" or not paired):
        raise UserError(
            f"twin.manifest: {manifest} has no twin for {lacking[0]!r} ({len(lacking)} of {len(examples)} "
            "examples): add the pairs, leave these out with twin.missing=leave_out, or choose twin=generated"
        )
    return paired


def attach_others(examples: Sequence[Example], *, seed: int) -> list[Example]:
    """Return the examples, the ``twin`` of each being the picture of another content among them.

    Drawn from the stream (seed, "twin image", set, id), one for the whole run. Raises ``UserError`` where all
    examples show one content.
    """
    if len({content_of(example) for example in examples}) < 2:
        raise UserError(
            f"twin.form: another needs two contents, but the {len(examples)} training examples show one; "
            "choose twin=generated, or more images"
        )
    paired = []
    for example in examples:
        rng = stream_generator(seed, "twin image", example.dataset, example.id)
        other = example
        while content_of(other) == content_of(example):
            other = examples[int(rng.integers(len(examples)))]
        paired.append(replace(example, twin=other.image))
    return paired


def _read_manifest(manifest: Path) -> dict[tuple[str | None, str], Path]:
    if not manifest.is_file():
        raise UserError(
            f"twin.manifest: no file {manifest}: give a JSON Lines file, or choose twin=generated"
        )
    pairs: dict[tuple[str | None, str], Path] = {}
    for line, text in enumerate(read_text(manifest).split("\n"), start=1):
        if not text.strip():
            continue
        key, twin = _read_pair(parse_json(text, manifest, line=line), f"{manifest} line {line}")
        if key in pairs:
            raise UserError(f"{manifest} line {line}: {key[1]!r} has a twin already: keep one line per id")
        pairs[key] = manifest.parent / twin
    return pairs


def _read_pair(record: Any, where: str) -> tuple[tuple[str | None, str], str]:
    fields = record if isinstance(record, dict) else {}
    if fields.get("format") == "qhk pairs":
        raise UserError(
            f"{where}: this is the manifest of pairs: run qhk data build and give the twins.jsonl it writes"
        )
    example_id, twin, dataset = fields.get("id"), fields.get("twin"), fields.get("dataset")
    if not isinstance(example_id, str) or not isinstance(twin, str) or not isinstance(dataset, str | None):
        raise UserError(
            f'{where}: expected {{"id": text, "twin": path}}, optionally "dataset", got {show_value(record)}'
        )
    return (dataset, example_id), twin


def _size_message(example: Example, twin: tuple[int, int], original: tuple[int, int]) -> str:
    return (
        f"{example.twin}: {twin[0]}x{twin[1]}, its original {example.image} is {original[0]}x{original[1]}: "
        "a twin needs the same size"
    )
