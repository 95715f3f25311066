"""Whether a task's rewards can work at all, tried before any weight is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from qhk.data.targets import Taught, target_text, true_answer
from qhk.errors import UserError
from qhk.rewards.answer import ANSWER_RULES, find_rule
from qhk.rewards.batch import ScoredGroup
from qhk.rewards.compose import batch_values, build_terms, completion_value
from qhk.rewards.format import FORMATS
from qhk.rewards.term import BatchTerm, CompletionTerm
from qhk.rewards.watched import watch
from qhk.settings import Settings, TaskSettings
from qhk.types import Answer, Completion, Example

NUM_OTHERS = 3
"""Further examples that a term is tried with before it is said to pay a constant."""
LONGER = 50
"""Words that a longer reasoning has more, in threes."""
MANY_TOKENS = 100_000
"""More tokens than any limit of a completion."""


def refuse_unfit_rewards(view: Settings, examples: Sequence[Example], *, where: str) -> list[str]:
    """Notes, one line each; ``ValueError`` where a reward term cannot work with the task that it belongs to.

    ``view`` are the settings of one task of one stage, ``examples`` its training examples, ``where`` what
    stands before a key in a message. The true answer of the first example whose answer the task's rule reads
    is written as the cold start would write it (inline, and with every tag on a line of its own), parsed, and
    given to every term. A term does not fit

    - that raises;
    - of ``qhk.rewards.format``, that pays nothing for any way of writing that the rule reads;
    - of this package, that looks, of the answer, at nothing but what a true one lacks, and always pays the
      same (``_always_pays``). A user's reward that seems to do so is noted, not refused: it may turn on what
      is not tried here.

    So every function, a user's too, is called while a run is loaded: one that judges completions with this
    one true answer (with others where it looks at what is lacking), one that compares groups once, with as
    many groups of true answers as a step holds prompts. No other call is made, and nothing of it enters the
    run.
    """
    example, texts = _readable_truth(view, examples, where)
    notes = []
    for term in build_terms(view.reward.specs):
        try:
            misfit = (
                _compares(term, view, examples)
                if isinstance(term, BatchTerm)
                else _judges(term, view, [example, *examples[:NUM_OTHERS]], texts)
            )
        except ValueError as error:
            raise _unfit(term.name, view, where, _reason(error)) from error
        if misfit and not view.reward.terms[term.name].target.startswith("qhk."):
            notes.append(f"note: {where}reward.terms.{term.name}: {misfit}, as far as was tried")
        elif misfit:
            raise _unfit(term.name, view, where, misfit)
    return notes


def _unfit(name: str, view: Settings, where: str, reason: str) -> UserError:
    return UserError(
        f"{where}reward.terms.{name}: does not fit task.form {view.task.form} with answer_rule "
        f"{view.task.answer_rule}: {reason}; choose a reward made for this task, or leave the term out"
    )


def _reason(error: ValueError) -> str:
    """What a term said of itself, without what comes before it and without a fix of its own."""
    cause = error.__cause__
    if cause is None:
        return str(error).partition(": ")[2]
    said = " ".join(str(cause).split())
    if type(cause) in (ValueError, UserError):
        return said.partition(";")[0]
    return f"raised {type(cause).__name__}: {said} for a true answer"


def _readable_truth(view: Settings, examples: Sequence[Example], where: str) -> tuple[Example, list[str]]:
    """The first example whose true answer the rule reads, and that answer, inline and on lines."""
    reason = text = ""
    for example in examples:
        text = _true_text(view, example)
        answer = _parse(view.task, text)
        if answer.parsed:
            return example, [text, _on_lines(text)]
        reason = answer.reason
    raise UserError(
        f"{where}task.answer_rule: {view.task.answer_rule} reads none of the true answers, such as {text!r} "
        f"({reason}); choose a rule, or a data set, that belongs to this task"
    )


def _true_text(view: Settings, example: Example, *, rule: str | None = None) -> str:
    truth: Taught = true_answer(example, form=view.task.form)
    return target_text(
        truth,
        form=view.task.form,
        rule=view.task.answer_rule if rule is None else rule,
        decimals=view.prompt.answer_decimals,
        reasoning=True,
        labels=example.labels,
    )


def _on_lines(text: str) -> str:
    """The same answer with every tag on a line of its own."""
    for tag in ("<think>", "<answer>"):
        text = text.replace(tag, f"{tag}\n")
    return text.replace("</think>", "\n</think>\n").replace("</answer>", "\n</answer>")


def _parse(task: TaskSettings, text: str) -> Answer:
    return find_rule(task.form, task.answer_rule)(text)


def _completion(
    text: str, answer: Answer, *, num_tokens: int | None = None, truncated: bool = False
) -> Completion:
    length = max(1, len(text.split())) if num_tokens is None else num_tokens
    return Completion(text=text, answer=answer, num_tokens=length, truncated=truncated)


def _judges(term: CompletionTerm, view: Settings, examples: Sequence[Example], texts: Sequence[str]) -> str:
    """Why a term that judges completions does not fit; empty where it does. ``texts`` answer the first."""
    inline, example = texts[0], examples[0]
    watched = watch(_parse(view.task, inline))
    first = completion_value(term, _completion(inline, watched), example)
    if _is_format(term):
        ways = [*texts[1:], *_other_writings(view, example)]
        paid = first > 0 or any(
            completion_value(term, _completion(text, _parse(view.task, text)), example) > 0 for text in ways
        )
        return "" if paid else f"no true answer has this form, such as {inline!r}"
    lacking = watched.only_lacking()
    if lacking and _always_pays(term, first, view.task, examples, texts):
        missing = " and ".join(lacking)
        return f"it looks at an answer's {missing}, which a true one lacks, and always pays {first:g}"
    return ""


def _always_pays(
    term: CompletionTerm, first: float, task: TaskSettings, examples: Sequence[Example], texts: Sequence[str]
) -> bool:
    """Whether a term pays the same for all that is tried: no answer, and for each of the examples the true
    texts given and a longer one, each also cut off, and with many tokens. Not so where it raises for one."""
    written = [*texts, "", texts[0].replace("<think>", "<think>" + "and so on " * LONGER)]
    try:
        return all(
            first == completion_value(term, completion, example)
            for text in written
            for answer in (_parse(task, text),)
            for completion in (
                _completion(text, answer),
                _completion(text, answer, truncated=True),
                _completion(text, answer, num_tokens=MANY_TOKENS),
            )
            for example in examples
        )
    except ValueError:
        return False


def _other_writings(view: Settings, example: Example) -> list[str]:
    """The true answer as the other rules of its form would have it, where the task's rule reads it alike."""
    truth = _parse(view.task, _true_text(view, example))
    texts = [_true_text(view, example, rule=rule) for rule in ANSWER_RULES[view.task.form]]
    read = [text for text in dict.fromkeys(texts) if _parse(view.task, text) == truth]
    return [way for text in read for way in (text, _on_lines(text))]


def _is_format(term: CompletionTerm) -> bool:
    return isinstance(term.function, partial) and term.function.func in FORMATS


def _compares(term: BatchTerm, view: Settings, examples: Sequence[Example]) -> str:
    """Empty: a term that compares the groups of a step fits where it does not raise for true answers."""
    size, groups = view.rollout.group_size, []
    for example in examples[: view.training.prompts_per_step]:
        answer = _parse(view.task, _true_text(view, example))
        groups.append(
            ScoredGroup(
                id=example.id,
                dataset=example.dataset,
                mos=example.opinion,
                scores=(answer.score,) * size,
                aspects=(answer.aspects,) * size,
            )
        )
    batch_values(term, groups)
    return ""
