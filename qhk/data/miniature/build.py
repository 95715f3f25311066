"""Builds the miniature sets once per (generator code, seed, size) and keeps them in a cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from qhk.data.miniature.layouts import WRITERS
from qhk.data.miniature.recipes import RECIPES
from qhk.data.miniature.tasks import TASK_SETS
from qhk.data.seeds import stream_generator
from qhk.errors import UserError
from qhk.files import new_folder

MARKER = "MINIATURE"
"""File that every generated set carries, so that it can never be taken for the real one."""

SETS: tuple[str, ...] = tuple(RECIPES)

Progress = Callable[[int, int], None]


def ensure_miniature(cache: Path, *, seed: int, size: int, progress: Progress) -> Path:
    """Return the folder of the eight sets (one sub-folder per name in ``SETS``), built where missing.

    ``seed`` >= 0 chooses contents, distortions and raters; ``size`` is the side in pixels, a multiple
    of 8, at least 32. ``progress(done, total)`` is called per picture, over all sets that are missing.
    Each set is written under a temporary name and renamed, so an interrupted build leaves nothing
    half done and concurrent builds do not meet. The folder name contains a digest of the generator's
    source, the seed and the size. Raises ``UserError`` on a size that cannot be drawn.
    """
    missing = [name for name in SETS if not (miniature_folder(cache, seed=seed, size=size) / name).is_dir()]
    total, before = sum(RECIPES[name].count for name in missing), 0
    for name in missing:

        def report(done: int, _of: int, start: int = before) -> None:
            progress(start + done, total)

        ensure_miniature_set(name, cache, seed=seed, size=size, progress=report)
        before += RECIPES[name].count
    return miniature_folder(cache, seed=seed, size=size)


def ensure_miniature_set(name: str, cache: Path, *, seed: int, size: int, progress: Progress) -> Path:
    """Return the folder of one set, of the eight or of ``TASK_SETS``, which is built where missing.

    See ``ensure_miniature``; a set for another task reports progress per item.
    """
    if name not in RECIPES and name not in TASK_SETS:
        known = ", ".join([*SETS, *TASK_SETS])
        raise UserError(f"no miniature set is called {name!r}: choose one of {known}")
    folder = task_folder if name in TASK_SETS else miniature_folder
    target = folder(cache, seed=seed, size=size) / name
    if target.is_dir():
        return target
    with new_folder(target) as work:
        _write_set(name, work, seed=seed, size=size, progress=progress)
    return target


def miniature_folder(cache: Path, *, seed: int, size: int) -> Path:
    """Return where the eight sets of this generator, seed and size live below ``cache``; create nothing."""
    return cache / f"miniature-{_key('*.py', seed=seed, size=size)}"


def task_folder(cache: Path, *, seed: int, size: int) -> Path:
    """Return where the sets for other tasks live: apart, so that changing them leaves the eight alone."""
    return cache / f"miniature-tasks-{_key('**/*.py', seed=seed, size=size)}"


def _key(sources: str, *, seed: int, size: int) -> str:
    """Digest of the generator's source, seed and size: a changed generator never reads an older cache."""
    if size < 32 or size % 8:
        raise UserError(f"size of a miniature picture must be a multiple of 8 and at least 32, got {size}")
    if seed < 0:
        raise UserError(f"generator_seed of a miniature set must be >= 0, got {seed}")
    files = sorted(Path(__file__).parent.glob(sources))
    source = hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()
    return hashlib.sha256(source + f"{seed}/{size}".encode()).hexdigest()[:12]


def _write_set(name: str, root: Path, *, seed: int, size: int, progress: Progress) -> None:
    count = TASK_SETS[name].count if name in TASK_SETS else RECIPES[name].count
    if name in TASK_SETS:
        TASK_SETS[name].write(root, seed, size, lambda done: progress(done, count))
    else:
        stimuli = []
        for done, stimulus in enumerate(RECIPES[name].draw(seed, size), start=1):
            stimuli.append(stimulus)
            progress(done, count)
        WRITERS[name](root, stimuli, stream_generator(seed, "miniature", name, "raters"))
    note = {
        "set": name,
        "pictures": count,
        "seed": seed,
        "size": size,
        "note": "Synthetic. Procedural pictures with simulated raters in the layout of the set it is named "
        "after. No picture or score comes from the real set, and no number measured here refers to it.",
    }
    (root / MARKER).write_text(json.dumps(note, indent=2) + "\n")
