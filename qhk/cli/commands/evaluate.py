"""``qhk evaluate``: a checkpoint, a base model, or a scorer without a model, on benchmarks."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from qhk.cli.command import Command, Job
from qhk.cli.process import quiet_libraries
from qhk.errors import UserError
from qhk.evaluation.results import VALUE, Moment, PerturbedRow, ResultRow, update_results
from qhk.files import write_atomically
from qhk.plain import print
from qhk.settings.base import Node, Readout, Text
from qhk.settings.identity import DESCRIPTIVE
from qhk.settings.parse import plain_settings
from qhk.settings.root import Settings
from qhk.settings.views import build_tasks, task_views
from qhk.tracking.archive import archive_folder
from qhk.tracking.run_directory import refuse_cache, refuse_place

if TYPE_CHECKING:
    from qhk.training.display import Display

Evaluated = tuple[Settings, Path, list[ResultRow], list[PerturbedRow]]
"""The settings as they were evaluated, the folder of it, and what was measured."""


class EvaluateRequest(Node):
    """``stage``: the stage of the checkpoint's run whose tasks are evaluated; null means its own."""

    stage: Text | None


def run(job: Job[EvaluateRequest]) -> int:
    """Evaluate, print the table and return 0; all files lie in a folder named by what is evaluated.

    The same evaluation, asked for again, continues or reads what is there. A scorer other than the policy
    loads no model.
    """
    from qhk.evaluation.table import perturbed_table, print_table, results_tables
    from qhk.training.display import ConsoleDisplay

    display = ConsoleDisplay()
    refuse_place("paths.outputs", Path(job.settings.paths.outputs))
    refuse_cache(job.settings.paths)
    started = time.perf_counter()
    settings, folder, rows, perturbed = (
        _ask_policy(job, display) if job.settings.scorer.form == "policy" else _ask_scorer(job, display)
    )
    results = update_results(
        folder / "results.json",
        seed=settings.seed,
        run_id=folder.name,
        wall_times={"evaluation": time.perf_counter() - started},
        rows=rows,
        perturbed=perturbed,
    )
    readouts = {row.readout for row in rows}
    for table in results_tables(
        results.rows,
        readout=settings.evaluation.headline if settings.evaluation.headline in readouts else VALUE,
        moments=(Moment.BEFORE, Moment.AFTER),
        min_parsed_fraction=settings.evaluation.min_parsed_fraction,
    ):
        print_table(table, file=sys.stdout)
    if perturbed:
        print_table(perturbed_table(perturbed), file=sys.stdout)
    print(f"results: {folder}")
    return 0


def _ask_policy(job: Job[EvaluateRequest], display: Display) -> Evaluated:
    quiet_libraries()
    import torch

    from qhk.cli.checkpoints import evaluated_policy, policy_settings, trained_settings
    from qhk.evaluation.predict import Predictor, sampled
    from qhk.training.benchmarks import evaluate_benchmarks, measure_perturbed, sets_seen
    from qhk.training.checkpoint import checkpoint_step
    from qhk.training.data import load_sets, select_all_benchmarks
    from qhk.training.distributed import Processes
    from qhk.training.evaluation import readout_names, run_samplers
    from qhk.training.fit import refuse_long_answers
    from qhk.training.inputs import build_readers

    settings = policy_settings(job.settings, job.overrides, stage=job.request.stage, datasets=job.datasets)
    views = task_views(settings)
    checkpoint = None if settings.checkpoint is None else Path(settings.checkpoint)
    loaded = load_sets(settings, _benchmark_names(settings), display)
    torch.set_num_threads(settings.training.threads)
    benchmarks = select_all_benchmarks(settings, loaded)
    policy = evaluated_policy(settings, device=Processes("single").device)
    examples = {task: [e for b in benchmarks if b.task == task for e in b.examples] for task in views}
    refuse_long_answers(settings, examples, policy.num_tokens)
    tasks, readouts, readers = (
        build_tasks(settings),
        settings.evaluation.readouts,
        build_readers(settings, policy),
    )
    folder = _begin(settings, evaluation_folder(settings))

    def predictors(readouts: Mapping[str, Readout]) -> dict[str, Predictor]:
        samplers = run_samplers(policy, readers, readouts, settings)
        return {task: sampled(sample, tasks[task], keep_texts=True) for task, sample in samplers.items()}

    step = 0 if checkpoint is None else checkpoint_step(checkpoint) or 0
    moment = Moment.BEFORE if checkpoint is None else Moment.AFTER
    with display.task("evaluating") as progress:
        rows = evaluate_benchmarks(
            predictors(readouts),
            benchmarks,
            settings=settings.evaluation,
            tasks=tasks,
            readouts=readout_names(readouts, tasks),
            seen=set() if checkpoint is None else sets_seen(trained_settings(checkpoint), settings.dataset),
            seed=settings.seed,
            directory=folder,
            step=step,
            moment=moment,
            progress=progress,
        )
    with display.task("evaluating perturbed copies") as progress:
        perturbed = measure_perturbed(
            predictors({settings.evaluation.headline: readouts[settings.evaluation.headline]}),
            benchmarks,
            settings=settings,
            tasks=tasks,
            readout=settings.evaluation.headline,
            directory=folder,
            step=step,
            moment=moment,
            progress=progress,
        )
    return settings, folder, rows, perturbed


