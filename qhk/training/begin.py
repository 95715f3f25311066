"""How a run begins: from nothing, with a cold start where it has one, or behind its last checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from qhk.data.seeds import stream_seed
from qhk.errors import UserError
from qhk.evaluation.results import Moment
from qhk.files import keep_rows
from qhk.policy.adapter import adapter_weights, keep_start, read_weights
from qhk.policy.adapter_base import Base
from qhk.policy.load import Policy, digest_of, with_adapter
from qhk.policy.start import open_policy, reopen_policy, start_policy
from qhk.rewards.compose import build_terms
from qhk.rollout.engine import RolloutEngine
from qhk.settings.root import Settings
from qhk.settings.views import build_tasks, task_views
from qhk.tracking.code import code_text
from qhk.tracking.recorder import MetricSection, MetricsRecorder, missing_steps
from qhk.training.cold_start import choose_taught, run_cold_start
from qhk.training.engine import check_engine, open_engine
from qhk.training.evaluation import report_benchmarks, validate_run
from qhk.training.fit import refuse_long_answers
from qhk.training.inputs import ExampleReader, build_readers
from qhk.training.kept import Kept
from qhk.training.optimizer import build_optimizer
from qhk.training.run import Run, point_to_kept, save_checkpoint
from qhk.training.sharding import is_sharded, load_optimizer_state, shard_by_zero, shard_model
from qhk.training.step import Learner
from qhk.training.stop import RunFailure, RunStopped
from qhk.types import Example


def begin(run: Run) -> tuple[Learner, int]:
    """Return a learner at step 0: cold-started, measured, checkpointed if it has learnt anything."""
    settings = run.settings
    _forget_after(run, step=-1)
    examples = [example for _, example in run.data.train_examples]
    policy = start_policy(
        settings, examples, stages=[stage.settings for stage in run.stages], device=run.processes.device
    )
    _refuse_unfit(run, policy)
    run.processes.share_weights(policy.model)
    if settings.cold_start.form != "none":
        with run.timed("cold_start"):
            _cold_start(run, policy)
        run.processes.share_weights(policy.model)
    if _start_is_kept(settings):
        save_checkpoint(run, policy, None, step=0)
    policy = _with_adapter(run, policy)
    learner = build_learner(run, policy, start=lambda: _present_start(policy))
    with run.timed("evaluation_before"):
        report_benchmarks(run, policy, step=0, moment=Moment.BEFORE)
    return learner, 0


def _start_is_kept(settings: Settings) -> bool:
    """Return whether the start is a checkpoint: it cannot be had again from elsewhere.

    The reference of a resumed run is read from there, and an adapter belongs to it.
    """
    return settings.cold_start.form != "none" or settings.model.path is None


def _with_adapter(run: Run, policy: Policy) -> Policy:
    """Return the policy with a new adapter on what the cold start ends with, where the run trains one."""
    settings, processes = run.settings, run.processes
    if settings.adapter is None:
        return policy
    if _start_is_kept(settings):
        path, found = f"../{run.checkpoints.path(0).name}", str(run.checkpoints.path(0))
    else:
        assert settings.model.path is not None
        found = settings.model.path
        path = str(Path(found).resolve()) if Path(found).is_dir() else found
    # Weights on disk are digested once, by the process that wrote them.
    digest = processes.shared(digest_of(found) if processes.is_main else None)
    base = Base(path=path, sha256=digest, bits=4 if settings.adapter.form == "qlora" else None)
    seed = stream_seed(settings.seed, "adapter")
    policy = with_adapter(policy, settings.adapter, seed=seed, base=base)
    processes.share_weights(policy.model)
    return policy


def _present_start(policy: Policy) -> Any:
    """The model that a stage which begins now is held against: a copy, or the adapter's own model."""
    return copy.deepcopy(policy.model) if policy.base is None else policy.model


def resume_point(run: Run) -> int | None:
    """Return the step of the newest checkpoint that is whole, alike on every process; None to begin anew.

    Those that are not are set aside, with a warning each.
    """
    return run.processes.shared(_newest_readable(run) if run.processes.is_main else None)


def _newest_readable(run: Run) -> int | None:
    run.checkpoints.clear_leftovers()
    for step in reversed(run.checkpoints.steps()):
        fault = run.checkpoints.fault(step)
        if not fault:
            return step
        archived = run.checkpoints.archive_unreadable(step)
        run.display.line(
            f"WARNING: the checkpoint of step {step} cannot be used ({fault}); it is now {archived}, "
            "and the run goes on from the one before, or begins anew where there is none"
        )
    return None


