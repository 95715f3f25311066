"""``qhk data check``: holds the named sets against what is known of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qhk.cli.command import Command, Job
from qhk.cli.process import USER_ERROR
from qhk.config.catalogue import choice_of
from qhk.errors import UserError
from qhk.files import write_atomically
from qhk.plain import print
from qhk.settings.base import Node, NumOrZero, Text
from qhk.settings.root import Settings

if TYPE_CHECKING:
    from qhk.data.check import Report

HEADER = ("set", "question", "found", "expected", "verdict")


class CheckRequest(Node):
    """What is looked at.

    ``root`` stands in for the root of the one set that is named. ``images``: decode every image, read its
    header and bytes only, or skip the images and hold the label files alone against what is expected.
    """

    root: Text | None
    images: Literal["decode", "header", "skip"]
    near_duplicates: bool
    workers: NumOrZero


def run(job: Job[CheckRequest]) -> int:
    """Return 0 where every set is as expected, 2 where one is not.

    Prints a table of all questions, then a line with the fix for every one that is not ok. What each of them
    is about, file by file, is written below the cache.
    """
    from qhk.data.check import check_set
    from qhk.training.display import ConsoleDisplay

    request = job.request
    names = checked_names(job.settings, job.overrides)
    settings, display, reports = with_root(job.settings, names, request.root), ConsoleDisplay(), []
    for name in names:
        with display.task(f"checking {name}") as progress:
            reports.append(
                check_set(
                    name,
                    settings.dataset[name],
                    cache=Path(settings.paths.cache),
                    images=request.images,
                    near_duplicates=request.near_duplicates,
                    workers=request.workers,
                    progress=progress,
                )
            )
    print(table(reports))
    for report in reports:
        _print_findings(report, Path(settings.paths.cache) / "checks" / f"{report.name}.json")
    return USER_ERROR if any(report.failed for report in reports) else 0


def checked_names(settings: Settings, overrides: Sequence[str]) -> list[str]:
    """Return the sets of ``data`` or ``benchmark`` on the command line; all in use where neither is there."""
    named = {group: choice_of(group, overrides) is not None for group in ("data", "benchmark")}
    either = any(named.values())
    sets = list(settings.data) if named["data"] or not either else []
    return list(dict.fromkeys(sets + (list(settings.benchmark) if named["benchmark"] or not either else [])))


def with_root(settings: Settings, names: list[str], root: str | None) -> Settings:
    """Return the settings with ``root`` in the one set named. Raises UserError where several are."""
    if root is None:
        return settings
    if len(names) != 1:
        raise UserError(
            f"root: {root} stands for one set, but {len(names)} are named ({', '.join(names)}); "
            f"write dataset.NAME.root={root} for each"
        )
    entry = settings.dataset[names[0]].model_copy(update={"root": root})
    return settings.model_copy(update={"dataset": {**settings.dataset, names[0]: entry}})


def table(reports: Sequence[Report]) -> str:
    """Return the questions of all sets as aligned text."""
    rows = [HEADER]
    for report in reports:
        for place, finding in enumerate(report.findings):
            name = report.name if place == 0 else ""
            rows.append((name, finding.subject, finding.found, finding.expected, finding.verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0].rstrip(), "-" * max(map(len, lines)), *(line.rstrip() for line in lines[1:])])


def _print_findings(report: Report, path: Path) -> None:
    write_atomically(path, json.dumps({**asdict(report), "failed": report.failed}, indent=1) + "\n")
    for finding in report.findings:
        if finding.verdict != "ok":
            print(f"{finding.verdict}: {report.name}: {finding.subject}: {finding.fix}")
    if any(len(finding.details) > 1 for finding in report.findings):
        print(f"{report.name}: every file and row of these findings is listed in {path}")
    if report.fingerprint is not None:
        print(f"{report.name}: fingerprint {report.fingerprint[:16]}")


COMMAND = Command(
    sentence="Holds sets on disk against what is known of them: counts, ranges, files, duplicates.",
    recipes=(
        ("a download", "qhk data check benchmark=koniq root=/data/koniq10k"),
        ("everything that an experiment reads", "qhk data check experiment=q_hawkeye paths.datasets=/data"),
        ("label files alone", "qhk data check benchmark=csiq root=/data/csiq images=skip"),
    ),
    request=CheckRequest,
    run=run,
)
