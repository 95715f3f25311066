"""A run from start to table: beginning, steps with validation and checkpoints, evaluation."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from qhk.data.seeds import stream_seed
from qhk.evaluation.results import Moment, Results
from qhk.files import append_json_lines, write_atomically
from qhk.policy.adapter import count_parameters
from qhk.settings.root import Settings
from qhk.settings.views import task_views
from qhk.tasks import build_task
from qhk.tracking.metrics import MetricSet
from qhk.tracking.recorder import MetricSection
from qhk.training.batch import Batch
from qhk.training.begin import begin, enter_stage, resume_point, resume_run
from qhk.training.collapse import look_for_collapse, may_roll_back, roll_back, slowed, why_stopped
from qhk.training.evaluation import report_benchmarks, validate_run, write_run_results
from qhk.training.inputs import ExampleReader, build_readers, load, plan, prefetch, prompt_sizes
from qhk.training.kept import Kept
from qhk.training.optimizer import long_warmups
from qhk.training.run import Run, save_checkpoint
from qhk.training.sharding import gathered
from qhk.training.stages import RunStage
from qhk.training.step import FreshPrompts, Learner, reinforcement_step
from qhk.training.stop import RunFailure, RunStopped
from qhk.training.supervised import supervised_step

PROGRESS_PARTS = (
    ("train/loss/total", "loss {:.3f}"),
    ("train/reward/total/mean", "reward {:.3f}"),
    ("train/parse/failed_frac", "unparsed {:.1%}"),
    ("train/uncertainty/weight/mean", "uncertainty weight {:.3f}"),
    ("train/perception/exact_kl", "perception KL {:.3f}"),
    ("train/tokens_per_s", "{:.0f} tokens/s"),
)
"""Metric and how it is shown, in order; those that a step did not measure are left out."""

LOGGED_GROUPS = 2
"""Groups per logged step whose completions are written out."""


def train(run: Run) -> Results:
    """Return the run's results, also in ``results.json``; it resumes behind its last checkpoint, if any."""
    torch.set_num_threads(run.settings.training.threads)
    add_in_order(run.processes.device)
    for line in notes(run.stages):
        run.display.line(f"note: {line}")
    run.directory.report(total_steps=run.total_steps)
    kept = resume_point(run)
    learner, first = begin(run) if kept is None else resume_run(run, kept)
    _tell_parameters(run, learner)
    _take_steps(run, learner, first)
    for place in range(run.place + 1, len(run.stages)):
        if not run.stages[place].asks_like(run.stage):
            _report_after(run, learner)
        learner = enter_stage(run, learner, place)
        _take_steps(run, learner, run.stage.first)
    _report_after(run, learner)
    return write_run_results(run, ())


def _tell_parameters(run: Run, learner: Learner) -> None:
    """Tells and records how many parameters learn, by block of the model."""
    with gathered(learner.policy.model):
        counts = count_parameters(learner.policy.model)
    trainable, total = (sum(block[key] for block in counts.values()) for key in ("trainable", "total"))
    blocks = ", ".join(
        f"{name} {block['trainable']:,} of {block['total']:,}" for name, block in counts.items()
    )
    run.display.line(f"trainable parameters: {trainable:,} of {total:,} ({blocks})")
    if run.processes.is_main:
        write_atomically(run.directory.parameters, json.dumps(counts, indent=1) + "\n")


def add_in_order(device: str) -> None:
    """Let the gradients of a CPU run be sums in one order, whatever its threads do meanwhile.

    Two threads would otherwise add to a shared prompt's gradient as they come, and runs of equal settings
    would part in their last bits. CUDA needs more than this, and loses kernels by it: there nothing is set.
    """
    if device == "cpu":
        torch.use_deterministic_algorithms(True)
        # New memory is always written before it is read here; filling it first would only take time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def notes(stages: Sequence[RunStage]) -> list[str]:
    """Return one line for each thing that some stage asks for and does not get, or gets unlike its paper."""
    return [
        f"{f'stage {stage.name}: ' if stage.name else ''}{line}"
        for stage in stages
        for line in (
            *long_warmups(stage.settings, stage.timeline.horizon),
            *_idle(stage.settings),
            *_unlike_paper(stage.settings),
        )
    ]


def _idle(settings: Settings) -> list[str]:
    """A line where a weight by the spread of scores is on in a stage that has no scores."""
    uncertainty, views = settings.uncertainty, task_views(settings).values()
    weighs = uncertainty.form != "none" and uncertainty.alpha > 0
    if not weighs or any(build_task(view.task).has_scores for view in views):
        return []
    return [f"uncertainty {uncertainty.form} weighs nothing here: every task is answered in words"]