def resume_run(run: Run, step: int) -> tuple[Learner, int]:
    """Return a learner as it was behind ``step``, in the stage that this step ends or belongs to."""
    run.place = next(place for place, stage in enumerate(run.stages) if step <= stage.last)
    checkpoints, settings = run.checkpoints, run.settings
    state = checkpoints.load_state(step, run_id=run.directory.run_id)
    policy = reopen_policy(str(checkpoints.path(step)), settings.model, device=run.processes.device)
    _refuse_unfit(run, policy)
    if policy.base is None:
        policy = _with_adapter(run, policy)
    learner = build_learner(run, policy, start=lambda: _start_model(run, policy))
    learner.memory.update(state.history)
    learner.missing.update(state.missing)
    if state.optimizer is not None:
        load_optimizer_state(policy.model, learner.optimizer, state.optimizer)
    torch.set_rng_state(state.torch_rng)
    run.best, run.rollbacks = state.best, list(state.rollbacks)
    run.directory.report(step=step)
    run.wall_s = {**state.wall_s, "preparation": run.wall_s.get("preparation", 0.0)}
    if run.processes.is_main:
        point_to_kept(run)
    _forget_after(run, step=step)
    run.display.line(f"resuming behind step {step}")
    parts = run.directory.code_parts
    if len(parts) > 1:
        run.display.line(f"WARNING: this run is of more than one code: {code_text(parts)}")
    if step == 0:
        with run.timed("evaluation_before"):
            report_benchmarks(run, policy, step=0, moment=Moment.BEFORE)
    return learner, step


def _forget_after(run: Run, *, step: int) -> None:
    """Takes out records beyond the step that training goes on from; this code will write them again."""
    if not run.processes.is_main:
        return
    run.directory.note_code(step=step)
    sections = [MetricSection.TRAIN, MetricSection.VALIDATION]
    sections += [MetricSection.COLD_START] if step < 0 else []
    recorder = MetricsRecorder(run.directory.metrics)
    recorder.cut_after(step, sections=sections)
    # Benchmarks are reported at the start and the end of a stage, where a resumed run reports them again.
    recorder.cut_after(step - 1, sections=[MetricSection.EVAL])
    keep_rows(run.directory.completions, lambda row: row["step"] <= step, step=int)
    if step >= 0:
        _tell_gaps(run, step)


def _tell_gaps(run: Run, step: int) -> None:
    """Tells where the record has less than what led to the checkpoint of ``step``."""
    cold_start = run.stages[0].settings.cold_start
    taught = 0 if cold_start.form == "none" else cold_start.steps
    for section, last in ((MetricSection.COLD_START, taught), (MetricSection.TRAIN, step)):
        gaps = missing_steps(run.directory.metrics, section, last=last)
        if gaps:
            run.display.line(
                f"WARNING: {run.directory.metrics} has no row for {len(gaps)} of the {last} {section.value} "
                f"steps before the checkpoint, step {gaps[0]} first: put the file back, or leave the gap"
            )


def _refuse_unfit(run: Run, policy: Policy) -> None:
    for stage in run.stages:
        refuse_long_answers(stage.settings, stage.data.examples_by_task, policy.num_tokens)
    check_engine(run, policy)
    if policy.slow_line:
        run.display.line(policy.slow_line)


