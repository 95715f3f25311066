"""What is remembered of image files, and that nothing stale is ever believed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qhk.data import inventory
from qhk.data.inventory import FileFacts, hash_distance, take_inventory

LONG_AGO = 1_600_000_000


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Three settled pictures: their folder was last written to long before it is looked at."""
    paths = [tmp_path / "set" / f"{name}.png" for name in ("a", "b c", "d\u00e9")]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 30 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


class Reader:
    """Takes inventories and counts the files that were read."""

    def __init__(self, memory: Path) -> None:
        self.memory, self.read = memory, 0

    def take(self, paths: list[Path], **changes: object) -> dict[Path, FileFacts]:
        settings: dict[str, object] = {"depth": "header", "near_duplicates": False, "workers": 0} | changes
        self.read = 0

        def progress(done: int, total: int) -> None:
            self.read = done

        return take_inventory(paths, memory=self.memory, progress=progress, **settings)  # type: ignore[arg-type]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setattr(inventory, "SETTLED_S", -3600.0)  # the pictures were written just now
    return Reader(tmp_path / "cache" / "memory.json")


def test_facts_are_those_of_the_files(pictures: list[Path], reader: Reader) -> None:
    import hashlib

    facts = reader.take(pictures, workers=2)
    assert list(facts) == pictures
    assert [fact.sha256 for fact in facts.values()] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures
    ]
    assert [(fact.width, fact.height) for fact in facts.values()] == [(30, 40), (31, 40), (32, 40)]
    assert {(fact.format, fact.problem, fact.decoded, fact.perceptual_hash) for fact in facts.values()} == {
        ("PNG", None, False, None)
    }
    assert facts[pictures[0]].num_bytes == pictures[0].stat().st_size


def test_a_second_look_reads_nothing(pictures: list[Path], reader: Reader) -> None:
    first = reader.take(pictures)
    assert reader.read == 3
    assert reader.take(pictures) == first
    assert reader.read == 0


def test_changed_touched_added_and_removed_files_are_noticed(pictures: list[Path], reader: Reader) -> None:
    first = reader.take(pictures)
    old = pictures[0].stat()
    content = bytearray(pictures[0].read_bytes())
    content[-20] ^= 1  # the same size ...
    pictures[0].write_bytes(content)
    os.utime(pictures[0], ns=(old.st_atime_ns, old.st_mtime_ns))  # ... and the same time of change
    changed = reader.take(pictures)
    assert reader.read == 1
    assert changed[pictures[0]].sha256 != first[pictures[0]].sha256

    os.utime(pictures[1], (LONG_AGO, LONG_AGO))
    assert reader.take(pictures)[pictures[1]] == first[pictures[1]]
    assert reader.read == 1

    added = pictures[0].with_name("new.png")
    added.write_bytes(pictures[2].read_bytes())
    assert reader.take([*pictures, added])[added].sha256 == first[pictures[2]].sha256
    assert reader.read == 1

    pictures[2].unlink()
    with pytest.raises(ValueError, match=r"d\u00e9\.png: cannot be read"):
        reader.take(pictures)
    other = pictures[0].with_name("other.png")
    added.replace(other)  # another file at a known place
    other.replace(pictures[1])
    assert reader.take(pictures[:2])[pictures[1]].sha256 == first[pictures[2]].sha256
    assert reader.read == 1


def test_a_file_changed_a_moment_ago_is_not_remembered(
    pictures: list[Path], reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "SETTLED_S", 3600.0)
    reader.take(pictures)
    reader.take(pictures)
    assert reader.read == 3


def test_deeper_looks_read_again_and_are_remembered(pictures: list[Path], reader: Reader) -> None:
    reader.take(pictures)
    assert all(fact.decoded for fact in reader.take(pictures, depth="decode").values())
    assert reader.read == 3
    reader.take(pictures)
    reader.take(pictures, depth="decode")
    assert reader.read == 0
    assert all(
        fact.perceptual_hash is not None for fact in reader.take(pictures, near_duplicates=True).values()
    )
    assert reader.read == 3


def test_broken_files_have_a_problem_and_stay_in_the_list(pictures: list[Path], reader: Reader) -> None:
    whole = pictures[0].read_bytes()
    pictures[0].write_bytes(whole[: len(whole) // 2])
    pictures[1].write_bytes(b"")
    header = reader.take(pictures)
    assert header[pictures[0]].problem is None  # the header of a truncated file is whole
    assert (header[pictures[1]].width, header[pictures[1]].format) == (0, "")
    assert "b c.png: not a readable image" in str(header[pictures[1]].problem)
    deep = reader.take(pictures, depth="decode")
    assert "a.png: not a readable image" in str(deep[pictures[0]].problem)
    assert deep[pictures[2]].problem is None
    pictures[0].write_bytes(whole)
    assert reader.take(pictures, depth="decode")[pictures[0]].problem is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 0, "files": {}}', '{"version": 1, "files": {"a": []}}']
)
def test_a_damaged_memory_is_forgotten(pictures: list[Path], reader: Reader, content: str) -> None:
    reader.take(pictures)
    reader.memory.write_text(content)
    reader.take(pictures)
    assert reader.read == 3
    assert len(json.loads(reader.memory.read_text())["files"]) == 3


def test_looks_are_close_for_copies_and_far_for_others(tmp_path: Path, reader: Reader) -> None:
    rng = np.random.default_rng(0)
    paths = []
    for name in ("one", "two"):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((240, 180))
        for quality in (95, 40):
            paths.append(tmp_path / f"{name}{quality}.jpg")
            coarse.save(paths[-1], quality=quality)
    one, one_again, two, two_again = (
        str(fact.perceptual_hash) for fact in reader.take(paths, near_duplicates=True).values()
    )
    assert hash_distance(one, one_again) <= 3 and hash_distance(two, two_again) <= 3
    assert hash_distance(one, two) > 12
