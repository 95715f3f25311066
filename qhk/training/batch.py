"""The batch: one step's prompts, and all that becomes of them on the way to a gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from qhk.objective.aggregate import Counts
from qhk.policy.prompt import EncodedPrompt
from qhk.rewards.batch import ScoredGroup
from qhk.rollout.decode import Group
from qhk.types import Completion, Example


def _no_rows() -> Tensor:
    return torch.zeros(0, 0, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's prompts. Each part of the step fills the next fields; those still to come are empty.

    Of B prompts in a step, this process has b; G completions are sampled for each. What is heavy stays with
    the process that owns it, what is compared is gathered, so that every process knows it alike.

    Planned (``inputs.plan``), b each:
        ``indices``      place among the B prompts of the step, in any order
        ``tasks``        name of the task that the prompt belongs to
        ``examples``     the example that it shows
        ``epochs``       in which pass over its set
        ``twin_factor``  in [0, 1], how far the strengths of degraded twins have risen at this step; None
                         where it looks at none
    Read from disk (``inputs.load``), b each:
        ``prompts``      ids, positions and pixels
        ``degraded``     the same prompts on the degraded twins; empty where no term looks at them
        ``answers``      token ids of the answers taught; empty where the policy is not supervised
    Sampled (``step.sample``), b each:
        ``features``     (image tokens, hidden) of a vision tower that is frozen, or of one that learns where
                         the first update goes on from them, with gradient; else empty
        ``groups``       token ids of the completions and the log-probabilities they were sampled with
        ``completions``  their texts and what the task's parser reads in them
    Rewarded (``step.reward``), of all processes, in the order of the indices:
        ``all_tasks``    (B,) names
        ``scored``       (B,) opinion and scores of a group; None where its example has no score
        ``rewards``      (B, G) weighted sums of the terms of each group's task, without a KL
        ``term_weights`` by task, of its terms, by their names in ``breakdown``
        ``missing_rewards``  (B, G) bool by those names: to which completions a service gave no reward
        ``breakdown``    (B', G) by reward term, unweighted, over the groups of its task; the name is
                         ``task.term`` where a run holds several tasks
    Refilled (``step.refill``), over all processes:
        ``num_rounds``, ``num_resampled``  rounds of dynamic sampling, and prompts sampled in them
        ``missing_replaced``  by the same names, completions without a reward among groups that gave way
    With advantages (``step.add_advantages``), of all processes:
        ``scores``       (B, G) as parsed, NaN where no number was
        ``weights``      (B,) uncertainty weights
        ``advantages``   (B, G) already times the weight
        ``loss_mask``    (B, G) bool: whose tokens enter the loss
        ``counts``       completions and tokens that the loss divides by
        ``num_tokens``   of all completions
        ``variances``    to be remembered of each image, by its key
    With the places of answers (``step.find_answers``), b x G:
        ``answer_masks`` (tokens,) bool: which tokens stand in the answer; empty where no term asks
    With their covariances (``step.select_tokens``), b x G:
        ``selected``     (tokens,) bool: which tokens take most entropy away; empty where no term asks
    """

    indices: Sequence[int]
    tasks: Sequence[str]
    examples: Sequence[Example]
    epochs: Sequence[int]
    twin_factor: float | None = 1.0

    prompts: Sequence[EncodedPrompt] = ()
    degraded: Sequence[EncodedPrompt] = ()
    answers: Sequence[Tensor] = ()

    features: Sequence[Tensor] = ()
    groups: Sequence[Group] = ()
    completions: Sequence[Sequence[Completion]] = ()

    all_tasks: Sequence[str] = ()
    scored: Sequence[ScoredGroup | None] = ()
    rewards: Tensor = field(default_factory=_no_rows)
    breakdown: Mapping[str, Tensor] = field(default_factory=dict)
    term_weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    missing_rewards: Mapping[str, Tensor] = field(default_factory=dict)

    num_rounds: int = 0
    num_resampled: int = 0
    missing_replaced: Mapping[str, int] = field(default_factory=dict)

    scores: Tensor = field(default_factory=_no_rows)
    weights: Tensor = field(default_factory=_no_rows)
    advantages: Tensor = field(default_factory=_no_rows)
    loss_mask: Tensor = field(default_factory=_no_rows)
    counts: Counts = Counts(sequences=1, tokens=0)
    num_tokens: int = 0
    variances: Mapping[str, float] = field(default_factory=dict)

    answer_masks: Sequence[Sequence[Tensor]] = ()
    selected: Sequence[Sequence[Tensor]] = ()

    def __len__(self) -> int:
        """Return the number b of this process's prompts."""
        return len(self.indices)

    def rows_of(self, task: str) -> list[int]:
        """Return the groups of a task among all B."""
        return [row for row, name in enumerate(self.all_tasks) if name == task]

    def select(self, places: Sequence[int]) -> Batch:
        """Return the prompts at these places of this process, as far as they have come before rewards."""
        return Batch(
            twin_factor=self.twin_factor,
            **{name: [values[place] for place in places] for name, values in self._per_prompt().items()},  # type: ignore[arg-type]
        )

    def in_order(self, places: Sequence[int]) -> Batch:
        """Return this batch with all prompts of this process in another order; what is gathered stays."""
        return self.with_prompts(range(len(self)), self.select(places))

    def with_prompts(self, places: Sequence[int], fresh: Batch) -> Batch:
        """Return this batch with ``fresh`` prompts at these places of this process; rewards stay."""
        columns = {name: list(values) for name, values in self._per_prompt().items()}
        for name, values in fresh._per_prompt().items():
            for place, value in zip(places, values, strict=True):
                columns[name][place] = value
        return replace(self, **columns)  # type: ignore[arg-type]

    def _per_prompt(self) -> dict[str, Sequence[object]]:
        """The fields that hold one value per prompt of this process, and are filled."""
        names = (
            *("indices", "tasks", "examples", "epochs", "prompts", "degraded", "answers"),
            *("features", "groups", "completions"),
        )
        return {name: self.__dict__[name] for name in names if len(self.__dict__[name])}