def _unlike_paper(settings: Settings) -> list[str]:
    """A line for each term whose paper hides patches of the picture, where twins are made otherwise."""
    twin = settings.twin
    if settings.training.learner != "reinforcement" or (twin.form == "generated" and twin.kinds == ["mask"]):
        return []
    made = f"generated ({', '.join(twin.kinds)})" if twin.form == "generated" else twin.form
    terms = {"perception": settings.perception.form, "dependency": settings.dependency.form}
    masked = {("perception", "papo"): "2507.06448", ("dependency", "vppo"): "2510.09285"}
    return [
        f"{group}={form}: its paper (arXiv {masked[group, form]}) hides patches, here twins are {made}; "
        "twin=masked is the paper's"
        for group, form in terms.items()
        if (group, form) in masked
    ]


def _report_after(run: Run, learner: Learner) -> None:
    with run.timed("evaluation_after"):
        moment = Moment.CONTROL if run.settings.training.learner == "supervised" else Moment.AFTER
        report_benchmarks(run, learner.policy, step=run.stage.last, moment=moment)


def _take_steps(run: Run, learner: Learner, first: int) -> None:
    settings, total = run.settings, run.stage.last
    kept: Kept[Any] = Kept(settings.loading.keep_encoded)
    readers = build_readers(settings, learner.policy, kept=kept)

    def plan_step(step: int) -> Batch:
        whole = plan(
            run.data,
            step,
            seed=settings.seed,
            prompts_per_step=settings.training.prompts_per_step,
            twin_factor=_twin_factor(run, step),
        )
        return whole.select(run.processes.own_part(prompt_sizes(whole, run.data, settings)))

    filling: dict[str, Kept[Any]] = {
        "loading.keep_encoded": kept,
        "loading.keep_features": learner.features,
    }

    with run.timed("training"), run.display.task("training") as progress:
        progress(first, run.total_steps)
        pace = Pace(first=first, total=run.total_steps)
        steps = range(first, total)
        for step, batch in zip(
            steps, prefetch(readers, plan_step, steps, workers=settings.loading.workers), strict=True
        ):
            torch.manual_seed(stream_seed(settings.seed, "torch", step) % 2**63)
            done = step + 1
            logged = _is_logged(run, step)
            fresh = fresh_prompts(run, readers, step=step)
            metrics, batch = _take_step(run, learner, batch, step=step, measure=logged, fresh=fresh)
            run.directory.report(step=done)
            run.record(step=done, section=MetricSection.TRAIN, metrics=metrics)
            progress(done, run.total_steps)
            if logged:
                _log(run, metrics, batch, step=done, pace=pace)
            for key in [key for key, own in filling.items() if own.is_full]:
                run.display.line(_tell_full(key, filling.pop(key)))
            _after_step(run, learner, readers, step=done)


def _tell_full(key: str, kept: Kept[Any]) -> str:
    """A line for a memory that holds no more, with the number and the mean size of what is in it."""
    if not len(kept):
        return f"note: {key}: {kept.limit_mib} MiB are less than one entry takes; nothing is kept"
    mean = kept.num_bytes / len(kept) / 2**20
    return (
        f"note: {key}: {kept.limit_mib} MiB are full with {len(kept)} entries of {mean:.3g} MiB on average; "
        "what else comes is made anew in each pass"
    )


def fresh_prompts(run: Run, readers: Mapping[str, ExampleReader], *, step: int) -> FreshPrompts:
    """Return what loads the prompts that replace groups of equal rewards, from an order beside the run's own.

    Round r of step s takes the places that it fills from step ``s * max_resamples + r - 1`` of the order with
    the seed (seed, "resample") of the sets of the place's own task. So what a step draws stays a function of
    (seed, step), whatever was replaced before; every task keeps its places, a task's sets keep their weights
    among the fresh prompts, and rounds repeat no image where the sets are large enough.
    """
    settings, rounds = run.settings, run.settings.objective.max_resamples
    plan_from = partial(
        plan,
        run.data,
        prompts_per_step=settings.training.prompts_per_step,
        twin_factor=_twin_factor(run, step),
    )

    def prompts(number: int, places: Sequence[int]) -> Batch:
        own = plan_from(step, seed=settings.seed)
        seed, place_in_order = stream_seed(settings.seed, "resample"), step * rounds + number - 1
        chosen = own.select(places)
        for task in set(chosen.tasks):
            drawn = plan_from(place_in_order, seed=seed, task=task)
            mine = [place for place, name in enumerate(chosen.tasks) if name == task]
            chosen = chosen.with_prompts(mine, drawn.select([places[place] for place in mine]))
        return load(chosen, readers)

    return prompts


