"""What is known to stop a run before its model is there, without starting it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from qhk.data.labels import has_labels, load_labels
from qhk.data.missing import missing_files
from qhk.data.rows import labelled_examples
from qhk.errors import UserError
from qhk.settings.root import Settings
from qhk.settings.views import reward_modules, stage_views, task_views
from qhk.tasks import build_task
from qhk.tracking.run_directory import output_problems
from qhk.training.fit import refuse_unfit_rewards
from qhk.types import Answer, Example


def run_problems(settings: Settings) -> list[str]:
    """Return a line for each reason to refuse a run that is known without its model and its images.

    Files that are missing or wrong, places that cannot be written, rewards that do not work on true answers.
    """
    lines = [*missing_files(settings), *output_problems(settings)]
    for view in stage_views(settings):
        try:
            refuse_unfit_rewards(
                view, {task: true_examples(own) for task, own in task_views(view.settings).items()}
            )
        except UserError as error:
            lines.append(str(error))
    return list(dict.fromkeys(lines))


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