def build_learner(
    run: Run,
    policy: Policy,
    *,
    start: Callable[[], Any],
    engine: RolloutEngine | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Learner:
    """Return what the steps work on: the policy with its optimiser, its reference and the reward.

    ``start`` gives a copy of the policy that reinforcement started from; asked only where a KL needs it. With
    an adapter it is the policy's own model, see ``at_reference``. ``engine`` samples; None opens the run's.
    ``optimizer`` is that of a stage before, None for the first: then the policy is spread over processes here
    where the run does so.
    """
    settings = run.settings
    engine = open_engine(run, policy) if engine is None else engine
    needs_reference = settings.objective.kl_coef > 0 and settings.training.learner == "reinforcement"
    reference = start() if needs_reference else None
    if reference is not None and reference is not policy.model:
        reference = reference.eval().requires_grad_(False)
    if reference is not None and reference is not policy.model:
        _spread_reference(run, reference)
    return Learner(
        policy=policy,
        reference=reference,
        optimizer=_spread_policy(run, policy) if optimizer is None else optimizer,
        settings=settings,
        terms={task: build_terms(view.reward.specs) for task, view in task_views(settings).items()},
        tasks=build_tasks(settings),
        processes=run.processes,
        memory={},
        missing={},
        engine=engine,
        features=Kept(settings.loading.keep_features),
    )


def _spread_reference(run: Run, reference: Any) -> None:
    """Spreads the reference over processes where the run's engine does so with weights."""
    form = run.settings.distributed.form
    if form == "fsdp2":
        shard_model(reference, run.processes)
    elif form == "zero3":
        shard_by_zero(reference, None, run.processes, stage=3)


def _spread_policy(run: Run, policy: Policy) -> torch.optim.Optimizer:
    """Spreads the policy over processes where the run's engine does so; returns its optimiser."""
    settings, model, form = run.settings, policy.model, run.settings.distributed.form
    if form == "fsdp2":
        shard_model(model, run.processes)
    zero_stage = {"zero2": 2, "zero3": 3}.get(form)
    # ZeRO's optimiser sees this process's part alone, and each part is rounded by numbers of its own.
    seed = stream_seed(settings.seed, "process", run.processes.rank) if zero_stage else settings.seed
    optimizer = build_optimizer(model, settings.optimizer, seed=seed)
    if zero_stage:
        shard_by_zero(model, optimizer, run.processes, stage=zero_stage)
    return optimizer


def enter_stage(run: Run, learner: Learner, place: int) -> Learner:
    """Return the learner of a later stage: same policy, optimiser and memory; the rest its own.

    The stage that ends and the one that begins are evaluated where they ask different things; what is on
    disk of an interrupted evaluation is continued.
    """
    before, run.place, run.best, run.rollbacks = run.stage, place, None, []
    run.display.line(f"stage {run.stage.name}: steps {run.stage.first + 1} to {run.stage.last}")

    def start() -> Any:
        # What is spread over processes cannot be copied; the checkpoint behind the stage before can be read.
        if run.stage.reference != "stage_start" or is_sharded(learner.policy.model):
            return _start_model(run, learner.policy)
        if learner.policy.base is not None:
            keep_start(learner.policy.model, adapter_weights(learner.policy.model))
        return _present_start(learner.policy)

    entered = build_learner(
        run, learner.policy, start=start, engine=learner.engine, optimizer=learner.optimizer
    )
    entered = replace(entered, memory=learner.memory, missing=learner.missing)
    if not run.stage.asks_like(before):
        with run.timed("evaluation_before"):
            report_benchmarks(run, learner.policy, step=run.stage.first, moment=Moment.BEFORE)
    return entered


def _start_model(run: Run, policy: Policy) -> Any:
    """The model that this stage's KL is held against: a kept start, or the published weights.

    Of a policy with an adapter, its own model, in which those are, with the adapter of a kept start beside
    them.
    """
    first = run.stage.first if run.stage.reference == "stage_start" else 0
    if policy.base is not None and not first:
        keep_start(policy.model, None)
        return policy.model
    kept, path = run.checkpoints.path(first), run.settings.model.path
    is_published = first == 0 and run.settings.cold_start.form == "none" and path is not None
    if not kept.exists() and not is_published:
        raise UserError(
            f"{kept}: is gone, and the KL is held against it; put it back, or start over with fresh=true"
        )
    if policy.base is not None:
        keep_start(policy.model, read_weights(kept))
        return policy.model
    source = str(kept) if kept.exists() else str(path)
    return open_policy(source, run.settings.model, device=run.processes.device).model


def taught_examples(run: Run, policy: Policy) -> tuple[dict[str, ExampleReader], list[tuple[str, Example]]]:
    """Return the readers of all that the run asks, by name, and each one's examples with its name.

    A task is taught once for every prompt and answer rule that some stage asks it with, on that stage's
    examples, and not again with some of the wordings that it was taught with. The first way to ask it has the
    task's name, a later one the stage's before it.
    """
    readers, examples = dict[str, ExampleReader](), list[tuple[str, Example]]()
    known = set[tuple[Any, ...]]()
    kept: Kept[Any] = Kept(run.settings.loading.keep_encoded)
    for stage in run.stages:
        ways = {task: _ways_to_ask(task, view) for task, view in task_views(stage.settings).items()}
        new = [task for task, own in ways.items() if not own <= known]
        known = known.union(*ways.values())
        names = {task: f"{stage.name}.{task}" if task in readers else task for task in new}
        own = build_readers(stage.settings, policy, kept=kept)
        readers |= {name: own[task] for task, name in names.items()}
        examples += [(names[task], one) for task, one in stage.data.train_examples if task in names]
    return readers, examples


def _ways_to_ask(task: str, view: Settings) -> set[tuple[Any, ...]]:
    """Return all that tells a task's questions apart, for each of its wordings."""
    prompt = view.prompt
    return {
        (task, view.task.form, view.task.answer_rule, prompt.system, prompt.answer_decimals, text)
        for text in prompt.texts
    }


def _cold_start(run: Run, policy: Policy) -> None:
    """Teaches every task of every stage, once in each way that it is asked."""
    settings = run.settings
    readers, examples = taught_examples(run, policy)
    taught = choose_taught(examples, settings.cold_start, seed=settings.seed)
    with run.display.task("cold start (supervised)") as progress:
        measured: dict[str, float] = {}

        def judge(step: int) -> float:
            validation = validate_run(run, policy, readers, step=step)
            if validation is None:
                return float(step)
            measured.update(validation.metrics(prefix="cold_start/validation"))
            return validation.value

        def report(step: int, loss: float) -> None:
            run.record(
                step=step, section=MetricSection.COLD_START, metrics={"cold_start/loss": loss, **measured}
            )
            measured.clear()
            progress(step, settings.cold_start.steps)
            asked = run.asked_to_stop()
            if asked is not None:
                raise RunStopped(asked, f"the cold start (step {step}) begins again")

        try:
            kept = run_cold_start(
                policy,
                readers,
                taught,
                settings.cold_start,
                seed=settings.seed,
                validate=judge,
                report=report,
            )
        except FloatingPointError as error:
            raise RunFailure(f"the cold start: {error}; no checkpoint yet") from error
    noise = settings.cold_start.label_noise
    why = "best on validation" if any(run.data.validation.values()) else "no validation part"
    run.display.line(
        f"cold start: {len(taught)} supervised examples, label noise {noise:g}; "
        f"kept step {kept} of {settings.cold_start.steps} ({why})"
    )
