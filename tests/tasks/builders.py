"""Tasks for tests, of every form and rule."""

from __future__ import annotations

from qhk.tasks import Task, find_form, form_names
from qhk.types import Answer

EVERY_RULE = [(form, rule) for form in form_names() for rule in find_form(form).rules]


def task_of(form: str, rule: str, *, low: float = 1.0, high: float = 5.0) -> Task:
    return find_form(form)(answer_rule=rule, low=low, high=high)


def parse_answer(text: str, *, form: str, rule: str) -> Answer:
    return task_of(form, rule).parse(text)
