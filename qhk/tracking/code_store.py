"""``outputs/code/<digest>.zip``: a copy of the code of each run, one for all runs of the same code."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from qhk.errors import UserError
from qhk.files import read_bytes, write_bytes_atomically
from qhk.settings.root import Settings
from qhk.settings.views import reward_modules
from qhk.tracking.code import PACKAGE, code_files, files_digest

FOLDER = "code"
"""Below outputs; beside the studies."""

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time of every file in a copy, so that the same code gives the same bytes."""

MAX_BYTES = 64_000_000
"""Of a copy once it is unpacked."""


def stored_code(outputs: Path, digest: str) -> Path:
    """Return where the copy of the code with that digest lies."""
    return outputs / FOLDER / f"{digest}.zip"


def keep_code(settings: Settings) -> str:
    """Keep a copy of all code that a run depends on, and return its digest, that of ``run_code``."""
    return store_files(
        Path(settings.paths.outputs), code_files({PACKAGE.name: PACKAGE}, reward_modules(settings))
    )


def store_files(outputs: Path, files: Mapping[str, bytes]) -> str:
    """Write ``code_files`` below ``outputs`` whole or not at all, unless they are there; return their digest.

    A copy that cannot be read, or is of something else, is replaced.
    """
    digest = files_digest(files, [PACKAGE.name])
    path = stored_code(outputs, digest)
    with suppress(UserError):
        read_code(path)
        return digest
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as copy:
        for place in sorted(files):
            copy.writestr(zipfile.ZipInfo(place, LONG_AGO), files[place], zipfile.ZIP_DEFLATED)
    write_bytes_atomically(path, packed.getvalue())
    return digest


def read_code(path: Path) -> dict[str, bytes]:
    """Return the ``code_files`` in a copy. Raises ``UserError`` where they are not those its name says."""
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path))) as copy:
            if sum(file.file_size for file in copy.infolist()) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            if any(file.compress_type != zipfile.ZIP_DEFLATED for file in copy.infolist()):
                raise ValueError("packed otherwise")
            files = {file.filename: copy.read(file) for file in copy.infolist()}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as fault:
        raise UserError(f"{path} is not a copy of code ({fault}): remove it") from None
    if files_digest(files, [PACKAGE.name]) != path.stem:
        raise UserError(f"{path} holds another code than its name says: remove it")
    return files
