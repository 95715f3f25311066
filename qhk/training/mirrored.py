"""What of a run, or of an evaluation, its mirrors are told: who it is, and what lies beside its curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from qhk.evaluation.predictions import Prediction, PredictionFile, prediction_files, read_predictions
from qhk.evaluation.results import Moment, read_results, scalar_metrics
from qhk.settings.parse import plain_settings
from qhk.settings.root import Settings
from qhk.tracking.mirror import MirrorContent, MirrorRun, Table, one_line_names

MAX_ROWS = 10_000
"""Rows of a table that W&B shows."""

COLUMNS = ("benchmark", "moment", "step", "image", "opinion", "score", "parsed", "completion")
WORDS = ("labels", "answer")
"""Further columns, where a task is answered in words."""

Item = TypeVar("Item")
Row = tuple[str | int | float | None, ...]


def mirror_run(
    settings: Settings, directory: Path, *, run_id: str, job_type: str, metrics: Path
) -> MirrorRun:
    """Return the identity of a run in its mirrors. Its tags are the modules and what the settings name."""
    tracking = settings.tracking
    return MirrorRun(
        project=tracking.project,
        entity=tracking.entity,
        group=settings.study,
        name=f"{settings.name}/seed{settings.seed}",
        job_type=job_type,
        run_id=run_id,
        tags=one_line_names([*tracking.tags, *modules(settings)]),
        notes=tracking.notes,
        config=plain_settings(settings),
        directory=directory,
        outputs=Path(settings.paths.outputs),
        metrics=metrics,
    )


def modules(settings: Settings) -> list[str]:
    """Return the modules that a run has, such as ``perception exact``; what is off is left out."""
    forms = {
        "uncertainty": settings.uncertainty.form,
        "perception": settings.perception.form,
        "dependency": settings.dependency.form,
        "cold_start": settings.cold_start.form,
    }
    return [
        settings.training.learner,
        settings.task.form,
        *(f"{module} {form}" for module, form in forms.items() if form != "none"),
        *(f"mixture {name}" for name in settings.mixture),
        *(f"stage {name}" for name in settings.stages),
    ]


def mirror_content(directory: Path, settings: Settings) -> MirrorContent:
    """Return what lies in a run's directory beside its curves, as far as ``settings.tracking`` lets it go.

    The numbers are those of before reinforcement, since the summary of a curve is its end: headline read-out,
    by names such as ``before/koniq/srcc``. Completions are those of the headline read-out.
    """
    tracking, headline = settings.tracking, settings.evaluation.headline
    results, files = directory / "results.json", prediction_files(directory)
    rows = read_results(results).rows if results.exists() else ()
    before = [row for row in rows if row.moment is Moment.BEFORE and row.readout == headline]
    told = [file for file in files if file.readout == headline] if tracking.completions else []
    return MirrorContent(
        summary={
            f"before/{row.benchmark}/{name}": value
            for row in before
            for name, value in scalar_metrics(row).items()
        },
        tables={"completions": completion_table(told, images=tracking.completions)} if told else {},
        artifacts=(
            {
                "predictions": {
                    str(file.path.relative_to(directory / "predictions")): file.path for file in files
                }
            }
            if files and tracking.predictions
            else {}
        ),
    )


def completion_table(files: Sequence[PredictionFile], *, images: int) -> Table:
    """Return one row per completion of ``images`` images of each file, spread evenly over it.

    At most ``MAX_ROWS`` of all, again spread evenly. ``parsed`` is ``yes`` or ``no``, ``score`` the number as
    the completion says it, on the scale or not.
    """
    chosen = [(file, item) for file in files for item in spread(read_predictions(file.path), images)]
    in_words = any(item.labels for _, item in chosen)
    rows = [row for file, item in chosen for row in _rows(file, item, in_words=in_words)]
    return Table(columns=(*COLUMNS, *(WORDS if in_words else ())), rows=tuple(spread(rows, MAX_ROWS)))


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most ``count`` items at even distances, the first among them; the same ones every time."""
    return [items[place * len(items) // count] for place in range(count)] if len(items) > count else [*items]


def _rows(file: PredictionFile, item: Prediction, *, in_words: bool) -> Iterator[Row]:
    moment = "before" if file.before or file.step == 0 else "after"
    texts = item.texts or ("",) * item.num_samples
    for place, text in enumerate(texts):
        score = item.samples[place] if item.samples else None
        answer = item.answers[place] if item.answers else None
        parsed = "no" if score is None and answer is None else "yes"
        row: Row = (file.benchmark, moment, file.step, item.id, item.mos, score, parsed, text)
        yield (*row, _words(item.labels), _words(answer)) if in_words else row


def _words(labels: object) -> str | None:
    if not isinstance(labels, dict) or not labels:
        return None
    return "; ".join(f"{name}: {value}" for name, value in labels.items())
