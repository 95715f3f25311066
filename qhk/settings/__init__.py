"""Typed settings of a run: every key with its type and range, no default values (YAML holds those)."""

from __future__ import annotations

from qhk.settings.base import Duration, Readout, Schedule
from qhk.settings.identity import run_directory, run_id, run_name
from qhk.settings.inputs import (
    BenchmarkSettings,
    DatasetSettings,
    ExpectedSettings,
    LoadingSettings,
    ModelSettings,
    PathsSettings,
    PromptSettings,
    TaskSettings,
    TinySettings,
    TwinSettings,
)
from qhk.settings.learning import (
    ColdStartSettings,
    DistributedSettings,
    ObjectiveSettings,
    OptimizerSettings,
    PerceptionSettings,
    RewardSettings,
    RewardTermSettings,
    RolloutSettings,
    TrainingSettings,
    UncertaintySettings,
)
from qhk.settings.pairs import (
    BuildSettings,
    CopySettings,
    EndpointSettings,
    FilterSettings,
    PairsSettings,
    StrengthenSettings,
)
from qhk.settings.parse import parse_settings, plain_settings, read_settings
from qhk.settings.root import (
    VERSION,
    EvaluationSettings,
    MixtureSettings,
    Settings,
    StageSettings,
    TrackingSettings,
)
from qhk.settings.views import StageView, reward_modules, stage_at, stage_views, task_shares, task_views

__all__ = [
    "VERSION",
    "BenchmarkSettings",
    "BuildSettings",
    "ColdStartSettings",
    "CopySettings",
    "DatasetSettings",
    "DistributedSettings",
    "Duration",
    "EndpointSettings",
    "EvaluationSettings",
    "ExpectedSettings",
    "FilterSettings",
    "LoadingSettings",
    "MixtureSettings",
    "ModelSettings",
    "ObjectiveSettings",
    "OptimizerSettings",
    "PairsSettings",
    "PathsSettings",
    "PerceptionSettings",
    "PromptSettings",
    "Readout",
    "RewardSettings",
    "RewardTermSettings",
    "RolloutSettings",
    "Schedule",
    "Settings",
    "StageSettings",
    "StageView",
    "StrengthenSettings",
    "TaskSettings",
    "TinySettings",
    "TrackingSettings",
    "TrainingSettings",
    "TwinSettings",
    "UncertaintySettings",
    "parse_settings",
    "plain_settings",
    "read_settings",
    "reward_modules",
    "run_directory",
    "run_id",
    "run_name",
    "stage_at",
    "stage_views",
    "task_shares",
    "task_views",
]
