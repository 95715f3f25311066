"""How long a set of 10,000 images takes to open, cold and warm, and to decode.

Run it with ``make bench-data`` or ``python -m tests.bench.open_set``. It writes JPEG files of KonIQ's layout
and labels below a temporary folder, opens the set through the adapter that reads the real one, and prints

cold    label files read, images matched, every byte hashed and every header read (what the first run does)
warm    the same, with what is remembered of the files (what every later run does)
touched the same after one file was touched, which is read again
decode  every pixel decoded, by threads, as ``qhk data check`` does

Times of the operating system's own cache are part of all of them: the files were just written.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from qhk.data import inventory
from qhk.data.datasets import load_dataset_entry
from qhk.data.inventory import memory_file, take_inventory
from qhk.settings.data import DatasetSettings

CONF = Path(__file__).parents[2] / "conf" / "dataset" / "koniq.yaml"
SCORES, SETS = "koniq10k_scores_and_distributions.csv", "koniq10k_distributions_sets.csv"


def write_set(root: Path, *, num_images: int, size: tuple[int, int]) -> None:
    """A set in KonIQ's layout: pictures of smooth noise, and scores that mean nothing."""
    folder = root / "1024x768"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    scores, sets = ['"image_name","MOS","SD","MOS_zscore"'], ["image_name,MOS,set"]
    for number in range(num_images):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(
            folder / f"{number}.jpg", quality=90
        )
        scores.append(f'"{number}.jpg",{1 + 4 * number / num_images:.6f},0.5,50')
        sets.append(f"{number}.jpg,50,{'test' if number % 5 == 0 else 'training'}")
    (root / SCORES).write_text("\n".join(scores) + "\n")
    (root / SETS).write_text("\n".join(sets) + "\n")


def seconds(action: Callable[[], object]) -> float:
    """The wall time of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    """Prints one line per way of opening."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--height", type=int, default=768)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "koniq10k", Path(folder) / "cache"
        write_set(root, num_images=arguments.images, size=(arguments.width, arguments.height))
        time.sleep(inventory.SETTLED_S + 0.5)
        values = yaml.safe_load(CONF.read_text())["koniq"]
        values |= {"root": str(root), "protocol": "official", "bounds": tuple(values["bounds"])}
        spec = DatasetSettings(**values)

        def load() -> object:
            return load_dataset_entry(
                "koniq", spec, cache=cache, progress=lambda done, total: None, workers=arguments.workers
            )

        def decode() -> object:
            return take_inventory(
                sorted((root / "1024x768").iterdir()),
                memory=memory_file(cache, root),
                depth="decode",
                near_duplicates=False,
                workers=arguments.workers,
                progress=lambda done, total: None,
            )

        print(
            f"{arguments.images} images of {arguments.width}x{arguments.height}, {arguments.workers} threads"
        )
        print(f"cold    {seconds(load):8.2f} s")
        print(f"warm    {min(seconds(load) for _ in range(3)):8.2f} s")
        (root / "1024x768" / "0.jpg").touch()
        print(f"touched {seconds(load):8.2f} s")
        spent = seconds(decode)
        print(f"decode  {spent:8.2f} s, {arguments.images / spent:.0f} images/s")


if __name__ == "__main__":
    main()
