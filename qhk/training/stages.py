"""The stages of a run, laid out in steps, with the data of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qhk.errors import UserError
from qhk.settings.base import Duration
from qhk.settings.root import Settings
from qhk.settings.task import PromptSettings
from qhk.settings.views import StageView, stage_views
from qhk.training.data import RunData, load_run_data, refuse_shared_images
from qhk.training.display import Display
from qhk.training.fit import refuse_unfit_rewards
from qhk.training.optimizer import Coefficients, Horizon, Timeline, coefficients, horizon


@dataclass(frozen=True, kw_only=True)
class RunStage:
    """One stage, ready to run: the steps ``first`` to ``last`` - 1 of the run, counted from 0.

    ``settings`` are those of a run that had no other stage, ``horizon`` its own length; its schedules run
    over ``timeline``. ``reference`` says whose start the KL is held against: run_start or stage_start.
    """

    name: str
    reference: str
    settings: Settings
    data: RunData
    first: int
    horizon: Horizon
    timeline: Timeline

    @property
    def last(self) -> int:
        """Return the step at which the next stage begins."""
        return self.first + self.horizon.total_steps

    def coefficients(self, step: int) -> Coefficients:
        """Return what the stage's schedules say at a step of the run, counted from 0."""
        return coefficients(self.settings, step - self.timeline.first, self.timeline.horizon)

    def asks_like(self, other: RunStage) -> bool:
        """Return whether both stages ask the same of the same benchmarks: one evaluation serves both."""
        ours, theirs = (
            [
                (s.task, _evaluated(s.prompt), s.benchmark),
                *((m.task, _evaluated(m.prompt), m.benchmark) for m in s.mixture.values()),
            ]
            for s in (self.settings, other.settings)
        )
        return ours == theirs


def _evaluated(prompt: PromptSettings) -> PromptSettings:
    """Return what evaluation asks of a prompt."""
    return prompt.model_copy(update={"wordings": []})


def load_stages(settings: Settings, display: Display) -> list[RunStage]:
    """Return the run's stages with everything they read, checked; see ``load_run_data`` for what it refuses.

    Also raises UserError where a reward does not fit its task (``refuse_unfit``), where a stage's
    share of the duration is not even one step, and where a stage learns from images that another one is
    judged by.
    """
    stages: list[RunStage] = []
    done = 0.0
    for view in stage_views(settings):
        data = next((s.data for s in stages if _reads_alike(s.settings, view.settings)), None)
        data = data or load_run_data(view.settings, display)
        refuse_unfit_rewards(view, data.examples_by_task)
        done += view.share
        stages.append(_lay_out(view, data, first=stages[-1].last if stages else 0, done=done))
    refuse_shared_images([(stage.name, stage.data) for stage in stages])
    views = zip(stages, stage_views(settings), strict=True)
    return [_over_run(stage, stages[-1].last) if view.schedules == "run" else stage for stage, view in views]


def _over_run(stage: RunStage, total_steps: int) -> RunStage:
    """The stage with schedules that run over all of the run's steps."""
    whole = replace(stage.horizon, total_steps=total_steps)
    return replace(stage, timeline=Timeline(first=0, horizon=whole))


def fingerprints(stages: list[RunStage]) -> dict[str, str]:
    """Return the fingerprint of every set that any stage reads, by name."""
    return {name: digest for stage in stages for name, digest in stage.data.fingerprints.items()}


def _reads_alike(one: Settings, other: Settings) -> bool:
    same = ("task", "prompt", "data", "loading", "benchmark", "mixture", "twin", "perception", "dependency")
    return all(one.__dict__[node] == other.__dict__[node] for node in same)


def _lay_out(view: StageView, data: RunData, *, first: int, done: float) -> RunStage:
    """The stage from ``first`` on; ``done`` is the share of the duration with which it ends.

    Of steps, ends are rounded, not lengths, so that the stages together have just as many as the run.
    """
    training = view.settings.training
    steps, epochs = training.duration.steps, training.duration.epochs
    share = Duration(
        steps=None if steps is None else round(steps * done) - first,
        epochs=None if epochs is None else epochs * view.share,
    )
    run = horizon(share, num_examples=data.num_examples, prompts_per_step=training.prompts_per_step)
    if run.total_steps < 1:
        raise UserError(
            f"stages.{view.name}.share: {view.share:g} of training.duration is under one step; raise one"
        )
    return RunStage(
        name=view.name,
        reference=view.reference,
        settings=view.settings,
        data=data,
        first=first,
        horizon=run,
        timeline=Timeline(first=first, horizon=run),
    )
