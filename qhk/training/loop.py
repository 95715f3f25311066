"""A run from start to table: beginning, steps with validation and checkpoints, evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch

from qhk.data.seeds import stream_seed
from qhk.evaluation.results import Results, Stage
from qhk.files import append_json_lines
from qhk.rollout.group import Group
from qhk.settings import Settings, task_views
from qhk.tracking.metrics import MetricSet
from qhk.tracking.recorder import MetricStage
from qhk.training.begin import begin, enter_stage, resume, resume_point
from qhk.training.inputs import ExampleReader, PlannedPrompt, StepPrompt, prefetch
from qhk.training.optimizer import long_warmups
from qhk.training.progress import Pace, progress_line
from qhk.training.resample import Fresh
from qhk.training.run import Run, RunFailure, save_checkpoint
from qhk.training.run_evaluation import report_benchmarks, validate_run, write_run_results
from qhk.training.stages import RunStage
from qhk.training.start import build_readers
from qhk.training.step import Learner, reinforcement_step
from qhk.training.stop import RunStopped
from qhk.training.supervised import supervised_step
from qhk.types import ANSWER_LABELS

LOGGED_GROUPS = 2
"""Groups per logged step whose completions are written out."""


def train(run: Run) -> Results:
    """The results of the run, also in ``results.json``; resumes behind its last checkpoint if it has one."""
    torch.set_num_threads(run.settings.training.threads)
    for line in notes(run.stages):
        run.display.line(f"note: {line}")
    run.directory.report(total_steps=run.total_steps)
    kept = resume_point(run)
    learner, first = begin(run) if kept is None else resume(run, kept)
    _take_steps(run, learner, first)
    for place in range(run.place + 1, len(run.stages)):
        if not run.stages[place].asks_like(run.stage):
            _report_after(run, learner)
        learner = enter_stage(run, learner, place)
        _take_steps(run, learner, run.stage.first)
    _report_after(run, learner)
    return write_run_results(run, ())


def notes(stages: Sequence[RunStage]) -> list[str]:
    """One line for each thing that some stage asks for and does not get."""
    return [
        f"{f'stage {stage.name}: ' if stage.name else ''}{line}"
        for stage in stages
        for line in (*long_warmups(stage.settings, stage.timeline.horizon), *_idle(stage.settings))
    ]


def _idle(settings: Settings) -> list[str]:
    """A line where a weight by the spread of scores is on in a stage that has no scores."""
    uncertainty, views = settings.uncertainty, task_views(settings).values()
    weighs = uncertainty.form != "none" and uncertainty.alpha > 0
    if not weighs or any(view.task.form not in ANSWER_LABELS for view in views):
        return []
    return [f"uncertainty {uncertainty.form} weighs nothing here: every task is answered in words"]


def _report_after(run: Run, learner: Learner) -> None:
    with run.timed("evaluation_after"):
        stage = Stage.CONTROL if run.settings.training.learner == "supervised" else Stage.AFTER
        report_benchmarks(run, learner.policy, step=run.stage.last, stage=stage)


def _take_steps(run: Run, learner: Learner, first: int) -> None:
    settings, total = run.settings, run.stage.last
    readers = build_readers(settings, learner.policy)
    own = run.processes.own_part(settings.training.prompts_per_step)

    def plan(step: int) -> Sequence[PlannedPrompt]:
        whole = run.data.plan(
            step,
            seed=settings.seed,
            prompts_per_step=settings.training.prompts_per_step,
            twin_factor=_twin_factor(run, step),
        )
        return whole[own]

    with run.timed("training"), run.display.task("training") as progress:
        progress(first, run.total_steps)
        pace = Pace(first=first, total=run.total_steps)
        steps = range(first, total)
        for step, prompts in zip(
            steps, prefetch(readers, plan, steps, workers=settings.loading.workers), strict=True
        ):
            torch.manual_seed(stream_seed(settings.seed, "torch", step) % 2**63)
            done = step + 1
            logged = done % settings.training.log_every == 0 or done == total
            fresh = fresh_prompts(run, readers, step=step)
            metrics, groups = _take_step(run, learner, prompts, step=step, measure=logged, fresh=fresh)
            run.directory.report(step=done)
            run.record(step=done, stage=MetricStage.TRAIN, metrics=metrics)
            progress(done, run.total_steps)
            if logged:
                _log(run, metrics, groups, step=done, pace=pace)
            _after_step(run, learner, readers, step=done)


def fresh_prompts(run: Run, readers: Mapping[str, ExampleReader], *, step: int) -> Fresh:
    """Prompts that replace groups of equal rewards in a step, from a data order beside the run's own.

    Round r of step s takes the places that it fills from step ``s * max_resamples + r - 1`` of the order with
    the seed (seed, "resample") of the sets of the place's own task. So what a step draws stays a function of
    (seed, step), whatever was replaced before; every task keeps its places, a task's sets keep their weights
    among the fresh prompts, and rounds repeat no image where the sets are large enough.
    """
    settings, rounds = run.settings, run.settings.objective.max_resamples
    plan = partial(
        run.data.plan,
        prompts_per_step=settings.training.prompts_per_step,
        twin_factor=_twin_factor(run, step),
    )

    def prompts(number: int, places: Sequence[int]) -> list[StepPrompt]:
        own = plan(step, seed=settings.seed)
        seed, place_in_order = stream_seed(settings.seed, "resample"), step * rounds + number - 1
        drawn = {
            task: plan(place_in_order, seed=seed, task=task) for task in {own[place].task for place in places}
        }
        chosen = [drawn[own[place].task][place] for place in places]
        return [readers[planned.task].step_prompt(planned) for planned in chosen]

    return prompts


def _twin_factor(run: Run, step: int) -> float:
    return run.stage.coefficients(step).twin_factor


def _take_step(
    run: Run, learner: Learner, prompts: Sequence[StepPrompt], *, step: int, measure: bool, fresh: Fresh
) -> tuple[dict[str, float], list[Group]]:
    now = run.stage.coefficients(step)
    try:
        if run.settings.training.learner == "supervised":
            metrics, groups = supervised_step(learner, prompts, now=now), list[Group]()
        else:
            metrics, groups = reinforcement_step(
                learner, prompts, step=step, now=now, measure=measure, fresh=fresh
            )
    except FloatingPointError as error:
        good = run.checkpoints.steps()
        kept = (
            f"{run.checkpoints.path(good[-1])} is the last good checkpoint" if good else "no checkpoint yet"
        )
        raise RunFailure(f"step {step + 1}: {error}; {kept}") from error
    everyone = run.processes.gather_items([metrics.state()])
    merged = MetricSet.from_state(everyone[0])
    for rank in everyone[1:]:
        merged.merge(MetricSet.from_state(rank))
    return merged.values(), groups


def _after_step(run: Run, learner: Learner, readers: Mapping[str, ExampleReader], *, step: int) -> None:
    """Validation and checkpoint where due, or the end where asked.

    The best is selected on validation, never on benchmarks.
    """
    training, last = run.settings.training, step == run.stage.last
    is_best = False
    if step % training.validate_every == 0 or last:
        validation = validate_run(run, learner.policy, readers, step=step)
        if validation is not None:
            metrics = validation.metrics(prefix="validation")
            run.record(step=step, stage=MetricStage.VALIDATION, metrics=metrics)
            value = validation.value
            run.display.line(f"step {step:4d}  validation  {validation.text}")
            run.last_validation = validation.text
            run.directory.report(srcc=metrics.get("validation/srcc"))
            is_best = not math.isnan(value) and (run.best is None or value > run.best["value"])
            if is_best:
                run.best = {"step": float(step), "value": value}
    asked = run.asked_to_stop()
    if is_best or last or asked is not None or step % training.checkpoint_every == 0:
        save_checkpoint(run, learner, step=step)
    if asked is not None:
        raise RunStopped(asked, f"checkpointed at step {step} of {run.total_steps}")


def _log(run: Run, metrics: Mapping[str, float], groups: Sequence[Group], *, step: int, pace: Pace) -> None:
    """One line for the reader, some completions for the record."""
    if not run.processes.is_main:
        return
    run.display.line(progress_line(metrics, step=step, pace=pace, validation=run.last_validation))
    if not groups:
        return
    rows = [
        {
            "step": step,
            "id": group.example.id,
            "dataset": group.example.dataset,
            "mos": group.example.mos,
            **({"labels": dict(group.example.labels)} if group.example.mos is None else {}),
            "texts": [completion.text for completion in group.completions],
            "scores": [completion.answer.score for completion in group.completions],
        }
        for group in groups[:LOGGED_GROUPS]
    ]
    append_json_lines(run.directory.completions, rows)
