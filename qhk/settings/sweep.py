"""Settings of a sweep and of what starts its runs: outside a run's own settings and its identity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from qhk.errors import UserError
from qhk.settings.base import Count, Fraction, Node, NumOrZero, Positive, Scalar, Text
from qhk.settings.problems import validated

CellName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


class ChoiceSettings(Node):
    """A searched key that takes one of some values."""

    choices: Annotated[list[Scalar], Field(min_length=2)]


class RangeSettings(Node):
    """A searched number in [low, high]; ``log`` searches its logarithm, ``whole`` takes whole numbers."""

    low: float
    high: float
    log: bool
    whole: bool

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise UserError(f"low must be below high, got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise UserError(f"low must be above 0 with log, got {self.low:g}")
        return self


class SearchSettings(Node):
    """Values drawn instead of named: ``trials`` cells, of which a round of ``parallel`` is drawn at a time.

    ``bayesian`` (TPE) draws a round from the results of the ones before; ``random`` does not look. What is
    maximised is the best ``metric`` of a run's validation rows, the mean over the sweep's seeds.
    """

    method: Literal["random", "bayesian"]
    trials: Count
    parallel: Count
    seed: NumOrZero
    metric: Annotated[str, Field(pattern=r"^validation/")]
    space: Annotated[dict[str, ChoiceSettings | RangeSettings], Field(min_length=1)]


class SweepSettings(Node):
    """Named cells, each a list of overrides, times seeds; or a search in place of the cells."""

    seeds: Annotated[list[NumOrZero], Field(min_length=1)]
    cells: dict[CellName, list[Text]]
    search: SearchSettings | None = None

    @model_validator(mode="after")
    def _something_to_run(self) -> Self:
        if bool(self.cells) == (self.search is not None):
            raise UserError("set either cells or search, and leave the other at {} or null")
        if len(set(self.seeds)) != len(self.seeds):
            raise UserError(f"seeds must differ from each other, got {self.seeds}")
        return self


class MachineSettings(Node):
    """Peaks of one device, for the estimate of cost; ``efficiency`` is the share of them to count on."""

    name: Text
    compute_tflop_s: Positive
    memory_tb_s: Positive
    efficiency: Fraction


class LocalLauncherSettings(Node):
    """Runs on this machine: ``jobs`` at a time, each of ``processes`` processes.

    ``gpus``: ``auto`` gives every process one of the machine's GPUs (``jobs`` is then bounded by them),
    ``none`` gives no process any, a list names those to use.
    """

    form: Literal["local"]
    jobs: Count
    processes: Count
    gpus: Literal["auto", "none"] | list[NumOrZero]
    grace_s: Positive
    machine: MachineSettings


class SlurmLauncherSettings(Node):
    """Runs as tasks of one SLURM job array, through submitit; names and meanings are submitit's.

    ``wait`` keeps the command until all have ended. ``additional_parameters`` are further sbatch options.
    """

    form: Literal["slurm"]
    wait: bool
    partition: Text | None
    account: Text | None
    qos: Text | None
    constraint: Text | None
    exclude: Text | None
    nodelist: Text | None
    nodes: Count
    tasks_per_node: Count
    gpus_per_node: NumOrZero
    cpus_per_task: Count
    mem_gb: Positive
    timeout_min: Count
    signal_delay_s: Count
    max_num_timeout: NumOrZero
    array_parallelism: Count
    setup: list[Text]
    srun_args: list[Text]
    additional_parameters: dict[str, Scalar]
    machine: MachineSettings

    @model_validator(mode="after")
    def _one_task_per_gpu(self) -> Self:
        if self.gpus_per_node not in (0, self.tasks_per_node):
            raise UserError(
                f"gpus_per_node must be 0 or tasks_per_node {self.tasks_per_node}, got {self.gpus_per_node}; "
                "one task drives one GPU"
            )
        return self


LauncherSettings = LocalLauncherSettings | SlurmLauncherSettings


def parse_sweep(plain: Mapping[str, Any]) -> SweepSettings:
    """Return the typed ``sweep`` node. Raises UserError in one line naming key, value and fix."""
    return validated(SweepSettings, plain, where="sweep.")


def parse_launcher(plain: Mapping[str, Any]) -> LauncherSettings:
    """Return the typed ``hydra.launcher`` node. Raises UserError in one line naming key, value and fix."""
    models: dict[object, type[LauncherSettings]] = {
        "local": LocalLauncherSettings,
        "slurm": SlurmLauncherSettings,
    }
    model = models.get(plain.get("form"))
    if model is None:
        raise UserError("hydra/launcher: must be local or slurm, which start runs and keep their status")
    return validated(model, plain, where="hydra.launcher.")
