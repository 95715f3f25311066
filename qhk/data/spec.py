"""One entry of ``dataset``: its values, whether they fit the adapter, and where its files must lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qhk.data.adapter import Adapter
from qhk.data.adapters import adapter_names, find_adapter
from qhk.data.protocols import COMMON_OPTIONS, offered_protocols
from qhk.errors import UserError
from qhk.settings.base import Scalar
from qhk.settings.data import DatasetSettings

Progress = Callable[[int, int], None]

MINIATURE_OPTIONS = ("generator_seed", "size")
"""Options that belong to the generator of a miniature set, not to its adapter."""


def check_spec(name: str, spec: DatasetSettings) -> Adapter:
    """Return the entry's adapter. Raises ``UserError`` naming the key for a value that is wrong in itself."""
    if spec.adapter not in adapter_names():
        raise UserError(
            f"dataset.{name}.adapter is {spec.adapter!r}: choose one of {', '.join(adapter_names())}"
        )
    adapter = find_adapter(spec.adapter)
    protocols = offered_protocols(adapter)
    if spec.protocol not in protocols:
        raise UserError(
            f"dataset.{name}.protocol is {spec.protocol!r}: {spec.adapter} offers {', '.join(protocols)}"
        )
    known = adapter.options | COMMON_OPTIONS | (set(MINIATURE_OPTIONS) if spec.miniature else set())
    unknown = sorted(set(spec.options) - known)
    if unknown:
        raise UserError(
            f"dataset.{name}.options.{unknown[0]} is unknown: {spec.adapter} takes {', '.join(sorted(known))}"
        )
    if spec.root is None:
        raise UserError(f"dataset.{name}.root is null: give the folder (dataset.{name}.root=/path/to/set)")
    if adapter.scored:
        _check_scale_keys(name, adapter, spec)
        return adapter
    for key, value in (
        ("normalisation", spec.normalisation),
        ("bounds", spec.bounds),
        ("higher_is_better", spec.higher_is_better),
    ):
        if value is not None:
            raise UserError(
                f"dataset.{name}.{key} is {value}: set it to null, {spec.adapter} has labels and no scores"
            )
    return adapter


def _check_scale_keys(name: str, adapter: Adapter, spec: DatasetSettings) -> None:
    if spec.normalisation is None:
        raise UserError(f"dataset.{name}.normalisation is null: choose whole_set or given")
    if spec.higher_is_better is None:
        raise UserError(
            f"dataset.{name}.higher_is_better is null: say true (MOS) or false (DMOS), it cannot be guessed"
        )
    if adapter.higher_is_better not in (None, spec.higher_is_better):
        fix = str(adapter.higher_is_better).lower()
        raise UserError(
            f"dataset.{name}.higher_is_better must be {fix}: that is the polarity of {spec.adapter}'s scores"
        )
    if adapter.higher_is_better is None and spec.bounds is None:
        raise UserError(
            f"dataset.{name}.bounds is null: give the native range, as in dataset.{name}.bounds=[0,100]"
        )


def make_root(name: str, spec: DatasetSettings, *, cache: Path, progress: Progress) -> Path:
    """Return the folder that the entry reads; a miniature set is generated below ``cache`` if needed.

    Raises ``UserError`` where a generated set stands in for a real one, or the other way round.
    """
    # The generator needs SciPy, which commands that only check settings need not wait for.
    from qhk.data.miniature import MARKER, ensure_miniature_set, miniature_folder

    assert spec.root is not None
    root = Path(spec.root).expanduser()
    if spec.miniature:
        seed, size = (spec.options.get(key) for key in MINIATURE_OPTIONS)
        if type(seed) is not int or type(size) is not int:
            raise UserError(
                f"dataset.{name}.options: generator_seed and size must be whole numbers, "
                f"got {seed!r}, {size!r}"
            )
        miniature_folder(cache, seed=seed, size=size)
        root = ensure_miniature_set(spec.root, cache, seed=seed, size=size, progress=progress)
    if (root / MARKER).is_file() != spec.miniature:
        wanted = (
            "true: the folder holds a generated set"
            if not spec.miniature
            else "false: the folder has no marker"
        )
        raise UserError(f"dataset.{name}.miniature must be {wanted} ({root / MARKER})")
    return root


def adapter_options(spec: DatasetSettings) -> dict[str, Scalar]:
    """Return the entry's options without those of the generator."""
    return {key: value for key, value in spec.options.items() if key not in MINIATURE_OPTIONS}


def missing_below(name: str, spec: DatasetSettings, adapter: Adapter, root: Path) -> list[tuple[str, bool]]:
    """Return what is not there, one line each, and whether it holds images (else labels)."""
    if not root.is_dir():
        return [(f"no folder {root}", False)]
    options = adapter_options(spec)
    try:
        expected = adapter.expected(root, spec.protocol, options)
        folders = set(adapter.images(root, options))
    except ValueError as error:
        raise UserError(f"dataset.{name}: {error}") from None
    return [
        (f"no {' or '.join(str(path) for path in alternatives)}", not folders.isdisjoint(alternatives))
        for alternatives in expected
        if not any(path.exists() for path in alternatives)
    ]
