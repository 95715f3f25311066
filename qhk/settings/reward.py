"""Settings of what a completion earns."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator

from qhk.errors import UserError
from qhk.settings.base import Node, Positive, Schedule


class RewardTermSettings(Node):
    """One reward term: the dotted path of a function, its weight, and its keyword arguments."""

    model_config = ConfigDict(extra="allow", populate_by_name=False)

    target: Annotated[str, Field(alias="_target_", pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
    weight: Positive

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the term's function."""
        return dict(self.model_extra or {})


class RewardSettings(Node):
    """Named reward terms; the names become metric names.

    ``schedules`` multiply numbers of terms over the run, by term and key: a weight, or a number that the
    term's function takes, such as a threshold that narrows.
    """

    terms: Annotated[dict[str, RewardTermSettings], Field(min_length=1)]
    schedules: dict[str, dict[str, Schedule]] = {}

    @property
    def scheduled(self) -> dict[str, Schedule]:
        """The schedules by ``term.key``."""
        return {f"{name}.{key}": one for name, keys in self.schedules.items() for key, one in keys.items()}

    @model_validator(mode="after")
    def _schedules_have_a_number(self) -> Self:
        for place, schedule in self.scheduled.items():
            name, _, key = place.rpartition(".")
            term = self.terms.get(name)
            value = None if term is None else term.weight if key == "weight" else term.arguments.get(key)
            if not isinstance(value, int | float) or isinstance(value, bool):
                known = ", ".join(
                    f"{name}.{key}"
                    for name, one in self.terms.items()
                    for key, number in {"weight": one.weight, **one.arguments}.items()
                    if isinstance(number, int | float) and not isinstance(number, bool)
                )
                raise UserError(f"schedules.{place} must name a number of a term, one of {known}")
            reaches_zero = schedule.final == 0 and schedule.until is not None
            reaches_zero |= schedule.final == 0 and schedule.form != "constant"
            warms_from_zero = schedule.warmup_from == "zero" and (
                schedule.warmup.steps or schedule.warmup.epochs
            )
            if key != "weight" and (reaches_zero or warms_from_zero):
                raise UserError(
                    f"schedules.{place} must stay above 0, got final {schedule.final:g} and warmup_from "
                    f"{schedule.warmup_from}; only a weight may be 0"
                )
        return self

    @property
    def specs(self) -> dict[str, dict[str, Any]]:
        """The terms as plain data, by name: what they are built from."""
        return {name: term.model_dump(by_alias=True) for name, term in self.terms.items()}
