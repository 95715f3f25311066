"""From paths and names to a report on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhk.errors import UserError
from qhk.files import write_atomically
from qhk.report.compare import Progress
from qhk.report.content import ReportOptions, gather
from qhk.report.render import as_csv, as_latex, html
from qhk.report.runs import read_runs
from qhk.sweep.manifest import sweep_folder


def find_paths(words: Sequence[str], outputs: Path) -> list[Path]:
    """Return the folders that words mean: a path, a sweep's name, or a study's name below ``outputs``.

    Raises ``UserError`` for a word that is none of them.
    """
    return [_find(word, outputs) for word in words]


def _find(word: str, outputs: Path) -> Path:
    for path in (Path(word), sweep_folder(outputs, word), outputs / word):
        if path.is_dir():
            return path
    raise UserError(f"{word}: no such folder, sweep or study; qhk runs list {outputs} shows what there is")


def write_report(
    paths: Sequence[Path], options: ReportOptions, page: Path, *, progress: Progress
) -> list[Path]:
    """Write the page and, beside it, its tables as ``.csv`` and its first as ``.tex``; return the files.

    The files are replaced whole. Raises ``UserError`` for a path without runs.
    """
    content = gather(read_runs(*paths), options, progress)
    files = {page: html(content), page.with_suffix(".csv"): as_csv(content["tables"])}
    if content["tables"]:
        files[page.with_suffix(".tex")] = as_latex(content["tables"][0])
    for path, text in files.items():
        write_atomically(path, text)
    return list(files)
