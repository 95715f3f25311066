"""The policy that ``evaluate`` and ``score`` work with, and the settings that belong to it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from qhk.errors import UserError
from qhk.plain import print
from qhk.policy.load import Policy
from qhk.policy.start import open_policy
from qhk.settings.data import DatasetSettings
from qhk.settings.parse import read_settings
from qhk.settings.root import MixtureSettings, Settings
from qhk.settings.views import stage_at, stage_views
from qhk.training.checkpoint import checkpoint_config, checkpoint_stage, checkpoint_step

OWNED = ("model", "framing", "task", "prompt", "reward")
"""Nodes that come from the checkpoint: what was asked, of which pixels, and how answers are read."""


def policy_settings(
    settings: Settings,
    overrides: Sequence[str],
    *,
    stage: str | None,
    datasets: Mapping[str, DatasetSettings],
) -> Settings:
    """Return the settings as they are for a base model, as ``adopt_checkpoint`` makes them for one."""
    if settings.checkpoint is not None:
        return adopt_checkpoint(settings, overrides, stage=stage, datasets=datasets)
    if stage is not None:
        raise UserError(f"stage={stage}: a base model has no stages; give checkpoint=FOLDER, or leave it out")
    return settings


def adopt_checkpoint(
    settings: Settings,
    overrides: Sequence[str],
    *,
    stage: str | None,
    datasets: Mapping[str, DatasetSettings],
) -> Settings:
    """Return the settings with prompt, parser, task and what is shown of pictures as in the training.

    In a run of several stages, as that one asked it in which the checkpoint was reached, or ``stage``.

    So are the other tasks of a mixture, each with the benchmarks that it was trained beside; where the
    command line speaks of ``mixture``, those that it names, with its benchmarks. Where their sets lie is
    said by ``datasets``, the command's whole catalogue, and by the checkpoint for sets that it has not.

    So are the read-outs and the length of answers, unless the command line speaks of ``evaluation`` or
    ``rollout``: another number of samples is another question, another prompt is a mistake.

    Raises UserError where the folder is no checkpoint of ours, where its run had no such stage, and where
    the command line says otherwise for one of these nodes.
    """
    assert settings.checkpoint is not None
    path = Path(settings.checkpoint)
    if not path.is_dir():
        raise UserError(f"checkpoint: {path} is not a folder; give one such as outputs/.../checkpoints/last")
    trained = stage_settings(trained_settings(path), path, stage=stage)
    _refuse_owned(overrides, path)
    adopted = {node: getattr(trained, node) for node in OWNED}
    said = {override.lstrip("+~").partition("=")[0].partition(".")[0] for override in overrides}
    is_said = bool(said & {"mixture", "benchmark@mixture"})
    adopted["mixture"] = other_tasks(trained, settings if is_said else trained)
    others = {name for part in adopted["mixture"].values() for name in part.benchmark}
    known = {**trained.dataset, **datasets, **settings.dataset}
    adopted["dataset"] = {**{name: known[name] for name in others}, **settings.dataset}
    if "rollout" not in said:
        batch = {"decode_batch": settings.rollout.decode_batch}
        adopted["rollout"] = trained.rollout.model_copy(update=batch)
    if "evaluation" not in said:
        reading = {"readouts": trained.evaluation.readouts, "headline": trained.evaluation.headline}
        adopted["evaluation"] = settings.evaluation.model_copy(update=reading)
    elif "rollout" not in said:
        # Read-outs follow the rollout's length, which has just become the checkpoint's.
        follow, length = settings.rollout.max_new_tokens, trained.rollout.max_new_tokens
        readouts = {
            name: readout.model_copy(update={"max_new_tokens": length})
            if readout.max_new_tokens == follow
            else readout
            for name, readout in settings.evaluation.readouts.items()
        }
        adopted["evaluation"] = settings.evaluation.model_copy(update={"readouts": readouts})
    return settings.model_copy(update=adopted)


def trained_settings(checkpoint: Path) -> Settings:
    """Return the settings of the run that wrote a checkpoint."""
    return read_settings(checkpoint_config(checkpoint))


def stage_settings(run: Settings, path: Path, *, stage: str | None) -> Settings:
    """Return the settings of a stage of the checkpoint's run: the named one, or the checkpoint's own.

    A checkpoint that does not say its stage is placed by its step; one that says neither is of the last.
    Raises UserError where the run had no stage of that name.
    """
    views = {view.name: view.settings for view in stage_views(run)}
    if stage is not None:
        if stage not in views:
            known = f"choose one of {', '.join(views)}" if run.stages else "leave it out, the run had none"
            raise UserError(f"stage={stage}: is no stage of the run that wrote {path}; {known}")
        return views[stage]
    own, step = checkpoint_stage(path), checkpoint_step(path)
    if own is None:
        own = [*views][-1] if step is None else stage_at(run, step)
    return views[own]


def _refuse_owned(overrides: Sequence[str], path: Path) -> None:
    """Raise UserError where an override is about what the checkpoint brings, of any of its tasks."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        node, *inner = key.partition("@")[0].split(".")
        owned = inner[1] if node == "mixture" and len(inner) > 1 else node
        if owned in OWNED:
            raise UserError(
                f"{override}: {owned} comes from the checkpoint's own config ({path}); leave the override out"
            )


def other_tasks(trained: Settings, asked: Settings) -> dict[str, MixtureSettings]:
    """Return the tasks of the checkpoint's mixture that ``asked`` names, with its benchmarks."""
    for name in asked.mixture:
        if name not in trained.mixture:
            known = ", ".join(trained.mixture) or "none"
            raise UserError(
                f"mixture.{name}: is no task of the checkpoint's own (beside its main one: {known}); "
                "leave it out"
            )
    return {
        name: part.model_copy(update={"benchmark": asked.mixture[name].benchmark})
        for name, part in trained.mixture.items()
        if name in asked.mixture
    }


def evaluated_policy(settings: Settings, *, device: str) -> Policy:
    """Return the policy of ``checkpoint``, else the base model. Raises UserError where there is neither."""
    path = settings.model.path if settings.checkpoint is None else settings.checkpoint
    if path is None:
        raise UserError(
            "checkpoint: missing, got null; give a checkpoint folder, "
            "or a base model such as model=qwen2_5_vl_7b"
        )
    policy = open_policy(path, settings.model, device=device)
    if policy.slow_line:
        print(f"qhk: {policy.slow_line}", file=sys.stderr)
    return policy
