"""The whole of one run's settings, and the rules that join its nodes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from qhk.errors import UserError
from qhk.objective.forms import UNCERTAINTY_FORMS
from qhk.settings.base import MOST, Count, FileText, Fraction, Node, NumOrZero, Readout, Schedule, Text
from qhk.settings.data import WHOLE, Benchmarks, Data, DatasetSettings, FramingSettings, LoadingSettings
from qhk.settings.measuring import POLICY, UNPERTURBED, PerturbationSettings, ScorerSettings
from qhk.settings.model import Adapter, ModelSettings
from qhk.settings.objective import (
    NO_DEPENDENCY,
    DependencySettings,
    ObjectiveSettings,
    PerceptionSettings,
    UncertaintySettings,
)
from qhk.settings.pairs import PairsSettings
from qhk.settings.paths import PathsSettings
from qhk.settings.problems import suggestion
from qhk.settings.reward import RewardSettings
from qhk.settings.rollout import RolloutSettings
from qhk.settings.task import PromptSettings, TaskSettings
from qhk.settings.training import ColdStartSettings, DistributedSettings, OptimizerSettings, TrainingSettings
from qhk.settings.twin import TwinSettings
from qhk.tasks import find_form


class EvaluationSettings(Node):
    """How benchmarks are read and reported; ``batch_images`` bounds memory and changes no result."""

    readouts: Annotated[dict[str, Readout], Field(min_length=1)]
    headline: Text
    bootstrap: Annotated[int, Field(ge=0, le=10**6)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    min_parsed_fraction: Fraction
    batch_images: Count

    @model_validator(mode="after")
    def _headline_is_read(self) -> Self:
        if self.headline not in self.readouts:
            raise UserError(f"headline must be one of {', '.join(self.readouts)}, got {self.headline!r}")
        return self


class TrackingSettings(Node):
    """Where a run's record is mirrored, and what goes there; offline needs no account and no network.

    ``notes`` null and ``tags`` [] are filled with the claim and the names of experiment and sweep.
    ``completions`` counts the images of a benchmark whose completions make a table, 0 for no table;
    ``predictions`` are all of them, as files. Images are never mirrored.
    """

    wandb: Literal["off", "offline", "online"]
    project: Text
    entity: Text | None
    notes: Text | None = None
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = []
    completions: NumOrZero = 50
    predictions: bool = True
    trackio: bool = False


class MixtureSettings(Node):
    """One more task that a run trains beside its main one, on ``share`` of all prompts.

    ``loading`` null is the run's own.
    """

    share: Annotated[float, Field(gt=0, lt=1)]
    task: TaskSettings
    prompt: PromptSettings
    reward: RewardSettings
    data: Data
    benchmark: Benchmarks
    loading: LoadingSettings | None = None

    @model_validator(mode="after")
    def _prompt_fits_task(self) -> Self:
        _check_prompt(self.prompt, self.task)
        return self


def _check_prompt(prompt: PromptSettings, task: TaskSettings) -> None:
    if prompt.task != task.form:
        raise UserError(
            f"prompt.task: must be {task.form!r} like task.form, got {prompt.task!r}; "
            "choose a prompt written for this task"
        )


class StageSettings(Node):
    """One stage of a run: its share of ``training.duration``, and the nodes that it replaces while it lasts.

    ``place`` counts the stages from 1 (the order in which a config is put together says nothing). A node
    that is left out or null stays the run's own. ``reference`` is the policy that the KL is held against:
    the one at the start of the run, or of the stage. ``schedules`` says what the learning rate and all other
    schedules run over: the whole run, so that a stage takes them up where the last one left them (its epochs
    being passes over its own data), or each stage anew.
    """

    place: Count
    share: Annotated[float, Field(gt=0, le=1)]
    reference: Literal["run_start", "stage_start"]
    schedules: Literal["run", "stage"]
    task: TaskSettings | None = None
    prompt: PromptSettings | None = None
    reward: RewardSettings | None = None
    data: Data | None = None
    benchmark: Benchmarks | None = None
    loading: LoadingSettings | None = None
    mixture: dict[str, MixtureSettings] | None = None
    twin: TwinSettings | None = None
    rollout: RolloutSettings | None = None
    objective: ObjectiveSettings | None = None
    uncertainty: UncertaintySettings | None = None
    perception: PerceptionSettings | None = None
    dependency: DependencySettings | None = None
    lr_schedule: Schedule | None = None

    @property
    def replaced(self) -> dict[str, Any]:
        """The replaced nodes by name."""
        nodes = {name: self.__dict__[name] for name in type(self).model_fields if name not in STAGE_KEYS}
        return {name: node for name, node in nodes.items() if node is not None}


STAGE_KEYS = ("place", "share", "reference", "schedules")
"""The keys of a stage that are not nodes of the run."""


VERSION: Literal[2] = 2
"""The form of stored configs, counted; ``upgrade`` reads earlier ones."""


class Settings(Node):
    """Everything one run depends on. Built by ``parse_settings`` alone."""

    version: Literal[2] = VERSION
    seed: NumOrZero
    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] | None
    dry_run: bool
    fresh: bool
    checkpoint: FileText | None
    paths: PathsSettings
    model: ModelSettings
    adapter: Adapter = None
    dataset: dict[str, DatasetSettings]
    data: Data
    benchmark: Benchmarks
    loading: LoadingSettings
    framing: FramingSettings = WHOLE
    twin: TwinSettings
    pairs: PairsSettings
    task: TaskSettings
    prompt: PromptSettings
    cold_start: ColdStartSettings
    rollout: RolloutSettings
    reward: RewardSettings
    mixture: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], MixtureSettings]
    objective: ObjectiveSettings
    uncertainty: UncertaintySettings
    perception: PerceptionSettings
    dependency: DependencySettings = NO_DEPENDENCY
    optimizer: OptimizerSettings
    lr_schedule: Schedule
    stages: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], StageSettings]
    training: TrainingSettings
    evaluation: EvaluationSettings
    perturbation: PerturbationSettings = UNPERTURBED
    scorer: ScorerSettings = POLICY
    distributed: DistributedSettings
    tracking: TrackingSettings

    @property
    def looks_at_twins(self) -> bool:
        """Whether training looks at a degraded copy of each image."""
        return self.perception.form != "none" or self.dependency.form != "none"

    @model_validator(mode="after")
    def _sets_are_known(self) -> Self:
        parts: list[tuple[str, Iterable[str]]] = [("data", self.data), ("benchmark", self.benchmark)]
        for task, part in self.mixture.items():
            parts += [(f"mixture.{task}.data", part.data), (f"mixture.{task}.benchmark", part.benchmark)]
        for key, names in parts:
            for name in names:
                if name not in self.dataset:
                    raise UserError(f"{key}: no set is called {name!r}; {suggestion(name, self.dataset)}")
        return self

    @model_validator(mode="after")
    def _prompt_fits_task(self) -> Self:
        _check_prompt(self.prompt, self.task)
        return self

    @model_validator(mode="after")
    def _every_task_has_the_readouts_it_needs(self) -> Self:
        tasks = [self.task, *(part.task for part in self.mixture.values())]
        tasks += [stage.task for stage in self.stages.values() if stage.task is not None]
        words = [task.form for task in tasks if not find_form(task.form).has_scores]
        headline = self.evaluation.headline
        for key, readout in {
            f"evaluation.readouts.{headline}.score": self.evaluation.readouts[headline],
            "training.validation_readout.score": self.training.validation_readout,
        }.items():
            if readout.score == "expected" and words:
                raise UserError(
                    f"{key}: expected needs answers in numbers, but task {words[0]} is answered in words; "
                    "use written, or another headline"
                )
        return self

    @model_validator(mode="after")
    def _shares_leave_the_main_task_one(self) -> Self:
        total = sum(part.share for part in self.mixture.values())
        if total >= 1:
            raise UserError(
                f"mixture: the shares add up to {total:g}; keep them below 1, the main task has the rest"
            )
        if self.task.form in self.mixture:
            raise UserError(f"mixture.{self.task.form}: is the main task's name; give this part another one")
        return self

    @model_validator(mode="after")
    def _model_takes_what_is_shown(self) -> Self:
        side, least, most = self.framing.shown_side, self.model.min_pixels, self.model.max_pixels
        if side is not None and side**2 < least:
            raise UserError(
                f"framing.side: {side} x {side} native pixels would be enlarged to model.min_pixels {least}; "
                f"set model.min_pixels={side**2} or less, or show more"
            )
        if side is not None and side**2 > most:
            raise UserError(
                f"framing.side: {side} x {side} native pixels would be shrunk to model.max_pixels {most}; "
                f"set model.max_pixels={side**2} or more, or show less"
            )
        return self

    @model_validator(mode="after")
    def _one_memory_for_all_tasks(self) -> Self:
        places = [("", self.loading, self.mixture)]
        for name, stage in self.stages.items():
            mixture = self.mixture if stage.mixture is None else stage.mixture
            places.append((f"stages.{name}.", stage.loading or self.loading, mixture))
        for place, loading, mixture in places:
            for task, part in mixture.items():
                for key in ("keep_encoded", "keep_features"):
                    own = 0 if part.loading is None else getattr(part.loading, key)
                    if own not in (0, getattr(loading, key)):
                        raise UserError(
                            f"{place}mixture.{task}.loading.{key}: all tasks share one memory, whose size is "
                            f"loading.{key} of the run or the stage; set that, and leave this 0"
                        )
        return self

    @model_validator(mode="after")
    def _kept_features_are_whole(self) -> Self:
        stages = [(f"stages.{name}.", stage.loading) for name, stage in self.stages.items() if stage.loading]
        for key, loading in [("", self.loading), *stages]:
            if loading.keep_features and self.distributed.form not in ("single", "ddp"):
                raise UserError(
                    f"{key}loading.keep_features: must be 0 with distributed={self.distributed.form}, whose "
                    "processes come to the same passes through the vision tower; set it to 0, or "
                    "distributed=ddp"
                )
        return self

    @model_validator(mode="after")
    def _degradations_have_strengths(self) -> Self:
        missing = [kind for kind in self.perturbation.degradations if kind not in self.twin.strengths]
        if missing:
            raise UserError(f"perturbation.degradations: twin.strengths.{missing[0]} is missing; give it")
        return self

    @model_validator(mode="after")
    def _stages_make_a_whole(self) -> Self:
        total = math.fsum(stage.share for stage in self.stages.values())
        if self.stages and not math.isclose(total, 1.0, abs_tol=1e-9):
            raise UserError(f"stages: the shares must add up to 1, got {total:g}")
        places = sorted(stage.place for stage in self.stages.values())
        if places != list(range(1, len(places) + 1)):
            raise UserError(f"stages: the places must be 1 to {len(places)}, each once, got {places}")
        return self

    @model_validator(mode="after")
    def _tokens_can_be_counted(self) -> Self:
        stages = [(f"stages.{name}.", stage.rollout) for name, stage in self.stages.items() if stage.rollout]
        for key, rollout in [("", self.rollout), *stages]:
            tokens = self.training.prompts_per_step * rollout.group_size * rollout.max_new_tokens
            if tokens > MOST:
                raise UserError(
                    f"{key}rollout.max_new_tokens: x rollout.group_size x training.prompts_per_step are "
                    f"{tokens:.1e} tokens a step, at most {MOST:.1e}; lower one of them"
                )
        return self

    @model_validator(mode="after")
    def _engine_fits(self) -> Self:
        for name, stage in self.stages.items():
            if stage.rollout is not None and stage.rollout.vllm != self.rollout.vllm:
                raise UserError(
                    f"stages.{name}.rollout.engine: one engine serves the whole run; "
                    f"give the stage the run's rollout.engine {self.rollout.engine} and its settings"
                )
        if self.rollout.engine == "policy":
            return self
        if self.adapter is not None and self.adapter.form == "qlora":
            raise UserError(
                "rollout.engine: vllm does not go with adapter qlora, whose base it would hold whole; "
                "take adapter=lora, or rollout=default"
            )
        if self.model.dtype == "float64":
            raise UserError(
                "model.dtype: float64 is not for rollout.engine vllm; take float32 or bfloat16, "
                "or rollout=default"
            )
        return self

    @model_validator(mode="after")
    def _adapter_fits(self) -> Self:
        adapter = self.adapter
        if adapter is None:
            return self
        if self.model.freeze_vision and (adapter.vision or adapter.merger):
            raise UserError(
                "model.freeze_vision: true would freeze what adapter.vision and adapter.merger train; "
                "set it to false, or both of them"
            )
        if self.distributed.form not in ("single", "ddp") and adapter.form == "qlora":
            raise UserError(
                f"distributed: {self.distributed.form} cannot divide the 4-bit weights of adapter qlora; "
                "take distributed=ddp or adapter=lora"
            )
        if self.distributed.form == "zero3" and any(
            stage.reference == "stage_start" and stage.place > 1 for stage in self.stages.values()
        ):
            raise UserError(
                f"distributed: zero3 cannot keep the start of a stage beside adapter {adapter.form}; "
                "take distributed=fsdp2 or zero2, or reference=run_start in the stages"
            )
        if adapter.dropout and self.training.learner == "reinforcement":
            raise UserError(
                f"adapter.dropout: must be 0 with training.learner reinforcement, got {adapter.dropout:g}; "
                "answers are sampled without dropout, and ratio and KL would measure it"
            )
        if adapter.form == "qlora" and (self.model.form == "tiny" or self.cold_start.form != "none"):
            raise UserError(
                "adapter.form: qlora needs published weights and no cold start, which trains all weights; "
                "choose adapter=lora, or model=qwen2_5_vl_7b cold_start=none"
            )
        return self

    @model_validator(mode="after")
    def _rollback_has_where_to_go(self) -> Self:
        mixtures = [self.mixture, *(stage.mixture or {} for stage in self.stages.values())]
        own = [self.loading, *(stage.loading for stage in self.stages.values())]
        own += [part.loading for mixture in mixtures for part in mixture.values()]
        holds_back = any(loading is not None and loading.validation_fraction > 0 for loading in own)
        if self.training.on_collapse == "rollback" and not holds_back:
            raise UserError(
                "training.on_collapse: rollback goes to the best checkpoint, which nothing chooses with "
                "loading.validation_fraction 0; hold some images back, or choose stop"
            )
        return self

    @model_validator(mode="after")
    def _zero_has_what_it_needs(self) -> Self:
        form = self.distributed.form
        if form in ("zero2", "zero3") and self.model.dtype not in ("float32", "bfloat16"):
            raise UserError(
                f"model.dtype: {self.model.dtype} does not go with distributed={form}, whose weights are "
                "float32 or bfloat16; choose one of them, or distributed=fsdp2"
            )
        if form in ("zero2", "zero3") and self.training.on_collapse == "rollback":
            raise UserError(
                f"training.on_collapse: rollback does not go with distributed={form}, which keeps copies of "
                "the weights; choose stop, or distributed=fsdp2"
            )
        return self

    @model_validator(mode="after")
    def _moments_in_8_bits_are_whole(self) -> Self:
        if self.optimizer.form == "adamw_8bit" and self.distributed.form not in ("single", "ddp"):
            raise UserError(
                f"distributed: {self.distributed.form} divides moments, which optimizer adamw_8bit keeps in "
                "blocks; choose distributed=ddp, or optimizer=adamw_stochastic"
            )
        return self

    @model_validator(mode="after")
    def _rank_needs_a_batch(self) -> Self:
        if UNCERTAINTY_FORMS[self.uncertainty.form].by_rank and self.training.prompts_per_step < 2:
            raise UserError(
                "training.prompts_per_step: must be at least 2 with uncertainty.form "
                f"{self.uncertainty.form}, got 1; the rank of a group is among the groups of one step"
            )
        return self
