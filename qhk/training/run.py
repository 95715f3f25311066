"""One training run: what it holds, what it records, and the checkpoints it writes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from qhk.policy.load import Policy
from qhk.settings.root import Settings
from qhk.tracking.recorder import MetricSection, Recorder
from qhk.tracking.run_directory import RunDirectory
from qhk.training.checkpoint import Checkpoints, TrainingState
from qhk.training.data import RunData
from qhk.training.display import Display
from qhk.training.distributed import Processes
from qhk.training.optimizer import Horizon
from qhk.training.sharding import whole_optimizer_state, whole_weights
from qhk.training.stages import RunStage
from qhk.training.step import Learner
from qhk.training.stop import RunStopped, StopSignals


@dataclass(kw_only=True)
class Run:
    """What one run holds. ``best`` and ``rollbacks`` (of this stage) and ``wall_s`` go into checkpoints.

    ``stage`` is the one that the run is in: ``settings``, ``data`` and ``horizon`` are its own.
    """

    stages: Sequence[RunStage]
    config: Mapping[str, Any]
    directory: RunDirectory
    recorders: Sequence[Recorder]
    display: Display
    processes: Processes
    signals: StopSignals = field(default_factory=StopSignals)
    best: dict[str, float] | None = None
    rollbacks: list[tuple[int, int]] = field(default_factory=list)
    last_validation: str = ""
    wall_s: dict[str, float] = field(default_factory=dict)
    place: int = 0

    @property
    def stage(self) -> RunStage:
        return self.stages[self.place]

    @property
    def settings(self) -> Settings:
        return self.stage.settings

    @property
    def data(self) -> RunData:
        return self.stage.data

    @property
    def horizon(self) -> Horizon:
        return self.stage.horizon

    @property
    def total_steps(self) -> int:
        """Return the number of steps of all stages."""
        return self.stages[-1].last

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(
            self.directory.checkpoints,
            keep_every=self.settings.training.keep_every,
            starts=[stage.first for stage in self.stages],
        )

    def record(self, *, step: int, section: MetricSection, metrics: Mapping[str, float]) -> None:
        """Write a row of metrics to every sink; only the main process does."""
        if self.processes.is_main:
            for recorder in self.recorders:
                recorder.record(step=step, section=section, metrics=metrics)

    def stop_here(self, kept: str) -> None:
        """Raise ``RunStopped`` where this process was asked to stop; ``kept`` says what stays."""
        if self.signals.number is not None:
            raise RunStopped(self.signals.number, kept)

    def asked_to_stop(self) -> int | None:
        """Return the signal that asked any process to stop, alike on all; every process must come here."""
        asked = self.processes.gather_items([self.signals.number])
        return next((number for number in asked if number is not None), None)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time spent inside to the part's wall time."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.wall_s[part] = self.wall_s.get(part, 0.0) + time.perf_counter() - started


def save_checkpoint(run: Run, policy: Policy, learner: Learner | None, *, step: int) -> None:
    """Write the checkpoint of a step on the main process, and remove those that are no longer kept.

    ``learner`` is None where nothing has been learnt by reinforcement yet.
    """
    run.processes.wait()
    is_main = run.processes.is_main
    weights = whole_weights(policy.model, keep=is_main)
    optimizer = whole_optimizer_state(policy.model, learner.optimizer, keep=is_main) if learner else None
    if not is_main:
        return
    state = TrainingState(
        step=step,
        run_id=run.directory.run_id,
        optimizer=optimizer,
        torch_rng=torch.get_rng_state(),
        best=run.best,
        history=dict(learner.memory) if learner else {},
        wall_s=dict(run.wall_s),
        rollbacks=list(run.rollbacks),
        missing=dict(learner.missing) if learner else {},
    )
    run.checkpoints.save(policy, state, dict(run.config), stage=run.stage.name, weights=weights)
    point_to_kept(run)


def point_to_kept(run: Run) -> None:
    """Point ``best`` to the best checkpoint, and remove those that are no longer kept.

    That is the last one where the stage holds nothing back for validation.
    """
    best = None if run.best is None else int(run.best["step"])
    if not any(run.data.validation.values()):
        best = run.checkpoints.steps()[-1]
    run.checkpoints.mark_best(best)
    run.checkpoints.prune(best=best)
