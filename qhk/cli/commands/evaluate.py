"""``qhk evaluate``: a checkpoint, or a base model, on the benchmarks of all its tasks."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

import yaml

from qhk.cli.command import Command, Job
from qhk.cli.process import quiet_libraries
from qhk.errors import UserError
from qhk.evaluation.results import Moment, update_results
from qhk.files import write_atomically
from qhk.plain import print
from qhk.settings.base import Node, Text
from qhk.settings.parse import plain_settings
from qhk.settings.root import Settings
from qhk.settings.views import build_tasks, task_views
from qhk.tracking.archive import archive_folder
from qhk.tracking.run_directory import refuse_cache, refuse_place


class EvaluateRequest(Node):
    """``stage``: the stage of the checkpoint's run whose tasks are evaluated; null means its own."""

    stage: Text | None


def run(job: Job[EvaluateRequest]) -> int:
    """Evaluate, print the table and return 0; all files lie in a folder named by what is evaluated.

    The same evaluation, asked for again, continues or reads what is there.
    """
    import torch

    from qhk.cli.checkpoints import evaluated_policy, policy_settings
    from qhk.evaluation.table import print_table, results_tables
    from qhk.training.checkpoint import checkpoint_step
    from qhk.training.data import load_sets, select_all_benchmarks
    from qhk.training.display import ConsoleDisplay
    from qhk.training.distributed import Processes
    from qhk.training.evaluation import evaluate_benchmarks, run_samplers
    from qhk.training.fit import refuse_long_answers
    from qhk.training.inputs import build_readers

    quiet_libraries()
    display = ConsoleDisplay()
    refuse_place("paths.outputs", Path(job.settings.paths.outputs))
    refuse_cache(job.settings.paths)
    settings = policy_settings(job.settings, job.overrides, stage=job.request.stage, datasets=job.datasets)
    views = task_views(settings)
    names = [name for view in views.values() for name in view.benchmark]
    if not names:
        raise UserError("benchmark: is empty; name at least one, such as benchmark=miniature_koniq")
    checkpoint = None if settings.checkpoint is None else Path(settings.checkpoint)
    loaded = load_sets(settings, list(dict.fromkeys(names)), display)
    torch.set_num_threads(settings.training.threads)
    benchmarks = select_all_benchmarks(settings, loaded)
    policy = evaluated_policy(settings, device=Processes("single").device)
    examples = {task: [e for b in benchmarks if b.task == task for e in b.examples] for task in views}
    refuse_long_answers(settings, examples, policy.num_tokens)
    samplers = run_samplers(policy, build_readers(settings, policy), settings.evaluation.readouts, settings)
    folder = evaluation_folder(settings)
    if settings.fresh:
        archive_folder(folder)
    write_atomically(folder / "config.yaml", yaml.safe_dump(plain_settings(settings), sort_keys=False))
    started = time.perf_counter()
    with display.task("evaluating") as progress:
        rows = evaluate_benchmarks(
            samplers,
            benchmarks,
            settings=settings.evaluation,
            tasks=build_tasks(settings),
            seed=settings.seed,
            directory=folder,
            step=0 if checkpoint is None else checkpoint_step(checkpoint) or 0,
            moment=Moment.BEFORE if checkpoint is None else Moment.AFTER,
            progress=progress,
        )
    results = update_results(
        folder / "results.json",
        seed=settings.seed,
        run_id=folder.name,
        wall_times={"evaluation": time.perf_counter() - started},
        rows=rows,
    )
    for table in results_tables(
        results.rows,
        readout=settings.evaluation.headline,
        moments=(Moment.BEFORE, Moment.AFTER),
        min_parsed_fraction=settings.evaluation.min_parsed_fraction,
    ):
        print_table(table, file=sys.stdout)
    print(f"results: {folder}")
    return 0


def evaluation_folder(settings: Settings) -> Path:
    """Return ``<outputs>/evaluations/<id>``, the id a digest of what is evaluated, on what, and how."""
    from qhk.cli.checkpoints import OWNED

    plain = plain_settings(settings)
    what = {key: plain[key] for key in (*OWNED, "evaluation", "dataset", "benchmark", "seed")}
    del what["evaluation"]["batch_images"]
    if settings.mixture:
        asked = ("task", "prompt", "benchmark")
        what["mixture"] = {task: {key: part[key] for key in asked} for task, part in plain["mixture"].items()}
    weights = "" if settings.checkpoint is None else weights_identity(Path(settings.checkpoint))
    text = json.dumps({**what, "weights": weights}, sort_keys=True)
    return Path(settings.paths.outputs) / "evaluations" / hashlib.sha256(text.encode()).hexdigest()[:12]


def weights_identity(checkpoint: Path) -> str:
    """Return which weights a folder holds: its real path, and size and time of its weight files."""
    files = sorted(checkpoint.resolve().glob("*.safetensors"))
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return json.dumps([str(checkpoint.resolve()), stats])


COMMAND = Command(
    sentence="Evaluates a checkpoint, or a base model, on benchmarks.",
    recipes=(
        (
            "a checkpoint on its benchmarks",
            "qhk evaluate checkpoint=outputs/default/default/seed0/checkpoints/last",
        ),
        ("chosen benchmarks", "qhk evaluate checkpoint=FOLDER 'benchmark=[miniature_koniq,miniature_spaq]'"),
        ("an untrained base model", "qhk evaluate experiment=q_hawkeye checkpoint=null benchmark=koniq"),
    ),
    request=EvaluateRequest,
    run=run,
)
