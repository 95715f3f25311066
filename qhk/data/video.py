"""Still pictures of a video: its frames packed into one, and single frames, kept as PNG in a cache folder.

Everything behind this module sees pictures. Frames are chosen by time, so that a variable frame rate
weighs nothing: the i-th of n stands at the middle of the i-th of n equal parts of the duration, and is the
frame on display at that moment.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from qhk.errors import UserError
from qhk.files import file_digest, new_folder, read_json, read_text, write_atomically

if TYPE_CHECKING:
    from av import VideoFrame

_LAYOUT = 2
"""Goes into the cache key: raise it when the same settings are to give other pictures."""


TIMES_FILE = "seconds.json"
"""Beside the pictures of a video: when its single frames are shown."""


@dataclass(frozen=True, kw_only=True)
class FrameSettings:
    """What is taken from a video.

    ``num_global_frames`` frames are packed row by row, ``global_columns`` a row, into the first picture;
    ``num_local_frames`` single frames follow. ``global_side`` and ``local_side`` bound the longer side of
    a frame in pixels (frames are only ever shrunk); None keeps the size.
    """

    num_global_frames: int
    global_columns: int
    num_local_frames: int
    global_side: int | None
    local_side: int | None


def video_pictures(video: Path, settings: FrameSettings, *, cache: Path) -> tuple[Path, ...]:
    """Return the packed picture and the single frames of ``video``, in time order, decoded unless cached.

    They lie below ``cache/frames`` in a folder named by the content of the file and the settings; it is
    written under another name and renamed, so processes that decode the same video do not meet. Raises
    ``UserError`` naming the file when it is missing, broken, empty or has too few frames, or when the
    decoder library is not installed.
    """
    names = ("global.png", *(f"local_{place + 1}.png" for place in range(settings.num_local_frames)))
    key = json.dumps([_LAYOUT, _content_digest(video, cache), asdict(settings)])
    folder = cache / "frames" / hashlib.sha256(key.encode()).hexdigest()[:24]
    if not folder.is_dir():
        pictures, seconds = _extract(video, settings)
        _publish(dict(zip(names, pictures, strict=True)), dict(zip(names[1:], seconds, strict=True)), folder)
    return tuple(folder / name for name in names)


def frame_seconds(pictures: Sequence[Path]) -> tuple[float | None, ...]:
    """Return when each of a video's ``pictures`` is shown, from its first frame on; None for a packed one.

    Nothing where they are no pictures of ``video_pictures``.
    """
    file = pictures[0].parent / TIMES_FILE
    if not file.is_file():
        return ()
    shown = read_json(file)
    return tuple(shown.get(picture.name) for picture in pictures)


def sample_times(start: float, end: float, count: int) -> list[float]:
    """Return the middles of ``count`` equal parts of the time from ``start`` to ``end``, in seconds."""
    return [start + (end - start) * (place + 0.5) / count for place in range(count)]


def frames_on_display(shown_from: Sequence[float], times: Sequence[float]) -> list[int]:
    """Return the index of the frame shown at each of ``times``; ``shown_from`` are the frames' own times."""
    return [max(0, bisect_right(shown_from, time) - 1) for time in times]


def pack_frames(frames: Sequence[Image.Image], columns: int) -> Image.Image:
    """Return one picture of all ``frames`` (of one size, filling the grid), ``columns`` a row."""
    assert len(frames) % columns == 0, (len(frames), columns)
    width, height = frames[0].size
    packed = Image.new("RGB", (columns * width, len(frames) // columns * height))
    for place, frame in enumerate(frames):
        packed.paste(frame, (place % columns * width, place // columns * height))
    return packed


def _extract(video: Path, settings: FrameSettings) -> tuple[list[Image.Image], list[float]]:
    """The packed picture and the single frames, and the seconds at which those are shown."""
    shown_from, end = _frame_times(video)
    needed = max(settings.num_global_frames, settings.num_local_frames)
    if len(shown_from) < needed:
        raise UserError(
            f"{video}: {len(shown_from)} frames, but {needed} are asked for: remove the row, or lower "
            "options.num_global_frames and options.num_local_frames"
        )
    packed, single = (
        frames_on_display(shown_from, sample_times(shown_from[0], end, count))
        for count in (settings.num_global_frames, settings.num_local_frames)
    )
    chosen: dict[int, Image.Image] = {}
    for index, frame in enumerate(_decode(video)):
        if index in {*packed, *single}:
            chosen[index] = _upright(frame)
    grid = [_shrunk(chosen[index], settings.global_side) for index in packed]
    if len({frame.size for frame in chosen.values()}) > 1:
        raise UserError(f"{video}: the size of the frames changes: encode it again at one size")
    pictures = [
        pack_frames(grid, settings.global_columns),
        *(_shrunk(chosen[index], settings.local_side) for index in single),
    ]
    return pictures, [shown_from[index] - shown_from[0] for index in single]


def _frame_times(video: Path) -> tuple[list[float], float]:
    """When each frame is shown first, rising, and when the last one ends; in seconds."""
    times: list[float] = []
    for frame in _decode(video):
        if frame.time is None or (times and frame.time < times[-1]):
            raise UserError(f"{video}: frame {len(times) + 1} has no usable time stamp: encode it again")
        times.append(frame.time)
    if not times:
        raise UserError(f"{video}: no frame can be decoded: replace the file or remove the row")
    last = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    return times, times[-1] + last


def _decode(video: Path) -> Iterator[VideoFrame]:
    """The frames of the first video stream in the order of display."""
    try:
        import av
    except ImportError:
        raise UserError(f"{video}: no video decoder is installed: run pip install 'qhk[video]'") from None
    try:
        with av.open(os.fspath(video)) as container:
            if not container.streams.video:
                raise UserError(f"{video}: no video stream in it: replace the file or remove the row")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield from container.decode(stream)
    except av.error.FFmpegError as error:
        raise UserError(
            f"{video}: not a readable video ({error.strerror}): replace the file or remove the row"
        ) from None


def _upright(frame: VideoFrame) -> Image.Image:
    """The frame as RGB, turned as the file says (phones store theirs lying)."""
    pixels = frame.to_ndarray(format="rgb24")
    return Image.fromarray(np.rot90(pixels, round(frame.rotation / 90)))


def _shrunk(frame: Image.Image, side: int | None) -> Image.Image:
    longest = max(frame.size)
    if side is None or longest <= side:
        return frame
    width, height = (max(1, round(length * side / longest)) for length in frame.size)
    return frame.resize((width, height), Image.Resampling.LANCZOS)


def _content_digest(video: Path, cache: Path) -> str:
    """sha256 of the file; remembered by place, size and time of change, since videos are large."""
    if not video.is_file():
        raise UserError(f"{video}: no such video file: correct the path or add the file")
    state = video.stat()
    known_by = f"{video.resolve()}\n{state.st_size}\n{state.st_mtime_ns}"
    memory = cache / "frames" / "digests" / hashlib.sha256(known_by.encode()).hexdigest()[:24]
    if memory.is_file():
        return read_text(memory)
    digest = file_digest(video)
    write_atomically(memory, digest)
    return digest


def _publish(pictures: dict[str, Image.Image], seconds: dict[str, float], folder: Path) -> None:
    with new_folder(folder) as work:
        (work / TIMES_FILE).write_text(json.dumps(seconds), encoding="utf-8")
        for name, picture in pictures.items():
            picture.save(work / name, compress_level=1)
