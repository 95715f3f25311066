"""Any folder of video files with a CSV of scores, seen as pictures (PreResQ-R1's video task).

Columns, range and polarity are given, as for ``folder``. Each video becomes one picture packed from frames
of its whole length and some single frames (``qhk.data.video``). PreResQ-R1 shows three single frames; its
release ships ready-made pictures and neither the packing code nor the number of packed frames, so those
are ours.
"""

from __future__ import annotations

from pathlib import Path

from qhk.data.adapter import VIDEO_ENDINGS, Adapter, Options, text_option
from qhk.data.adapters import folder
from qhk.data.video import FrameSettings, video_pictures
from qhk.errors import UserError

FRAME_OPTIONS = frozenset(
    {"num_global_frames", "global_columns", "num_local_frames", "global_side", "local_side"}
)


def frame_settings(options: Options) -> FrameSettings:
    """Return what is taken from each video; raise ``UserError`` naming an option that cannot be used."""
    frames, columns, local = (
        _count(options, key) for key in ("num_global_frames", "global_columns", "num_local_frames")
    )
    if frames % columns:
        raise UserError(
            f"options.num_global_frames must fill rows of options.global_columns={columns}, got {frames}"
        )
    sides = [
        None if options.get(key) is None else _count(options, key) for key in ("global_side", "local_side")
    ]
    return FrameSettings(
        num_global_frames=frames,
        global_columns=columns,
        num_local_frames=local,
        global_side=sides[0],
        local_side=sides[1],
    )


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``, each entry a tuple of alternatives."""
    frame_settings(options)
    return [(root / text_option(options, "labels"),), (root / text_option(options, "images"),)]


def derive(video: Path, options: Options, cache: Path) -> tuple[Path, ...]:
    """Return the pictures that stand for ``video``: the packed one, then the single frames."""
    return video_pictures(video, frame_settings(options), cache=cache)


def _count(options: Options, key: str) -> int:
    value = options.get(key)
    if type(value) is not int or value < 1:
        raise UserError(f"options.{key} must be a whole number of at least 1, got {value!r}")
    return value


ADAPTER = Adapter(
    layout="a folder of videos (options.images) and a CSV with a header (options.labels)",
    higher_is_better=None,
    protocols=folder.ADAPTER.protocols,
    options=(folder.ADAPTER.options - {"allow_unlabelled"}) | FRAME_OPTIONS,
    expected=expected,
    images=folder.images,
    read_labels=folder.read_labels,
    assign_splits=folder.assign_splits,
    endings=VIDEO_ENDINGS,
    derive=derive,
)
