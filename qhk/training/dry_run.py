"""What is known to stop a run before its model is there, without starting it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from qhk.data.datasets import load_dataset_entry, refuse_pictures
from qhk.data.labels import has_labels, load_labels
from qhk.data.missing import missing_files
from qhk.data.rows import labelled_examples
from qhk.errors import UserError
from qhk.policy.adapter_base import start_problems
from qhk.policy.shape import framing_problems
from qhk.rollout.installed import engine_problems
from qhk.settings.identity import run_directory
from qhk.settings.root import Settings
from qhk.settings.views import reward_modules, stage_views, task_views
from qhk.tasks import build_task
from qhk.tracking.code import run_code
from qhk.tracking.provenance import read_provenance
from qhk.tracking.run_directory import find_state, known_run_id, output_problems
from qhk.training.fit import refuse_unfit_rewards
from qhk.training.libraries import library_problems
from qhk.types import Answer, Example


def run_problems(settings: Settings) -> list[str]:
    """Return a line for each reason to refuse a run that is known without its model and its images.

    Files that are missing or wrong, places that cannot be written, rewards that do not work on true answers.
    """
    lines = [*missing_files(settings), *output_problems(settings), *start_problems(settings)]
    lines += [*framing_problems(settings), *engine_problems(settings), *library_problems(settings)]
    if not lines:
        lines = _picture_problems(settings)
    for view in stage_views(settings):
        try:
            refuse_unfit_rewards(
                view, {task: true_examples(own) for task, own in task_views(view.settings).items()}
            )
        except UserError as error:
            lines.append(str(error))
    return list(dict.fromkeys(lines))


def _picture_problems(settings: Settings) -> list[str]:
    """Return a line for each set of a run with a picture that is missing, or broken in a part that it uses.

    Parts of which only some images are drawn are held against the disk, not opened.
    """
    used: dict[str, set[str]] = {name: set() for name in settings.dataset}
    for stage in stage_views(settings):
        for view in task_views(stage.settings).values():
            for name in view.data:
                used[name] |= {view.loading.split} if view.loading.limit is None else set()
            for name, benchmark in view.benchmark.items():
                used[name] |= {benchmark.split} if benchmark.limit is None else set()
    lines = []
    for name, splits in used.items():
        try:
            refuse_pictures(name, settings.dataset[name], splits=splits)
        except UserError as error:
            lines.append(str(error))
    return lines


def directory_problems(settings: Settings) -> list[str]:
    """Return a line where the run's directory holds a run that this one could not go on with.

    That run's sets are compared by their fingerprints, for which only files are read that the inventory of
    that run does not remember.
    """
    path = run_directory(settings)
    if settings.fresh:
        return []
    try:
        before = read_provenance(path / "provenance.json")
        if before is None:
            return []
        now = {
            name: load_dataset_entry(
                name,
                entry,
                cache=Path(settings.paths.cache),
                progress=lambda done, total: None,
                workers=settings.loading.workers,
            ).fingerprint
            for name, entry in settings.dataset.items()
        }
        provenance = replace(before, data_fingerprints=now, code_digest=run_code(settings))
        find_state(path, run_id=known_run_id(path, settings), provenance=provenance)
    except UserError as error:
        return [str(error)]
    return []


def true_examples(settings: Settings) -> Sequence[Example]:
    """Return training examples of a task: those of its first set with labels here, else made-up ones.

    A miniature set is drawn, and thrown away, only where rewards of the user's own may ask for what is in it;
    ours ask for no more than a made-up example has.
    """
    own_rewards = bool(reward_modules(settings))
    for name in settings.data:
        spec = settings.dataset[name]
        if has_labels(name, spec) or (spec.miniature and own_rewards):
            with TemporaryDirectory() as scratch:
                labels = load_labels(
                    name, spec, cache=Path(scratch), progress=lambda done, total: None, need_images=False
                )
            return labelled_examples(name, labels.rows, labels.scale)
    return [_made_up(answer, number) for number, answer in enumerate(_answers(settings))]


def _answers(settings: Settings) -> Sequence[Answer]:
    scores = [Answer(score=score) for score in (2.0, 3.0, 4.0)]
    return build_task(settings.task).possible_answers()[: len(scores)] or scores


def _made_up(answer: Answer, number: int) -> Example:
    return Example(
        id=f"made-up {number}",
        dataset="made up",
        image=Path("none.png"),
        mos=answer.score,
        mos_native=answer.score,
        higher_is_better=True,
        labels=dict(answer.labels),
    )
