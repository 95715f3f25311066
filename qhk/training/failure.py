"""Why a run failed, in one line."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from qhk.training.run import RunFailure

FULL = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")
"""How libraries that hide the error number say that a disk is full."""

LESS_MEMORY = "lower training.prompts_per_device, rollout.decode_batch or evaluation.batch_images"


def failure_line(error: BaseException, *, directory: Path) -> str:
    """The cause in one line: what happened, where, and what to do about it where that is known."""
    said = " ".join(str(error).split())
    if isinstance(error, RunFailure):
        return said
    if is_full_disk(error):
        return f"the disk is full: {said}; make room below {directory}, then the same command resumes"
    if is_out_of_memory(error):
        kind = "accelerator memory" if "CUDA" in said else "memory"
        return f"out of {kind}: {_first_sentence(said) or 'MemoryError'}; {LESS_MEMORY}"
    if isinstance(error, SystemExit):
        return f"exit was called with {error.code!r} {_place(error)}"
    if isinstance(error, ValueError):
        return said
    return f"{type(error).__name__}: {said} {_place(error)}"


def is_known(error: BaseException) -> bool:
    """Whether the line says all there is to say, so that the terminal need not show the traceback."""
    return isinstance(error, RunFailure) or is_full_disk(error) or is_out_of_memory(error)


def is_full_disk(error: BaseException) -> bool:
    """Whether the error, or one that it came from, is a full disk or an exhausted quota."""
    return any(
        isinstance(cause, OSError)
        and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        or any(words in str(cause) for words in FULL)
        for cause in _causes(error)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error, or one that it came from, is an allocation that failed, on the CPU or elsewhere."""
    return any(
        isinstance(cause, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(cause)
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from or while handling."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")


def _place(error: BaseException) -> str:
    """The innermost place, as ``(file.py line 12)``."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"({Path(frames[-1].filename).name} line {frames[-1].lineno})" if frames else ""