def _twin_factor(run: Run, step: int) -> float | None:
    """Return how strong the degraded twins of a step are; None where neither loss nor log looks at them."""
    now = run.stage.coefficients(step)
    return now.twin_factor if now.terms.needs().degraded or _is_logged(run, step) else None


def _is_logged(run: Run, step: int) -> bool:
    done = step + 1
    return done % run.settings.training.log_every == 0 or done == run.stage.last


def _take_step(
    run: Run, learner: Learner, batch: Batch, *, step: int, measure: bool, fresh: FreshPrompts
) -> tuple[dict[str, float], Batch]:
    now = slowed(run, run.stage.coefficients(step))
    try:
        if run.settings.training.learner == "supervised":
            metrics = supervised_step(learner, batch, now=now)
        else:
            metrics, batch = reinforcement_step(
                learner, batch, step=step, now=now, measure=measure, fresh=fresh
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
    return merged.values(), batch


def _after_step(run: Run, learner: Learner, readers: Mapping[str, ExampleReader], *, step: int) -> None:
    """Validation and checkpoint where due, or the end where asked.

    The best is selected on validation, never on benchmarks; a policy with signs of collapse is not what a run
    would go back to.
    """
    training, last = run.settings.training, step == run.stage.last
    is_best, collapse = False, ""
    if step % training.validate_every == 0 or last:
        validation = validate_run(run, learner.policy, readers, step=step)
        if validation is not None:
            metrics = validation.metrics(prefix="validation")
            run.record(step=step, section=MetricSection.VALIDATION, metrics=metrics)
            run.display.line(f"step {step:4d}  validation  {validation.text}")
            run.last_validation = validation.text
            run.directory.report(srcc=metrics.get("validation/srcc"))
        # Without a validation part there are still the scores, rewards and answers of the steps.
        collapse = look_for_collapse(run, step=step)
        if validation is not None and not (collapse and training.on_collapse == "rollback"):
            value = validation.value
            is_best = not math.isnan(value) and (run.best is None or value > run.best["value"])
            if is_best:
                run.best = {"step": float(step), "value": value}
    rolls_back = bool(collapse) and may_roll_back(run)
    if rolls_back:
        roll_back(run, learner, step=step)
    asked = run.asked_to_stop()
    if is_best or rolls_back or last or asked is not None or step % training.checkpoint_every == 0:
        save_checkpoint(run, learner.policy, learner, step=step)
    if asked is not None:
        raise RunStopped(asked, f"checkpointed at step {step} of {run.total_steps}")
    if collapse and training.on_collapse != "warn" and not rolls_back:
        raise RunFailure(f"step {step}: {collapse}; {why_stopped(run)}")


def _log(run: Run, metrics: Mapping[str, float], batch: Batch, *, step: int, pace: Pace) -> None:
    """One line for the reader, some completions for the record; a supervised step has none."""
    if not run.processes.is_main:
        return
    run.display.line(progress_line(metrics, step=step, pace=pace, validation=run.last_validation))
    if not batch.completions:
        return
    rows = [
        {
            "step": step,
            "id": example.id,
            "dataset": example.dataset,
            "mos": example.mos,
            **({"labels": dict(example.labels)} if example.mos is None else {}),
            "texts": [completion.text for completion in completions],
            "scores": [completion.answer.score for completion in completions],
        }
        for _, example, completions in sorted(
            zip(batch.indices, batch.examples, batch.completions, strict=True), key=lambda row: row[0]
        )[:LOGGED_GROUPS]
    ]
    append_json_lines(run.directory.completions, rows)


class Pace:
    """How long the steps of this process take; begins to count when it is made, at step ``first``."""

    def __init__(self, *, first: int, total: int) -> None:
        self.first, self.total = first, total
        self._started = time.monotonic()

    def seconds_left(self, step: int) -> float:
        """Return what the remaining steps will take at the mean pace, validation and checkpoints included."""
        assert step > self.first
        return (time.monotonic() - self._started) / (step - self.first) * (self.total - step)


def progress_line(metrics: Mapping[str, float], *, step: int, pace: Pace, validation: str) -> str:
    """Return one line: step, time left, what the step measured, the last validation once there is one."""
    width = len(str(pace.total))
    parts = [f"step {step:{width}d}/{pace.total}", f"left {duration(pace.seconds_left(step))}"]
    parts += [form.format(metrics[name]) for name, form in PROGRESS_PARTS if name in metrics]
    parts += [f"last validation {validation}"] if validation else []
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Return whole hours, minutes and seconds, as 0:00:07."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
