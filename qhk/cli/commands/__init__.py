"""The commands, a file each: ``qhk data check`` is ``data_check.py``, with its keys, its help and its run.

These files are imported to print the help, so what takes long to import is imported where a command runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from qhk.cli.command import AnyCommand
from qhk.cli.commands import (
    data_build,
    data_check,
    data_degrade,
    data_filter,
    data_review,
    data_strengthen,
    doctor,
    evaluate,
    export,
    report,
    runs_compare,
    runs_list,
    score,
    sweep_cancel,
    sweep_logs,
    sweep_resume,
    sweep_status,
    train,
)

_MODULES = (
    train, evaluate, score, export, report,
    runs_list, runs_compare,
    data_check, data_degrade, data_filter, data_review, data_strengthen, data_build,
    sweep_status, sweep_cancel, sweep_resume, sweep_logs,
    doctor,
)  # fmt: skip

COMMANDS: Mapping[str, AnyCommand] = {
    module.__name__.rpartition(".")[2].replace("_", " "): module.COMMAND for module in _MODULES
}
"""Every command by its words, in the order of the help. Two words: the first one is a family, as ``data``."""
