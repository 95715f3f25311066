"""What is asked of a policy: one task owns how its answers are read, taught and measured."""

from qhk.tasks.forms import build_task, find_form, form_names
from qhk.tasks.task import Task

__all__ = ["Task", "build_task", "find_form", "form_names"]
