"""The commands below ``qhk data``: the keys of their own, and the function that runs each."""

from __future__ import annotations

from collections.abc import Sequence

from qhk.cli.command import Command, Job, LightCommand
from qhk.cli.requests import CheckRequest, ReviewRequest
from qhk.config.catalogue import Catalogue
from qhk.settings.base import Node


def start_check(job: Job, positionals: Sequence[str]) -> int:
    """0 where every set is as expected, 2 where one is not."""
    from qhk.cli.data_check import run

    assert isinstance(job.request, CheckRequest)
    return run(job.settings, list(job.overrides), job.request)


def start_degrade(job: Job, positionals: Sequence[str]) -> int:
    """Return the exit code of making degraded copies."""
    from qhk.cli.data_pairs import run_degrade

    return run_degrade(job.settings)


def start_filter(job: Job, positionals: Sequence[str]) -> int:
    """Return the exit code of judging pairs."""
    from qhk.cli.data_pairs import run_filter

    return run_filter(job.settings, list(job.overrides))


def start_strengthen(job: Job, positionals: Sequence[str]) -> int:
    """Return the exit code of degrading again what looks the same."""
    from qhk.cli.data_pairs import run_strengthen

    return run_strengthen(job.settings)


def start_build(job: Job, positionals: Sequence[str]) -> int:
    """Return the exit code of building the training set of pairs."""
    from qhk.cli.data_pairs import run_build

    return run_build(job.settings, list(job.overrides))


def start_review(
    request: Node, positionals: Sequence[str], overrides: Sequence[str], catalogue: Catalogue
) -> int:
    """Return the exit code of serving the review page."""
    from qhk.cli.data_review import run

    assert isinstance(request, ReviewRequest)
    return run(request)


DATA_COMMANDS: dict[str, Command | LightCommand] = {
    "data check": Command(
        sentence="Holds sets on disk against what is known of them: counts, ranges, files, duplicates.",
        positionals="",
        recipes=(
            ("a download", "qhk data check benchmark=koniq root=/data/koniq10k"),
            (
                "everything that an experiment reads",
                "qhk data check experiment=q_hawkeye paths.datasets=/data",
            ),
            ("label files alone", "qhk data check benchmark=csiq root=/data/csiq images=skip"),
        ),
        request=CheckRequest,
        start=start_check,
    ),
    "data degrade": Command(
        sentence="Makes a degraded copy of every training image, with where it came from.",
        positionals="",
        recipes=(
            ("of an experiment's images", "qhk data degrade experiment=q_hawkeye paths.datasets=/data"),
            ("the second published strengths", "qhk data degrade data=koniq pairs.degrade.level=stage_4"),
            ("the wider family, all at one SSIM", "qhk data degrade data=koniq pairs=further"),
        ),
        request=None,
        start=start_degrade,
    ),
    "data filter": Command(
        sentence="Asks a judge which pairs look the same; resumes, and keeps every reply.",
        positionals="",
        recipes=(
            (
                "a server",
                "qhk data filter pairs.filter.judge=endpoint pairs.filter.endpoint.model=NAME "
                "pairs.filter.endpoint.url=http://127.0.0.1:8000/v1",
            ),
            ("a local model", "qhk data filter model=qwen2_5_vl_7b pairs.filter.judge=policy"),
            ("no model: a threshold on SSIM", "qhk data filter pairs.filter.judge=ssim"),
        ),
        request=None,
        start=start_filter,
    ),
    "data review": LightCommand(
        sentence="Serves a local page on which people confirm pairs, by keyboard, until Ctrl-C.",
        positionals="",
        recipes=(
            ("what the judge called the same", "qhk data review"),
            ("every pair, what the judge doubted first", "qhk data review scope=all order=judge_least_sure"),
            ("another manifest, on a free port", "qhk data review pairs.manifest=pairs.jsonl port=0"),
        ),
        request=ReviewRequest,
        start=start_review,
    ),
    "data strengthen": Command(
        sentence="Degrades again, in files of their own, the pairs that stayed imperceptible.",
        positionals="",
        recipes=(
            ("what people confirmed in review", "qhk data strengthen"),
            ("on the judge's word alone", "qhk data strengthen pairs.human_review=skipped"),
            ("to a target", "qhk data strengthen pairs.strengthen.target=0.7"),
        ),
        request=None,
        start=start_strengthen,
    ),
    "data build": Command(
        sentence="Builds the training set of pairs, reads it back, and lists what was left out and why.",
        positionals="",
        recipes=(
            ("from the manifest", "qhk data build pairs.build.output=sets/koniq_pairs"),
            (
                "all stages in one go, without a person",
                "qhk data build experiment=q_hawkeye pairs.chain=true pairs.human_review=skipped",
            ),
            ("the images of a built set, as files", "qhk data build pairs.build.unpack=images"),
        ),
        request=None,
        start=start_build,
    ),
}
