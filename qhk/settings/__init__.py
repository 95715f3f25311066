"""Typed settings of a run: every key with its type and range, no default values (YAML holds those)."""
<<<<<<< HEAD

from __future__ import annotations

from qhk.settings.base import Duration, Readout, Schedule
from qhk.settings.identity import difference, run_directory, run_id, run_name
from qhk.settings.inputs import (
    DatasetSettings,
    ExpectedSettings,
    LoadingSettings,
    ModelSettings,
    PathsSettings,
    PromptSettings,
    TinySettings,
    TwinSettings,
)
from qhk.settings.learning import (
    AdapterSettings,
    ColdStartSettings,
    ObjectiveSettings,
    OptimizerSettings,
    UncertaintySettings,
)
from qhk.settings.pairs import (
    CopySettings,
    FilterSettings,
    PairsSettings,
)
from qhk.settings.parse import parse_settings, plain_settings, read_settings
from qhk.settings.root import (
    VERSION,
    EvaluationSettings,
    MixtureSettings,
    Settings,
)
from qhk.settings.views import (
    StageView,
    build_tasks,
    reward_modules,
    stage_at,
    stage_views,
    task_shares,
    task_views,
)

__all__ = [
    "VERSION",
    "AdapterSettings",
    "ColdStartSettings",
    "CopySettings",
    "DatasetSettings",
    "Duration",
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
    "PromptSettings",
    "Readout",
    "Schedule",
    "Settings",
    "StageView",
    "TinySettings",
    "TwinSettings",
    "UncertaintySettings",
    "difference",
    "parse_settings",
    "plain_settings",
    "read_settings",
    "build_tasks",
    "reward_modules",
    "run_directory",
    "run_id",
    "run_name",
    "stage_at",
    "stage_views",
    "task_shares",
    "task_views",
]
=======
>>>>>>> main