def _ask_scorer(job: Job[EvaluateRequest], display: Display) -> Evaluated:
    from qhk.evaluation.predict import read_by
    from qhk.evaluation.scorers import build_scorer
    from qhk.training.benchmarks import evaluate_benchmarks, measure_perturbed
    from qhk.training.data import load_sets, select_all_benchmarks

    settings = job.settings
    form = settings.scorer.form
    for key, value in (("checkpoint", settings.checkpoint), ("stage", job.request.stage)):
        if value is not None:
            raise UserError(
                f"{key}={value}: has no effect on scorer={form}, which asks no policy; leave it out"
            )
    if form == "table" and settings.perturbation.num_copies:
        raise UserError("perturbation: a table has no scores of perturbed copies; choose perturbation=none")
    tasks = build_tasks(settings)
    worded = [name for name, task in tasks.items() if not task.has_scores]
    if worded:
        raise UserError(
            f"scorer={form}: gives scores, but task {worded[0]} is answered in words; leave it out"
        )
    scorer = build_scorer(settings.scorer, workers=settings.loading.workers)
    benchmarks = select_all_benchmarks(settings, load_sets(settings, _benchmark_names(settings), display))
    for benchmark in benchmarks:
        note = scorer.prepare(benchmark.name, benchmark.examples)
        if note:
            display.line(note)
    folder = _begin(settings, evaluation_folder(settings))
    predictors = {task: read_by(VALUE, scorer.predict) for task in tasks}
    with display.task(f"scoring by {form}") as progress:
        rows = evaluate_benchmarks(
            predictors,
            benchmarks,
            settings=settings.evaluation,
            tasks=tasks,
            readouts={task: [VALUE] for task in tasks},
            seen=set(settings.scorer.trained_on),
            seed=settings.seed,
            directory=folder,
            step=0,
            moment=Moment.AFTER,
            progress=progress,
            on_scale=scorer.on_scale,
        )
        perturbed = measure_perturbed(
            predictors,
            benchmarks,
            settings=settings,
            tasks=tasks,
            readout=VALUE,
            directory=folder,
            step=0,
            moment=Moment.AFTER,
            progress=progress,
        )
    return settings, folder, rows, perturbed


def _benchmark_names(settings: Settings) -> list[str]:
    names = [name for view in task_views(settings).values() for name in view.benchmark]
    if not names:
        raise UserError("benchmark: is empty; name at least one, such as benchmark=miniature_koniq")
    return list(dict.fromkeys(names))


def _begin(settings: Settings, folder: Path) -> Path:
    """Return the folder with the settings in it, emptied first where that is asked for."""
    if settings.fresh:
        archive_folder(folder)
    write_atomically(folder / "config.yaml", yaml.safe_dump(plain_settings(settings), sort_keys=False))
    return folder


def evaluation_folder(settings: Settings) -> Path:
    """Return ``<outputs>/evaluations/<id>``, the id a digest of what is evaluated, on what, and how."""
    weights = "" if settings.checkpoint is None else weights_identity(Path(settings.checkpoint))
    text = json.dumps({**evaluated(settings), "weights": weights}, sort_keys=True)
    return Path(settings.paths.outputs) / "evaluations" / hashlib.sha256(text.encode()).hexdigest()[:12]


def evaluated(settings: Settings) -> dict[str, Any]:
    """Return the keys and values that an evaluation's folder is named by, without the weights."""
    # Keys at their default are left out, so that a key which is added later renames no folder.
    plain = settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    asked = (*_identifying(settings), "evaluation", "dataset", "benchmark", "seed")
    what = {key: plain[key] for key in asked if key in plain}
    what["evaluation"].pop("batch_images", None)
    what.get("prompt", {}).pop("wordings", None)  # of training alone
    for entry in what["dataset"].values():
        for key in DESCRIPTIVE:
            entry.pop(key, None)
    if settings.mixture:
        own = ("task", "prompt", "benchmark")
        what["mixture"] = {
            task: {key: part[key] for key in own if key in part} for task, part in plain["mixture"].items()
        }
    if settings.perturbation.num_copies:
        what["perturbation"], what["twin"] = plain["perturbation"], plain["twin"]["strengths"]
    if settings.scorer.form != "policy":
        from qhk.evaluation.scorers import scorer_identity

        what["scorer"] = scorer_identity(settings.scorer)
    return what


def _identifying(settings: Settings) -> tuple[str, ...]:
    """Return the nodes that say who is asked, and what."""
    if settings.scorer.form != "policy":
        return ("task",)
    from qhk.cli.checkpoints import OWNED

    return OWNED


def weights_identity(checkpoint: Path) -> str:
    """Return which weights a folder holds: its real path, and size and time of its weight files."""
    files = sorted(checkpoint.resolve().glob("*.safetensors"))
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return json.dumps([str(checkpoint.resolve()), stats])


COMMAND = Command(
    sentence="Evaluates a checkpoint, a base model or a classical measure on benchmarks.",
    recipes=(
        (
            "a checkpoint on its benchmarks",
            "qhk evaluate checkpoint=outputs/default/default/seed0/checkpoints/last",
        ),
        ("chosen benchmarks", "qhk evaluate checkpoint=FOLDER 'benchmark=[miniature_koniq,miniature_spaq]'"),
        ("an untrained base model", "qhk evaluate experiment=q_hawkeye checkpoint=null benchmark=koniq"),
        ("a measure that needs no model", "qhk evaluate scorer=brisque benchmark=koniq"),
        ("anyone's scores", "qhk evaluate scorer=table scorer.path=their.csv benchmark=koniq"),
    ),
    request=EvaluateRequest,
    run=run,
)
