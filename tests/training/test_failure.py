"""One line per way to fail."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from qhk.training.stop import RunFailure, failure_line, is_known

FULL = "the disk is full: {}; make room below /run, then the same command resumes"
LESS = "lower training.prompts_per_device, rollout.decode_batch or evaluation.batch_images"


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "line", "known"),
    [
        (RunFailure("step 3: loss term\npolicy is nan"), "step 3: loss term policy is nan", True),
        (OSError(errno.ENOSPC, "No space"), FULL.format("[Errno 28] No space"), True),
        (OSError(errno.EDQUOT, "Quota"), FULL.format("[Errno 122] Quota"), True),
        (RuntimeError("I/O error: x (os error 28)"), FULL.format("I/O error: x (os error 28)"), True),
        (chained(RuntimeError("saving"), OSError(errno.ENOSPC, "No")), FULL.format("saving"), True),
        (OSError(errno.EACCES, "denied"), "PermissionError: [Errno 13] denied ", False),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            f"out of accelerator memory: CUDA out of memory; {LESS}",
            True,
        ),
        (MemoryError(), f"out of memory: MemoryError; {LESS}", True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: 4 bytes. Error"),
            f"out of memory: DefaultCPUAllocator: can't allocate memory: 4 bytes; {LESS}",
            True,
        ),
        (ValueError("reward.terms.mine: gave nan"), "reward.terms.mine: gave nan", False),
        (KeyError("x"), "KeyError: 'x' ", False),
    ],
)
def test_line(error: Exception, line: str, known: bool) -> None:
    assert failure_line(error, directory=Path("/run")) == line
    assert is_known(error) is known


def test_an_unknown_error_names_its_place() -> None:
    with pytest.raises(KeyError) as caught:
        {}["length"]
    line = failure_line(caught.value, directory=Path("/run"))
    assert line.startswith("KeyError: 'length' (test_failure.py line ")
