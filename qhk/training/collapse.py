"""What a run does about signs of collapse: tells them, ends, or goes back to weights from before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qhk.policy.start import open_policy
from qhk.tracking.collapse import collapse_context, collapse_signs
from qhk.tracking.names import COLLAPSE_SIGNS
from qhk.tracking.recorder import MetricRow, MetricSection, read_metrics
from qhk.training.optimizer import Coefficients
from qhk.training.run import Run
from qhk.training.sharding import load_optimizer_state, load_weights
from qhk.training.step import Learner


def look_for_collapse(run: Run, *, step: int) -> str:
    """Return the signs of collapse in one line, on every process; tells them where they are news, or gone.

    How many there are is recorded while there are any, and once when they are gone.
    """
    if not run.processes.is_main:
        return run.processes.shared("")
    first = run.stage.first
    num_images = min((len(part) for part in run.data.validation.values() if part), default=0)
    recorded = read_metrics(run.directory.metrics)
    rows = kept_rows(recorded, run.rollbacks)
    told = [row.metrics[COLLAPSE_SIGNS] for row in recorded if COLLAPSE_SIGNS in row.metrics]
    earlier = [row for row in rows if row.step <= step - run.settings.training.validate_every]
    now, before = (collapse_signs(part, first=first, num_images=num_images) for part in (rows, earlier))
    line = f"signs of collapse: {'; '.join(now.values())}" if now else ""
    if now or any(told[-1:]):
        run.record(step=step, section=MetricSection.VALIDATION, metrics={COLLAPSE_SIGNS: float(len(now))})
    if now.keys() - before.keys():
        run.display.line(f"WARNING: step {step}: {line} ({collapse_context(rows, first=first)})")
    elif any(told[-1:]) and not now:
        run.display.line(f"step {step:4d}  the signs of collapse are gone")
    run.directory.report(warning=line)
    return run.processes.shared(line)


def kept_rows(rows: Sequence[MetricRow], rollbacks: Sequence[tuple[int, int]]) -> list[MetricRow]:
    """Return the rows that led to the present weights; ``rollbacks`` are (at step, to step)."""
    return [row for row in rows if not any(to < row.step <= at for at, to in rollbacks)]


def may_roll_back(run: Run) -> bool:
    """Return whether a collapse now leads to a rollback: asked for, not too often yet, and to somewhere."""
    training = run.settings.training
    return (
        training.on_collapse == "rollback"
        and len(run.rollbacks) < training.max_rollbacks
        and run.best is not None
    )


def why_stopped(run: Run) -> str:
    """Return what a run that ends at signs of collapse leaves behind, and how it would have gone on."""
    training, goes_on = run.settings.training, "training.on_collapse=warn lets a run go on"
    if run.best is None:
        return f"no validation chose a checkpoint without them; {goes_on}"
    said = f"{run.checkpoints.folder / 'best'} is the best checkpoint"
    if training.on_collapse == "rollback":
        return f"{said}, and training.max_rollbacks={training.max_rollbacks} is used up"
    return f"{said}, {goes_on}"


def roll_back(run: Run, learner: Learner, *, step: int) -> None:
    """Give the policy and its optimiser what they were at the best checkpoint, in place.

    The steps go on from here: the schedules and the record do not repeat, and the examples that come are
    others than those that led into the collapse, as is done after spikes of the loss (PaLM, arXiv 2204.02311,
    section 5.1). From now on ``slowed`` steps are taken. The caller writes a checkpoint of this step, from
    which a killed run goes on.
    """
    assert run.best is not None
    best = int(run.best["step"])
    path, model = run.checkpoints.path(best), learner.policy.model
    state = run.checkpoints.load_state(best, run_id=run.directory.run_id)
    kept = open_policy(str(path), run.settings.model, device="cpu").model
    load_weights(model, dict(kept.named_parameters()))
    assert state.optimizer is not None
    load_optimizer_state(model, learner.optimizer, state.optimizer)
    learner.memory.clear()
    learner.memory.update(state.history)
    run.rollbacks.append((step, best))
    training, number = run.settings.training, len(run.rollbacks)
    run.display.line(
        f"step {step:4d}  rollback {number} of at most {training.max_rollbacks}: the weights of step {best}, "
        f"{training.rollback_lr_factor**number:g} of the learning rate"
    )


def slowed(run: Run, now: Coefficients) -> Coefficients:
    """Return the step's coefficients with the smaller learning rate of a run that has rolled back."""
    factor = run.settings.training.rollback_lr_factor ** len(run.rollbacks)
    return replace(now, learning_rate=now.learning_rate * factor)
