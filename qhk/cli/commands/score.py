"""``qhk score``: answers about single images, with the reasoning and how far several samples agree."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Literal

from qhk.cli.command import Command, Job
from qhk.cli.process import quiet_libraries
from qhk.plain import counted, print
from qhk.settings.base import Count, Node, Text
from qhk.tasks import build_task


class ScoreRequest(Node):
    """How answers are given: as a table, JSON lines or CSV, from how many completions per image.

    ``stage``: the stage of the checkpoint's run whose task is asked; null means its own.
    """

    stage: Text | None
    format: Literal["table", "json", "csv"]
    num_samples: Count


def run(job: Job[ScoreRequest]) -> int:
    """Return 0 after every image is scored, 1 where some could not be opened and have a row with their error.

    Raises UserError, before weights are loaded, for a named file that is no image.
    """
    quiet_libraries()
    import torch
    from rich.console import Console

    from qhk.cli.checkpoints import evaluated_policy, policy_settings
    from qhk.evaluation.score import Scored, as_csv, as_table, check_one_picture, find_images, score_images
    from qhk.training.display import ConsoleDisplay
    from qhk.training.distributed import Processes

    request = job.request
    settings = policy_settings(job.settings, job.overrides, stage=request.stage, datasets={})
    check_one_picture(settings)
    found, task = find_images(job.positionals), build_task(settings.task)
    torch.set_num_threads(settings.training.threads)
    policy = evaluated_policy(settings, device=Processes("single").device)
    started, display = time.perf_counter(), ConsoleDisplay()
    scored: list[Scored] = []
    with display.task("scoring") as progress:
        for part in score_images(policy, settings, found.paths, num_samples=request.num_samples):
            if request.format == "json":
                for item in part:
                    print(json.dumps(asdict(item)), flush=True)
            elif request.format == "csv":
                # Not the plain text of ``print``: a program reads the names of files as they are.
                text = as_csv(part, task, heading=not scored)
                sys.stdout.write(text.encode("utf-8", "backslashreplace").decode())
                sys.stdout.flush()
            scored += part
            progress(len(scored), len(found.paths))
    seconds = time.perf_counter() - started
    if request.format == "table":
        Console(highlight=False).print(as_table(scored, task))
    display.line(f"{counted(len(scored), 'image')} in {seconds:.1f} s ({len(scored) / seconds:.1f} images/s)")
    if found.skipped:
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.skipped.items())
        display.line(f"skipped, no images: {kinds}")
    failed = sum(item.error is not None for item in scored)
    if failed:
        display.line(f"{counted(failed, 'image')} could not be opened: the error is in its row")
    return 1 if failed else 0


COMMAND = Command(
    sentence="Scores images with a checkpoint: score, reasoning, and spread over several samples.",
    positionals="IMAGE...",
    recipes=(
        (
            "images by name; one that is broken is refused",
            "qhk score photo.jpg other.png checkpoint=FOLDER",
        ),
        (
            "a folder or a glob, as JSON lines; what is broken in it is a row with its error (exit code 1)",
            "qhk score photos/ 'more/*.png' checkpoint=FOLDER format=json",
        ),
        (
            "a folder as a table for other programs",
            "qhk score photos/ checkpoint=FOLDER format=csv > scores.csv",
        ),
        ("a spread over more samples", "qhk score photo.jpg checkpoint=FOLDER num_samples=32"),
    ),
    request=ScoreRequest,
    run=run,
)
