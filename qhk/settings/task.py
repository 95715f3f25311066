"""Settings of what is asked: task and prompt."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from qhk.errors import UserError
from qhk.settings.base import Node, Text
from qhk.tasks import build_task


class TaskSettings(Node):
    """What is asked of the policy, the rule by which the parser reads its answers, and their range."""

    form: Text
    answer_rule: Text
    low: float
    high: float

    @model_validator(mode="after")
    def _is_a_task(self) -> Self:
        build_task(self)
        if self.low >= self.high:
            raise UserError(f"low must be below high, got {self.low} and {self.high}")
        return self


class PromptSettings(Node):
    """The wording; ``task`` names the task it was written for.

    ``wordings`` are further ways to ask for the same answer: training asks about an image in another way in
    every pass, evaluation in that of ``user`` alone.
    """

    task: Text
    system: str | None
    user: Text
    answer_decimals: Annotated[int, Field(ge=0, le=4)]
    wordings: list[Text] = []

    @property
    def texts(self) -> list[str]:
        """All ways in which training asks, the named one first."""
        return [self.user, *self.wordings]

    @model_validator(mode="after")
    def _wordings_differ(self) -> Self:
        for place, text in enumerate(self.wordings, start=1):
            if text in self.texts[:place]:
                raise UserError(f"wordings: number {place} is there already, or is user; leave it out")
        return self
