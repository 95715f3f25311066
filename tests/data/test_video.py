from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from qhk.data import video as video_module
from qhk.data.datasets import LoadedDataset, load_dataset_entry
from qhk.data.video import (
    FrameSettings,
    frame_seconds,
    frames_on_display,
    pack_frames,
    sample_times,
    video_pictures,
)
from tests.data.conftest import conf_entry, no_progress

SETTINGS = FrameSettings(
    num_global_frames=4, global_columns=2, num_local_frames=3, global_side=None, local_side=None
)


def encode(path: Path, greys: Sequence[int], *, at: Sequence[int] | None = None, codec: str = "ffv1") -> Path:
    """A 40 x 32 video whose frame i is one grey, shown from ``at[i]`` twelfths of a second."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=Fraction(12))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 40, 32, "yuv420p"
        for place, grey in zip(at or range(len(greys)), greys, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((32, 40, 3), grey, np.uint8), format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, 12)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def greys(picture: Path | Image.Image, columns: int = 1) -> list[int]:
    image = picture if isinstance(picture, Image.Image) else Image.open(picture)
    values = np.asarray(image.convert("L"))
    rows = values.shape[0] // 32
    cells = [values[32 * r : 32 * r + 32, 40 * c : 40 * c + 40] for r in range(rows) for c in range(columns)]
    return [round(float(cell.mean())) for cell in cells]


def test_times_are_the_middles_of_equal_parts() -> None:
    assert sample_times(1.0, 9.0, 4) == [2.0, 4.0, 6.0, 8.0]
    assert sample_times(0.0, 6.0, 3) == [1.0, 3.0, 5.0]


def test_the_frame_on_display_is_the_last_one_that_has_begun() -> None:
    assert frames_on_display([0.0, 1.0, 1.5, 4.0], [0.0, 0.9, 1.0, 1.6, 3.9, 9.0]) == [0, 0, 1, 2, 2, 3]
    assert frames_on_display([0.5], [0.1]) == [0]


def test_frames_are_packed_row_by_row() -> None:
    packed = pack_frames([Image.new("RGB", (40, 32), (i, i, i)) for i in range(6)], 3)
    assert packed.size == (120, 64) and greys(packed, 3) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "ffv1"), ("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9")]
)
def test_global_and_local_frames_of_a_real_file(tmp_path: Path, name: str, codec: str) -> None:
    shown = [40 + 8 * i for i in range(17)]
    pictures = video_pictures(encode(tmp_path / name, shown, codec=codec), SETTINGS, cache=tmp_path)
    # The middles of four quarters of 17 frames: 2.1, 6.4, 10.6, 14.9; of three thirds: 2.8, 8.5, 14.2.
    assert greys(pictures[0], 2) == pytest.approx([shown[i] for i in (2, 6, 10, 14)], abs=4)
    assert [greys(path)[0] for path in pictures[1:]] == pytest.approx([shown[i] for i in (2, 8, 14)], abs=4)


def test_frames_are_chosen_by_time_not_by_number(tmp_path: Path) -> None:
    # The fourth frame stands for nine of twelve twelfths.
    path = encode(tmp_path / "a.mkv", [10, 50, 90, 130, 170], at=[0, 1, 2, 3, 12])
    pictures = video_pictures(path, SETTINGS, cache=tmp_path)
    assert greys(pictures[0], 2) == pytest.approx([50, 130, 130, 170], abs=2)
    # The middles of three thirds of 15 twelfths fall on frames that begin at 2, 3 and 12 of them.
    packed, *single = frame_seconds(pictures)
    assert packed is None and single == pytest.approx([2 / 12, 3 / 12, 12 / 12], abs=2e-3)


def test_sides_shrink_and_never_grow(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", range(16))
    small = FrameSettings(
        num_global_frames=4, global_columns=4, num_local_frames=1, global_side=20, local_side=400
    )
    sizes = [Image.open(picture).size for picture in video_pictures(path, small, cache=tmp_path)]
    assert sizes == [(80, 16), (40, 32)]


def test_cache_follows_content_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mkv", range(16))
    first = video_pictures(path, SETTINGS, cache=tmp_path)
    copy = tmp_path / "copy.mkv"
    copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(video_module, "_extract", lambda *args: pytest.fail("decoded"))
    assert video_pictures(path, SETTINGS, cache=tmp_path) == first
    assert video_pictures(copy, SETTINGS, cache=tmp_path) == first
    monkeypatch.undo()
    encode(path, range(30, 46))
    os.utime(path, ns=(1, 1))
    assert video_pictures(path, SETTINGS, cache=tmp_path) != first
    other = FrameSettings(**{**vars(SETTINGS), "num_global_frames": 8})
    assert video_pictures(copy, other, cache=tmp_path)[0] != first[0]
    assert not [path for path in (tmp_path / "frames").iterdir() if path.name.startswith(".")]


def test_a_phone_video_is_turned_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lying:
        rotation = -90

        def to_ndarray(self, format: str) -> np.ndarray:
            pixels = np.zeros((2, 4, 3), np.uint8)
            pixels[0] = 200  # the upper edge as stored
            return pixels

    upright = np.asarray(video_module._upright(Lying()))  # type: ignore[arg-type]
    # A matrix of -90 degrees turns clockwise: what was up is now right.
    assert upright.shape == (4, 2, 3) and upright[:, 1].min() == 200 and upright[:, 0].max() == 0


def truncated(path: Path) -> Path:
    data = encode(path, range(16), codec="libx264").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, r"a\.mp4: no such video file"),
        (lambda path: path.write_bytes(b"") and path or path, r"a\.mp4: not a readable video"),
        (lambda path: path.write_bytes(b"text, not video" * 99) and path, r"a\.mp4: not a readable video"),
        (truncated, r"a\.mp4: not a readable video"),
        (lambda path: encode(path, [9, 9, 9], codec="libx264"), r"a\.mp4: 3 frames, but 4 are asked for"),
    ],
)
def test_unusable_videos_are_one_line(tmp_path: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=message) as caught:
        video_pictures(tmp_path / "a.mp4", SETTINGS, cache=tmp_path)
    assert "\n" not in str(caught.value)


def test_without_the_library_the_fix_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mkv", range(16))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"a\.mkv: no video decoder .*pip install 'qhk\[video\]'"):
        video_pictures(path, SETTINGS, cache=tmp_path)


FOUR = {"num_global_frames": 4, "global_columns": 2}


def load(root: Path, **options: object) -> LoadedDataset:
    entry = conf_entry("video_folder")
    spec = conf_entry(
        "video_folder",
        root=str(root),
        bounds=(0.0, 100.0),
        higher_is_better=True,
        options={
            **entry.options,
            "score_column": "mos",
            "num_global_frames": 4,
            "global_columns": 2,
            **options,
        },
    )
    return load_dataset_entry("video_folder", spec, cache=root / "cache", progress=no_progress)


def test_a_folder_of_videos(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    encode(tmp_path / "videos" / "a.mkv", range(16))
    encode(tmp_path / "videos" / "b.mkv", range(60, 76))
    (tmp_path / "labels.csv").write_text("video,mos,split\na.mkv,20,train\nb,80,test\n")
    loaded = load(tmp_path)
    (train,), (test,) = loaded.examples["train"], loaded.examples["test"]
    assert (train.mos, test.mos) == (1.0, 5.0)
    assert [path.name for path in train.images] == ["global.png", "local_1.png", "local_2.png", "local_3.png"]
    assert greys(test.image, 2)[0] > 55 > greys(train.image, 2)[0]
    (tmp_path / "labels.csv").write_text("video,mos,split\na.mkv,20,train\nc.mkv,80,test\n")
    with pytest.raises(ValueError, match=r"labels\.csv line 3: no image 'c\.mkv' below"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_local_frames": 0}, r"options\.num_local_frames must be a whole number of at least 1, got 0"),
        ({"num_global_frames": 5}, r"options\.num_global_frames must fill rows of options\.global_columns=2"),
        ({"global_side": 0.5}, r"options\.global_side must be a whole number"),
    ],
)
def test_frame_options(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, **options)
