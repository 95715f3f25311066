"""``qhk evaluate``: a checkpoint, or a base model, on the benchmarks of all its tasks."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import yaml

from qhk.cli.checkpoints import OWNED, evaluated_policy, policy_settings
from qhk.cli.display import ConsoleDisplay
from qhk.cli.quiet import quiet_libraries
from qhk.cli.requests import EvaluateRequest
from qhk.errors import UserError
from qhk.evaluation.results import Moment, update_results
from qhk.evaluation.table import print_table, results_tables
from qhk.files import unwritable, write_atomically
from qhk.settings import DatasetSettings, Settings, build_tasks, plain_settings, task_views
from qhk.tracking.archive import archive_folder
from qhk.training.checkpoint import checkpoint_step
from qhk.training.data import load_sets, select_all_benchmarks
from qhk.training.distributed import Processes
from qhk.training.evaluation import evaluate_benchmarks, run_samplers
from qhk.training.fit import refuse_long_answers
from qhk.training.inputs import build_readers

MOMENTS = (Moment.BEFORE, Moment.AFTER)


def run(
    settings: Settings,
    overrides: list[str],
    request: EvaluateRequest,
    *,
    datasets: Mapping[str, DatasetSettings],
) -> int:
    """0 after the table is printed; predictions and results lie in a folder named by what was evaluated.

    The same evaluation, asked for again, continues or reads what is there. Raises ValueError for bad input.
    """
    quiet_libraries()
    display = ConsoleDisplay()
    for key, place in (("paths.outputs", settings.paths.outputs), ("paths.cache", settings.paths.cache)):
        if fault := unwritable(Path(place)):
            raise UserError(f"{key}: {place} cannot be written ({fault}): choose another folder")
    settings = policy_settings(settings, overrides, stage=request.stage, datasets=datasets)
    views = task_views(settings)
    names = [name for view in views.values() for name in view.benchmark]
    if not names:
        raise UserError("benchmark: is empty; name at least one, such as benchmark=miniature_koniq")
    checkpoint = None if settings.checkpoint is None else Path(settings.checkpoint).expanduser()
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
        moments=MOMENTS,
        min_parsed_fraction=settings.evaluation.min_parsed_fraction,
    ):
        print_table(table, file=sys.stdout)
    print(f"results: {folder}")
    return 0


def evaluation_folder(settings: Settings) -> Path:
    """``<outputs>/evaluations/<id>``, the id a digest of what is evaluated, on what, and how."""
    plain = plain_settings(settings)
    what = {key: plain[key] for key in (*OWNED, "evaluation", "dataset", "benchmark", "seed")}
    del what["evaluation"]["batch_images"]
    if settings.mixture:
        asked = ("task", "prompt", "benchmark")
        what["mixture"] = {task: {key: part[key] for key in asked} for task, part in plain["mixture"].items()}
    weights = "" if settings.checkpoint is None else weights_identity(Path(settings.checkpoint).expanduser())
    text = json.dumps({**what, "weights": weights}, sort_keys=True)
    return Path(settings.paths.outputs) / "evaluations" / hashlib.sha256(text.encode()).hexdigest()[:12]


def weights_identity(checkpoint: Path) -> str:
    """Which weights a checkpoint folder holds: its real path, and size and time of its weight files."""
    files = sorted(checkpoint.resolve().glob("*.safetensors"))
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return json.dumps([str(checkpoint.resolve()), stats])
