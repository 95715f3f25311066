"""Splits that every format offers, and the published lists of names that no rule can give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options, text_option
from qhk.data.names import name_key, same_name, shared_tail, written_parts
from qhk.data.seeds import stream_seed
from qhk.data.tables import read_lines
from qhk.errors import UserError

COMMON_PROTOCOLS = ("all", "names", "by_reference", "random")
COMMON_OPTIONS = frozenset(
    {"train_names", "validation_names", "test_names", "split_seed", "validation_fraction", "test_fraction"}
)
"""Options of the common protocols."""

_LISTS = Path(__file__).parent / "splits"


def offered_protocols(adapter: Adapter) -> tuple[str, ...]:
    """Return the names of all splits that a set of this format can have, its own ones first."""
    return (*adapter.protocols, *COMMON_PROTOCOLS)


def assign_splits(
    adapter: Adapter, rows: Sequence[LabelRow], protocol: str, root: Path, options: Options
) -> list[str | None]:
    """Return each row's split under one of ``offered_protocols``: train, validation, test, None (not used).

    Raises ``UserError`` as the split's own function does.
    """
    if adapter.assign_splits is not None and protocol in adapter.protocols:
        return adapter.assign_splits(rows, protocol, root, options)
    return common_split(rows, protocol, root, options)


def common_split(rows: Sequence[LabelRow], protocol: str, root: Path, options: Options) -> list[str | None]:
    """Return each row's split: ``all`` puts all into test, ``names`` reads lists, the others draw.

    ``random`` and ``by_reference`` are one draw, of whole contents: the name says which of the two it comes
    to in a set without and with references.
    """
    if protocol == "names":
        return split_by_names(rows, root, options)
    if protocol in ("random", "by_reference"):
        return split_by_reference(rows, protocol, options)
    assert protocol == "all", protocol
    return ["test"] * len(rows)


def published_names(name: str) -> frozenset[str]:
    """Return the names (as ``name_key`` has them) of the list ``qhk/data/splits/<name>.txt``."""
    lines = (_LISTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(name_key(line) for line in lines if line and not line.startswith("#"))


def split_by_reference(rows: Sequence[LabelRow], protocol: str, options: Options) -> list[str | None]:
    """Return each row's split, drawn by whole contents (references; images where there is none).

    ``options.test_fraction`` and ``options.validation_fraction`` are shares of the contents, rounded (the
    latter may be null); ``options.split_seed`` draws. The order of the rows does not matter. 0.2 and
    0.2 of 81 references are 16, 16 and 49. Raises ``UserError`` on fractions that leave no training
    or no test content.
    """
    seed = options.get("split_seed")
    if type(seed) is not int:
        raise UserError(f"options.split_seed must be a whole number for protocol={protocol}, got {seed!r}")
    test, validation = (_fraction(options, protocol, key) for key in ("test_fraction", "validation_fraction"))
    contents = sorted(
        {_content(row) for row in rows}, key=lambda name: (stream_seed(seed, "split", name), name)
    )
    num_test, num_validation = round(test * len(contents)), round(validation * len(contents))
    if not 0 < num_test < len(contents) - num_validation:
        raise UserError(
            f"options.test_fraction {test} and options.validation_fraction {validation} of {len(contents)} "
            f"contents are {num_test} and {num_validation}: leave at least one for test and one for training"
        )
    parts = dict.fromkeys(contents[:num_test], "test")
    parts.update(dict.fromkeys(contents[num_test : num_test + num_validation], "validation"))
    return [parts.get(_content(row), "train") for row in rows]


def split_by_names(rows: Sequence[LabelRow], root: Path, options: Options) -> list[str | None]:
    """Return splits by name lists: text files with one image or reference a line, ``#`` for comments.

    ``options.train_names``, ``validation_names`` and ``test_names`` are paths, relative ones below the
    root; any may be null. Rows in no list are not used. Where a list and a row both write folders, they agree
    up to the shorter of the two; case, extension and accents are as in ``name_key``. Raises ``UserError``
    when all are null, when a file is missing, when a listed name matches no row, or rows of two
    folders, or when a row is in two lists.
    """
    lists = {split: _read_names(root, options, f"{split}_names") for split in ("train", "validation", "test")}
    if not any(lists.values()):
        raise UserError(
            "protocol names needs options.train_names or options.test_names: a file, one name per line"
        )
    named: dict[str, set[str]] = {}
    for row in rows:
        for name in _names_of(row):
            named.setdefault(name_key(name), set()).add(name)
    found: dict[str, set[str]] = {}
    for split, names in lists.items():
        fits = {text: [name for name in named.get(name_key(text), ()) if _fits(text, name)] for text in names}
        unknown = [text for text, fitting in fits.items() if not fitting]
        if unknown:
            raise UserError(
                f"options.{split}_names lists {unknown[0]!r} ({len(unknown)} in all), which has no label"
            )
        for text, fitting in fits.items():
            if len({written_parts(same_name(name))[:-1] for name in fitting}) > 1:
                raise UserError(
                    f"options.{split}_names lists {text!r}, which fits {' and '.join(sorted(fitting)[:2])}: "
                    "write its folder"
                )
            for name in fitting:
                found.setdefault(name, set()).add(split)
    splits: list[str | None] = []
    for row in rows:
        own = [split for split in lists if any(split in found.get(name, ()) for name in _names_of(row))]
        if len(own) > 1:
            raise UserError(
                f"{row.name} is in both options.{own[0]}_names and options.{own[1]}_names: keep one"
            )
        splits.append(own[0] if own else None)
    return splits


def _names_of(row: LabelRow) -> tuple[str, ...]:
    return (row.name,) if row.reference is None else (row.name, row.reference)


def _fits(listed: str, name: str) -> bool:
    """Return whether two paths whose names agree write no folders that differ."""
    one, other = written_parts(listed)[:-1], written_parts(name)[:-1]
    return shared_tail(one, other) == min(len(one), len(other))


def _content(row: LabelRow) -> str:
    return row.reference or row.name


def _fraction(options: Options, protocol: str, key: str) -> float:
    value = options.get(key)
    if value is None and key == "validation_fraction":
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise UserError(f"options.{key} must be a number from 0 to 1 for protocol={protocol}, got {value!r}")
    return float(value)


def _read_names(root: Path, options: Options, key: str) -> list[str]:
    if options.get(key) is None:
        return []
    path = root / text_option(options, key)
    if not path.is_file():
        raise UserError(f"options.{key}: no file {path}")
    try:
        lines = [line.strip('"') for _, line in read_lines(path)]
    except ValueError as error:
        raise UserError(f"options.{key}: {error}") from None
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
