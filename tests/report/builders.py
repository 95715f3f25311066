"""Run directories made of random numbers: SYNTHETIC, with known differences between methods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from qhk.evaluation.measure import measure_predictions
from qhk.evaluation.predictions import Prediction, append_predictions, predictions_path
from qhk.evaluation.results import VALUE, Moment, update_results
from qhk.files import append_json_lines
from qhk.tasks import find_form

STEPS = 20


def images(benchmark: str, *, references: int = 12, copies: int = 5) -> list[dict[str, Any]]:
    """Return the images of a synthetic benchmark: opinions, references, distortions and levels."""
    rng = np.random.default_rng(sum(benchmark.encode()))
    return [
        {
            "id": f"{reference:02d}_{level}.png",
            "mos": float(np.clip(4.5 - 0.6 * level + rng.normal(0, 0.4), 1, 5)),
            "reference": f"I{reference:02d}",
            "distortion": ("blur", "noise")[reference % 2],
            "level": float(level + 1),
        }
        for reference in range(references)
        for level in range(copies)
    ]


def predict(
    benchmark: str, *, noise: float, seed: int, method: int, samples: int = 4, references: int = 12
) -> list[Prediction]:
    """Return predictions that err by ``noise``, with likings of the method's own for references."""
    likings = np.random.default_rng((method, sum(benchmark.encode()))).normal(0, noise / 2, 100)
    rng = np.random.default_rng((seed, method, sum(benchmark.encode())))
    found = []
    for image in images(benchmark, references=references):
        spread = 0.2 + noise * rng.uniform(0, 1)
        center = image["mos"] + likings[int(image["reference"][1:])] + rng.normal(0, noise)
        scores = [float(np.clip(center + rng.normal(0, spread), 1, 5).round(2)) for _ in range(samples)]
        mean = round(sum(scores) / samples, 9)
        texts = tuple(f"<think>It looks {image['distortion']}.</think><answer>{s}</answer>" for s in scores)
        found.append(
            Prediction(**image, score=mean, clipped=mean, samples=tuple(scores), out_of_range=0, texts=texts)
        )
    return found


def write_run(
    root: Path,
    method: str,
    seed: int,
    *,
    noise: float,
    config: Mapping[str, Any],
    benchmarks: tuple[str, ...] = ("koniq", "kadid"),
    state: str = "done",
    cause: str = "",
    study: str = "study",
    references: int = 12,
    num_resamples: int = 50,
    seen: tuple[str, ...] | None = None,
) -> Path:
    """Return a run directory with everything that a finished run leaves but for checkpoints."""
    directory = root / study / method / f"seed{seed}"
    directory.mkdir(parents=True)
    number = sum(method.encode())
    (directory / "config.yaml").write_text(yaml.safe_dump({"version": 2, "seed": seed, **config}))
    (directory / "run_id").write_text(f"{number:012d}\n")
    write_status(directory, state=state, cause=cause)
    rng = np.random.default_rng((seed, number))
    for step in range(1, STEPS + 1):
        values = {
            "train/reward/total/mean": 0.3 + 0.4 * step / STEPS + rng.normal(0, 0.03),
            "train/loss": 0.1 / step,
        }
        append_json_lines(directory / "metrics.jsonl", [{"step": step, "section": "train", **values}])
    if state != "done":
        (directory / "run.log").write_text(
            "starting\nTraceback (most recent call last):\nRuntimeError: loss is NaN\n"
        )
        return directory
    for benchmark in benchmarks:
        for moment, step, worse in ((Moment.BEFORE, 0, 0.6), (Moment.AFTER, STEPS, 0.0)):
            predictions = predict(
                benchmark, noise=noise + worse, seed=seed, method=number, references=references
            )
            path = predictions_path(directory, step=step, before=False, readout="mean4", benchmark=benchmark)
            append_predictions(path, predictions)
            row = measure_predictions(
                predictions,
                task=find_form("score"),
                benchmark=benchmark,
                split="test",
                protocol="whole set",
                miniature=True,
                step=step,
                moment=moment,
                readout="mean4",
                num_resamples=num_resamples,
                confidence=0.95,
                seed=0,
            )
            row = replace(row, seen=None if seen is None else benchmark in seen)
            update_results(
                directory / "results.json", seed=seed, run_id="0", wall_times={"training": 60.0}, rows=[row]
            )
    return directory


def write_scorer(
    root: Path, folder: str, *, noise: float, scorer: Mapping[str, Any], benchmarks: tuple[str, ...]
) -> Path:
    """Return a folder of ``qhk evaluate`` with another scorer than a policy."""
    directory = root / "evaluations" / folder
    directory.mkdir(parents=True)
    config = {"version": 2, "seed": 0, "scorer": dict(scorer)}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    for benchmark in benchmarks:
        predictions = predict(benchmark, noise=noise, seed=0, method=1, samples=1)
        path = predictions_path(directory, step=0, before=False, readout=VALUE, benchmark=benchmark)
        append_predictions(path, predictions)
        row = measure_predictions(
            predictions,
            task=find_form("score"),
            benchmark=benchmark,
            split="test",
            protocol="whole set",
            miniature=True,
            step=0,
            moment=Moment.AFTER,
            readout=VALUE,
            num_resamples=50,
            confidence=0.95,
            seed=0,
            on_scale=False,
        )
        update_results(directory / "results.json", seed=0, run_id=folder, wall_times={}, rows=[row])
    return directory


def write_status(directory: Path, *, state: str, cause: str) -> None:
    status = {
        "state": state, "cause": cause, "step": STEPS, "total_steps": STEPS, "srcc": 0.5,
        "heartbeat": "2026-01-01T00:00:00+00:00", "pid": 1, "pid_started": 0, "host": "h", "machine": "",
        "slurm_job": None,
    }  # fmt: skip
    (directory / "status.json").write_text(json.dumps(status))


def module_config(*, uncertainty: bool, perception: bool) -> dict[str, Any]:
    """Return the parts of a config that the modules of Q-Hawkeye differ in."""
    return {
        "uncertainty": {"form": "linear", "alpha": 0.5} if uncertainty else {"form": "none"},
        "perception": {"form": "kl", "gamma": 0.02, "eta": 0.001} if perception else {"form": "none"},
        "objective": {"beta": 0.001},
    }


def write_modules(root: Path, *, seeds: int = 3) -> Path:
    """Return a study of four cells: uncertainty lowers the noise clearly, perception does nothing."""
    for method, uncertainty, perception in (
        ("full", True, True),
        ("without_uncertainty", False, True),
        ("without_perception", True, False),
        ("grpo_baseline", False, False),
    ):
        for seed in range(seeds):
            write_run(
                root,
                method,
                seed,
                noise=0.4 if uncertainty else 0.9,
                config=module_config(uncertainty=uncertainty, perception=perception),
            )
    return root / "study"
