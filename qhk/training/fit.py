"""Whether a stage can work: its rewards, and its limit of answers, tried on true answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from qhk.errors import UserError
from qhk.rewards.compose import build_terms
from qhk.rewards.fit import refuse_unfit
from qhk.settings.root import Settings
from qhk.settings.views import StageView, task_views
from qhk.tasks import Task, build_task
from qhk.types import Example


def refuse_unfit_rewards(view: StageView, examples: Mapping[str, Sequence[Example]]) -> None:
    """Raise ``UserError`` where a reward of a task does not fit it, see ``refuse_unfit``.

    ``examples`` are the training examples by task. A supervised stage asks for no reward.
    """
    if view.settings.training.learner != "reinforcement":
        return
    for task, own in task_views(view.settings).items():
        stage = f"stages.{view.name}: " if view.name else ""
        node = "" if task == view.settings.task.form else f"mixture.{task}."
        refuse_unfit(
            build_terms(own.reward.specs),
            build_task(own.task),
            examples[task],
            decimals=own.prompt.answer_decimals,
            group_size=own.rollout.group_size,
            where=f"{stage}{node}",
        )


def refuse_long_answers(
    settings: Settings, examples: Mapping[str, Sequence[Example]], num_tokens: Callable[[str], int]
) -> None:
    """Raise ``UserError`` where not even the shortest true answer fits a limit of new tokens.

    ``examples`` are those of each task, whose answers are tried without any reasoning, in the shortest form
    that the task's rule reads. ``num_tokens`` counts what the policy's tokenizer makes of a text.
    """
    for task, own in task_views(settings).items():
        texts = _shortest_texts(
            build_task(own.task), examples.get(task, ()), decimals=own.prompt.answer_decimals
        )
        if not texts:
            continue
        length, text = min((num_tokens(text), text) for text in texts)
        limits = {
            f"evaluation.readouts.{name}.max_new_tokens": readout.max_new_tokens
            for name, readout in own.evaluation.readouts.items()
        }
        if own.training.learner == "reinforcement":
            limits = {"rollout.max_new_tokens": own.rollout.max_new_tokens, **limits}
        for key, limit in limits.items():
            if length > limit:
                raise UserError(
                    f"{key}: {limit} tokens hold no true answer of task {task}; the shortest, {text!r}, has "
                    f"{length} and an end, so give at least {length + 1}"
                )


def _shortest_texts(task: Task, examples: Sequence[Example], *, decimals: int) -> set[str]:
    """Return the distinct true answers, each in the ways of writing it that the task's rule reads."""
    contents = {task.write(task.true_answer(example), decimals=decimals) for example in examples}
    frames = ("{}", "<answer>{}</answer>", "<think></think><answer>{}</answer>")
    texts = {frame.replace("{}", content) for content in contents for frame in frames}
    return {text for text in texts if task.parse(text).parsed}
