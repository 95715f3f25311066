"""Whether a task's rewards can work at all, tried before any weight is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from qhk.errors import UserError
from qhk.rewards import format as formats
from qhk.rewards.batch import scored_group
from qhk.rewards.term import (
    BatchTerm,
    CompletionsTerm,
    CompletionTerm,
    Judge,
    RewardTerm,
    batch_values,
    completion_value,
    completions_values,
)
from qhk.tasks import Task
from qhk.tasks.answer_parser import THINK_CLOSE
from qhk.types import Answer, Completion, Example

NUM_GROUPS = 3
"""Groups that a term which compares groups is tried with: enough for a triplet of images."""


def refuse_unfit(
    terms: Sequence[RewardTerm],
    task: Task,
    examples: Sequence[Example],
    *,
    decimals: int,
    group_size: int,
    where: str,
) -> None:
    """Raise ``UserError`` where a reward term cannot work with a task.

    ``examples`` are the task's training examples, ``where`` is what stands before a key in the message. The
    first example whose true answer, written as the cold start writes it, the task's rule reads is what every
    term is tried on. A term does not fit

    - that needs a part which the task's answers do not have;
    - that raises for the true answer, or for groups of true answers;
    - of ``qhk.rewards.format``, that pays nothing for any way of writing that the rule reads.

    A function that declares no needs, such as a user's own, is only called. A ``Judge`` is not asked about
    anything: it checks itself.
    """
    example, text = _readable_truth(task, examples, decimals=decimals, where=where)
    compared = [example, *(other for other in examples if other is not example)][:NUM_GROUPS]
    for term in terms:
        lacking = [part for part in term.needs if part not in task.answer_parts()]
        if isinstance(term.function, Judge) and not lacking:
            _check_judge(term.function, f"{where}reward.terms.{term.name}")
            continue
        try:
            if lacking:
                has = " and ".join(task.answer_parts())
                reason = f"it needs an answer's {' and '.join(lacking)}, but a true one has {has} only"
            elif isinstance(term, BatchTerm):
                answers = [task.parse(_written(task, one, decimals)) for one in compared]
                pairs = zip(compared, answers, strict=True)
                batch_values(term, [scored_group(one, [answer] * group_size) for one, answer in pairs])
                reason = ""
            elif isinstance(term, CompletionsTerm):
                completions_values(term, [_completion(task, text)], [example])
                reason = ""
            else:
                value = completion_value(term, _completion(task, text), example)
                paid = value > 0 or not _is_format(term) or _pays_another(term, task, example, decimals)
                reason = "" if paid else f"no true answer has this form, such as {text!r}"
        except UserError as error:
            reason = _reason(error)
        if reason:
            raise UserError(
                f"{where}reward.terms.{term.name}: does not fit task.form {task.form} with answer_rule "
                f"{task.answer_rule}: {reason}; choose a reward made for this task, or leave the term out"
            )


def _check_judge(judge: Judge, where: str) -> None:
    """Raise ``UserError`` as the judge does, with the term's place before it."""
    try:
        judge.check()
    except UserError as error:
        raise UserError(f"{where}.{error}") from error


def _reason(error: UserError) -> str:
    """Return what a term's error says, without the term's name."""
    cause = error.__cause__
    if cause is None or isinstance(cause, UserError):
        return str(error).partition(": ")[2]
    return f"raised {type(cause).__name__}: {' '.join(str(cause).split())} for a true answer"


def _readable_truth(
    task: Task, examples: Sequence[Example], *, decimals: int, where: str
) -> tuple[Example, str]:
    """Return the first example whose true answer the rule reads, and that answer."""
    text, answer = "", Answer(score=None)
    for example in examples:
        text = _written(task, example, decimals)
        answer = task.parse(text)
        if answer.parsed:
            return example, text
    raise UserError(
        f"{where}task.answer_rule: {task.answer_rule} reads none of the true answers, such as {text!r} "
        f"({answer.reason}); choose a rule, or a data set, that belongs to this task"
    )


def _pays_another(term: CompletionTerm, task: Task, example: Example, decimals: int) -> bool:
    """Return whether a term pays for another writing of an example's answer that the task's rule reads alike.

    Tried are the writings of all rules of its form, inline, with every tag on a line of its own, and without
    a think part.
    """
    texts = [_written(replace(task, answer_rule=rule), example, decimals) for rule in task.rules]
    texts += [_on_lines(text) for text in texts] + [text.partition(THINK_CLOSE)[2] for text in texts]
    truth = task.parse(_written(task, example, decimals))
    completions = [_completion(task, text) for text in texts if task.parse(text) == truth]
    return any(completion_value(term, completion, example) > 0 for completion in completions)


def _on_lines(text: str) -> str:
    """Return the same text with every tag on a line of its own."""
    for tag in ("<think>", "<answer>"):
        text = text.replace(tag, f"{tag}\n")
    return text.replace("</think>", "\n</think>\n").replace("</answer>", "\n</answer>")


def _written(task: Task, example: Example, decimals: int) -> str:
    truth = task.true_answer(example)
    return task.text_to_teach(truth, decimals=decimals, reasoning=True, labels=example.labels)


def _completion(task: Task, text: str) -> Completion:
    return Completion(
        text=text, answer=task.parse(text), num_tokens=max(1, len(text.split())), truncated=False
    )


def _is_format(term: CompletionTerm) -> bool:
    return isinstance(term.function, partial) and term.function.func.__module__ == formats.__name__
