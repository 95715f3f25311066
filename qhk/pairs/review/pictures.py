"""The pictures of a pair as a browser gets them: the pixels that training sees, without loss."""

from __future__ import annotations

import io
from pathlib import Path

from qhk.data.image import load_image


def as_png(path: Path) -> bytes:
    """The upright RGB picture as PNG, without colour profile, so that no browser converts its values.

    Lightly compressed: the way is short and a reviewer waits. Raises ``ValueError`` like ``load_image``.
    """
    buffer = io.BytesIO()
    picture = load_image(path)
    picture.info.clear()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
