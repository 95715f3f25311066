"""What samples in a run: the policy, or vLLM beside it, started for the longest prompt that the run has."""

from __future__ import annotations

from collections.abc import Sequence

from qhk.data.prompts import with_times
from qhk.policy.load import Policy
from qhk.rollout.engine import PolicyEngine, RolloutEngine
from qhk.rollout.installed import refuse, too_short
from qhk.settings.root import Settings
from qhk.settings.views import task_views
from qhk.training.inputs import build_readers
from qhk.training.run import Run

LATE_S = 99999.9
"""A time whose words are as long as any video's."""


def check_engine(run: Run, policy: Policy) -> None:
    """Raise ``UserError`` where the engine has no room for a prompt with its answer, or is no server of ours.

    A colocated engine is not started for this.
    """
    options = run.settings.rollout.vllm
    if options is None or run.settings.training.learner != "reinforcement":
        return
    if policy.slow_line:
        refuse(
            f"rollout=vllm: {policy.slow_line}, and vLLM is not given its features; choose rollout=default"
        )
    needed, _ = largest_request([stage.settings for stage in run.stages], policy)
    if options.max_model_len is not None and options.max_model_len < needed:
        refuse(too_short(options.max_model_len, needed))
    if options.mode == "server":
        from qhk.rollout.vllm import Server

        Server(options, max_model_len=needed)


def open_engine(run: Run, policy: Policy) -> RolloutEngine:
    """Return the engine of the run, one for all its stages, without the policy's weights."""
    settings, options = run.settings, run.settings.rollout.vllm
    if options is None or settings.training.learner != "reinforcement":
        return PolicyEngine()
    from qhk.rollout.vllm import Colocated, Connection, Server, VllmEngine

    needed, num_pictures = largest_request([stage.settings for stage in run.stages], policy)
    run.processes.wait()  # for the folder, which the first process writes
    connection: Connection
    if options.mode == "server":
        connection = Server(options, max_model_len=needed)
    else:
        alone = policy.base is not None and options.adapter == "alone"
        adapter = settings.adapter
        connection = Colocated(
            weights_folder(run, policy),
            options,
            settings.rollout,
            dtype=settings.model.dtype,
            max_model_len=options.max_model_len or needed,
            num_pictures=num_pictures,
            adapter_rank=adapter.rank if alone and adapter is not None else None,
            processes=run.processes.count,
        )
    return VllmEngine(connection, options)


def weights_folder(run: Run, policy: Policy) -> str:
    """Return where the model is that the run started from: a folder, or a hub id.

    Its shapes and tokenizer are the policy's. Its weights are those that an adapter belongs to.
    """
    if policy.base is not None:
        return policy.base.beside(run.checkpoints.folder / "adapter")
    kept, path = run.checkpoints.path(0), run.settings.model.path
    assert kept.exists() or path is not None
    return str(kept) if kept.exists() else str(path)


def largest_request(stages: Sequence[Settings], policy: Policy) -> tuple[int, int]:
    """Return the tokens of the longest prompt and answer of any task of any stage, and its most pictures.

    A picture counts as many tokens as ``model.max_pixels`` allows it.
    """
    lengths, counts = list[int](), list[int]()
    for settings in stages:
        side = int(policy.image_processor.patch_size) * int(policy.image_processor.merge_size)
        views = task_views(settings)
        for task, reader in build_readers(settings, policy).items():
            for messages in reader.all_messages:
                _, pictures = reader.encoder.count_tokens(messages)
                timed = with_times(messages, [LATE_S] * pictures, form=reader.time_form)
                words, _ = reader.encoder.count_tokens(timed)
                lengths.append(
                    words
                    + pictures * max(1, settings.model.max_pixels // side**2)
                    + views[task].rollout.max_new_tokens
                )
                counts.append(pictures)
    return max(lengths), max(counts)
