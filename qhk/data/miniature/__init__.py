"""Eight small synthetic sets in the official layouts of the real ones, for runs that need no download."""

from qhk.data.miniature.build import (
    MARKER,
    SETS,
    ensure_miniature,
    ensure_miniature_set,
    miniature_folder,
)

__all__ = ["MARKER", "SETS", "ensure_miniature", "ensure_miniature_set", "miniature_folder"]
