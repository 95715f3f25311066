"""Typed settings of a run: every key with its type and range, no default values (YAML holds those)."""

from __future__ import annotations

from qhk.settings.base import Duration, Readout, Schedule
from qhk.settings.identity import run_directory, run_id, run_name
from qhk.settings.inputs import (
    BenchmarkSettings,
    DatasetSettings,
    DataSettings,
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
from qhk.settings.parse import parse_settings, plain_settings
from qhk.settings.root import EvaluationSettings, MixtureSettings, Settings, TrackingSettings
from qhk.settings.views import task_shares, task_views

__all__ = [
    "BenchmarkSettings",
    "ColdStartSettings",
    "DataSettings",
    "DatasetSettings",
    "DistributedSettings",
    "Duration",
    "EvaluationSettings",
    "MixtureSettings",
    "ModelSettings",
    "ObjectiveSettings",
    "OptimizerSettings",
    "PathsSettings",
    "PerceptionSettings",
    "PromptSettings",
    "Readout",
    "RewardSettings",
    "RewardTermSettings",
    "RolloutSettings",
    "Schedule",
    "Settings",
    "TaskSettings",
    "TinySettings",
    "TrackingSettings",
    "TrainingSettings",
    "TwinSettings",
    "UncertaintySettings",
    "parse_settings",
    "plain_settings",
    "run_directory",
    "run_id",
    "run_name",
    "task_shares",
    "task_views",
]
