"""What every settings node shares: frozen, strict, unknown keys refused."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from qhk.errors import UserError

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
MOST = 2**31 - 1
"""The largest count: beyond it lie typing mistakes, and numbers that tensors cannot be indexed by."""

Count = Annotated[int, Field(ge=1, le=MOST)]
Threads = Annotated[int, Field(ge=0, le=1024)]
NumOrZero = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]


def expand_home(text: str) -> str:
    """Return the path with a leading ``~`` or ``~user`` written out. Raises UserError for no user's."""
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise UserError(f"{text}: no home directory of that name; write the path out")
    return path


FileText = Annotated[str, Field(min_length=1), AfterValidator(expand_home)]
"""A file or folder. Like a shell, Python does nothing about ``~`` by itself: it would be a folder's name."""


def one_of(names: Collection[str]) -> AfterValidator:
    """Return the check that a text is one of ``names``, for forms that are listed outside the settings."""

    def check(name: str) -> str:
        if name not in names:
            raise UserError(f"must be one of {', '.join(map(repr, names))}, got {name!r}")
        return name

    return AfterValidator(check)


Scalar = str | int | float | bool | None


class Node(BaseModel):
    """One config node.

    YAML holds the values, so a field has no default; but one that is added within a version of stored configs
    gets a default with which everything is as it was before. So older configs can be read, and keep their
    run ids.
    """

    # Validators are built when they are first used: commands that print a help need none.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        defer_build=True,
    )


class Duration(Node):
    """A length in optimisation steps or in epochs over the training data; exactly one of the two is set."""

    steps: NumOrZero | None
    epochs: NonNegative | None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            steps, epochs = ("null" if value is None else value for value in (self.steps, self.epochs))
            raise UserError(
                f"set one of steps and epochs and the other to null, got steps {steps} and epochs {epochs}; "
                "on the command line e.g. training.duration.steps=null training.duration.epochs=2"
            )
        return self


class Schedule(Node):
    """A factor over training: up from 0 during ``warmup``, then ``form`` down to ``final`` at ``until``.

    ``until: null`` means the end of training. ``warmup_from`` is the number of the first step of a warm-up.
    """

    form: Literal["constant", "linear", "cosine"]
    warmup: Duration
    until: Duration | None
    final: Fraction
    warmup_from: Literal["one", "zero"] = "one"


class Draw(NamedTuple):
    """How completions are sampled: what read-outs may share."""

    num_samples: int
    temperature: float
    max_new_tokens: int


class Readout(Node):
    """How an answer is read from a policy: one greedy answer, or the mean of ``num_samples`` sampled ones.

    ``score`` says which number an answer counts for: the one that is ``written``, or the one ``expected`` in
    its place (see ``qhk.rollout.expected``), which only tasks answered in numbers have.
    """

    num_samples: Count
    temperature: NonNegative
    max_new_tokens: Count
    score: Literal["written", "expected"] = "written"

    @property
    def draw(self) -> Draw:
        """How the read-out samples."""
        return Draw(self.num_samples, self.temperature, self.max_new_tokens)

    @model_validator(mode="after")
    def _greedy_is_one_sample(self) -> Self:
        if self.temperature == 0 and self.num_samples != 1:
            raise UserError(
                f"temperature 0 is greedy, so num_samples must be 1, got {self.num_samples}; "
                "set num_samples to 1 or a temperature above 0"
            )
        return self
