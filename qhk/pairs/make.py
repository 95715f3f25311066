"""Makes one degraded copy on disk. Runs in worker processes, so it loads no model library."""

from __future__ import annotations

import hashlib
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from PIL import Image

from qhk.data.image import load_image
from qhk.files import file_digest, write_bytes_atomically
from qhk.pairs.plan import Plan, copy_name, ordered_kinds
from qhk.pairs.records import DegradationStep
from qhk.pairs.similarity import MadeCopy, calibrated_copy, make_copy

Job = TypeVar("Job")
Done = TypeVar("Done")

AHEAD = 4
"""Jobs in hand per worker: enough to keep them busy, few enough to stop soon."""


@dataclass(frozen=True, kw_only=True)
class CopyJob:
    """One copy to make: of ``source``, going on from ``start`` (the source itself, or an earlier copy).

    ``done`` are the degradations that ``start`` has already; the file goes below ``folder``.
    """

    item: str
    example_id: str
    group_id: str
    source: Path
    start: Path
    done: tuple[DegradationStep, ...]
    folder: Path
    plan: Plan


@dataclass(frozen=True, kw_only=True)
class CopyDone:
    """What became of a job: the written file, or the ``failure`` (one line) and nothing else."""

    job: CopyJob
    failure: str
    path: Path | None = None
    sha256: str = ""
    source_sha256: str = ""
    size: tuple[int, int] = (0, 0)
    degradations: tuple[DegradationStep, ...] = ()
    ssim: float = 0.0


def run_job(job: CopyJob) -> CopyDone:
    """Make the copy and writes its file; a source that cannot be read is a failure, never a stand-in."""
    try:
        str(job.source).encode()
        source = load_image(job.source)
        start = source if job.start == job.source else load_image(job.start)
        source_sha256 = file_digest(job.source)
    except UnicodeEncodeError:
        return CopyDone(job=job, failure=f"{str(job.source)!a}: the name is not UTF-8: rename the file")
    except ValueError as error:
        return CopyDone(job=job, failure=" ".join(str(error).split()))
    made, kind = _degraded(job, source, start)
    if made is None:
        plan = job.plan
        return CopyDone(
            job=job,
            failure=f"{job.source}: no kind of {', '.join(plan.kinds)} reaches SSIM {plan.target} "
            f"within {plan.tolerance}: the picture is too flat, or the target too far",
        )
    calibrated = job.plan.target is not None
    step = DegradationStep(
        type=kind,
        strength=made.strength,
        seed=job.plan.seed,
        level=f"ssim={job.plan.target:g}" if calibrated else job.plan.level,
    )
    degradations = (*job.done, step)
    kinds = [done.type for done in degradations]
    name = copy_name(example_id=job.example_id, group_id=job.group_id, kinds=kinds, extension=made.extension)
    path = job.folder / name
    write_bytes_atomically(path, made.content)
    return CopyDone(
        job=job,
        failure="",
        path=path,
        sha256=hashlib.sha256(made.content).hexdigest(),
        source_sha256=source_sha256,
        size=source.size,
        degradations=degradations,
        ssim=round(made.ssim, 6),
    )


def _degraded(job: CopyJob, source: Image.Image, start: Image.Image) -> tuple[MadeCopy | None, str]:
    """Return the copy and its kind: the first kind, in a seeded order, that reaches the target."""
    plan, version = job.plan, len(job.done) + 1
    used = [done.type for done in job.done]
    stream = (plan.seed, job.group_id, version)
    for kind in ordered_kinds(plan, group_id=job.group_id, version=version, used=used):
        if plan.target is None:
            strength = plan.strengths[kind]
            return make_copy(
                source, start, kind=kind, strength=strength, stream=stream, storage=plan.storage
            ), kind
        made = calibrated_copy(
            source,
            start,
            kind=kind,
            target=plan.target,
            tolerance=plan.tolerance,
            stream=stream,
            storage=plan.storage,
        )
        if made is not None:
            return made, kind
    return None, ""


def in_order(
    function: Callable[[Job], Done], jobs: Iterable[Job], *, workers: int
) -> Generator[Done, None, None]:
    """Return ``function(job)`` for every job, in the order of ``jobs``, whatever ``workers`` is.

    0 workers run in this process. Others are processes that begin from a clean server (no threads of
    ours are forked) and leave Ctrl-C to this one; closing the iterator drops the jobs not begun.
    """
    if workers == 0:
        yield from map(function, jobs)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("forkserver"), initializer=_leave_interrupts)
    waiting: deque[Future[Done]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
