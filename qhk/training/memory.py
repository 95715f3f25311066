"""How much memory one process of a run takes, part by part, from its settings alone: an estimate.

Weights, gradients, moments and the reference stay. On top of them come the activations of an update or the
keys and values of a rollout, whichever is more. Counted are the tensors that the backward pass keeps for each
kind of layer; ``SLACK`` stands for what passes by: temporaries, and holes in the allocator's memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from qhk.policy.shape import Shape, model_shape, picture_patches, prompt_tokens
from qhk.settings.model import AdapterSettings
from qhk.settings.root import Settings

MOMENTS = {"adamw": 8.0, "adamw_stochastic": 8.0, "adamw_8bit": 2 + 8 / 256}
"""Bytes per weight of AdamW's two moments: in float32, or in 8 bits with a float32 scale for 256 of them."""

NF4 = 0.516
"""Bytes per weight in 4 bits, the scales of its blocks quantised as well."""

SLACK = 1.08
"""Measured over estimated, median over the cells of ``make bench-memory``."""

PROCESS = 500 * 2**20
"""Bytes of Python and its libraries, which count where the device is the CPU."""

HEAD_CHUNK = 1024
"""The most positions whose full-vocabulary logits exist at one time."""

HEAD_BYTES = 2**30
"""What those logits may take; where words are many, fewer positions go together.

Each chunk reads the head's weights again: by arithmetic some tenths of a second in a step of a 7B model.
"""

HEAD_TENSORS = {"single": 4, "pair": 12}
"""Tensors (positions, vocabulary) in float32 that the backward pass reads of the head: of one branch with its
entropy, of two with their exact KL."""

HEAD_TILE = 64
"""Positions in a chunk are a multiple of this, which is what kernels divide matrices by."""

PIXEL_COPIES = 3
"""Of the patches in float32: as encoded, as one batch, and as the first layer keeps them."""

CARDS_GIB = (24, 40, 48, 80, 141)
"""Memory of the usual GPUs."""

SPREAD = 4
"""Processes that a model is spread over where a plan speaks of that: the number is not in the settings."""


def head_chunk(vocabulary: int, form: str) -> int:
    """Return how many positions go through the head together: ``form`` is a key of ``HEAD_TENSORS``."""
    positions = HEAD_BYTES // (HEAD_TENSORS[form] * vocabulary * 4)
    return min(HEAD_CHUNK, max(HEAD_TILE, positions // HEAD_TILE * HEAD_TILE))


def goes_on_from_rollout(settings: Settings, *, prompts: int) -> bool:
    """Return whether the first update of a learning vision tower differentiates the features of the rollout.

    They are those that it would compute itself, where one micro-batch is all of a process's ``prompts``: then
    the activations of the tower, which it needs anyway, are kept while completions are decoded. Not where
    rollouts hold whole weights that updates do not, prompts may give way to others, or the branch is computed
    anew.
    """
    together = settings.rollout.decode_batch // settings.rollout.group_size
    return (
        prompts <= min(settings.training.prompts_per_device, together)
        and settings.training.learner == "reinforcement"
        and settings.distributed.form in ("single", "ddp")
        and settings.objective.max_resamples == 0
        and not settings.model.branch_checkpointing
    )


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes of one process by part: ``kept`` throughout, and at the peaks of an update and of a rollout."""

    kept: dict[str, float]
    update: dict[str, float]
    rollout: dict[str, float]

    @property
    def largest(self) -> dict[str, float]:
        """Return all parts at the higher of the two peaks, the largest first."""
        peak = max(self.update, self.rollout, key=lambda parts: sum(parts.values()))
        return dict(sorted((self.kept | peak).items(), key=lambda part: -part[1]))

    @property
    def total(self) -> float:
        """Return the bytes at the higher peak."""
        return sum(self.largest.values())


def memory_plan(
    settings: Settings,
    *,
    answer_tokens: int | None = None,
    on_cpu: bool,
    processes: int = 1,
    card_gib: float = 0.0,
) -> MemoryPlan | None:
    """Return what a process needs; None for a model of unknown size.

    A vLLM beside the policy holds a second copy of the weights and, on a card of ``card_gib``, fills its
    share of that with keys and values; with 0 it has the least that it can sample with.
    Answers have ``answer_tokens``, or as many as their limit (None). ``on_cpu`` adds the process's own.
    ``processes`` matter where the model is spread over them: each keeps its share, and gathers embeddings and
    head in an update, the whole policy in a rollout.
    """
    shape = model_shape(settings.model)
    if shape is None:
        return None
    element = 2 if settings.model.dtype in ("bfloat16", "float16") else 4
    supervised = settings.training.learner == "supervised"
    adapter, frozen = settings.adapter, settings.model.freeze_vision
    if adapter is None:
        learning = shape.weights - (shape.vision + shape.merger if frozen else 0.0)
        kept = {
            "weights": shape.weights * element,
            "gradients": learning * element,
            "moments": learning * MOMENTS[settings.optimizer.form],
        }
        if settings.objective.kl_coef > 0 and not supervised:
            kept["reference"] = shape.weights * element
    else:
        frozen = not (adapter.vision or adapter.merger)
        learning = adapter_size(shape, adapter)
        quantised = shape.text if adapter.form == "qlora" else 0.0
        weights = (shape.weights - quantised) * element + quantised * NF4
        kept = {
            "weights": weights + learning * 4,
            "gradients": learning * 4,
            "moments": learning * MOMENTS[settings.optimizer.form],
        }
    gathered, rest = {}, {}
    form = settings.distributed.form
    divided = {"fsdp2": kept.keys(), "zero2": {"gradients", "moments"}, "zero3": kept.keys()}.get(form, set())
    kept = {name: size / processes if name in divided else size for name, size in kept.items()}
    if form in ("zero2", "zero3"):
        kept["weights that are stepped"] = learning * (element if adapter is None else 4) / processes
    if form in ("fsdp2", "zero3"):
        others = (processes - 1) / processes * element
        gathered = {"gathered embeddings and head": others * (shape.head + shape.embedding)}
        rest = {"gathered weights": others * shape.weights}
    if on_cpu:
        kept["process"] = PROCESS
        kept |= kept_in_memory(settings)
    limit = settings.rollout.max_new_tokens
    tokens = limit if answer_tokens is None else min(limit, answer_tokens)
    lengths = _Lengths(
        shape=shape,
        element=element,
        prompts=settings.training.prompts_per_device,
        group=1 if supervised else settings.rollout.group_size,
        tokens=tokens,
        prompt=prompt_tokens(shape, settings),
        patches=picture_patches(shape, settings),
        checkpointing=settings.model.gradient_checkpointing,
        recomputed=settings.model.branch_checkpointing,
        copies=0 if adapter is None or element == 4 else _copies(shape, adapter),
    )
    twins = settings.looks_at_twins and not supervised
    own = settings.training.prompts_per_step // processes
    if not frozen and goes_on_from_rollout(settings, prompts=own):
        rest = {**rest, "activations of the vision tower": SLACK * lengths.vision()}
    update, rollout = lengths.update(twins, frozen) | gathered, lengths.rollout(settings) | rest
    vllm = settings.rollout.vllm
    if vllm is not None:
        least = shape.weights * element + sum(lengths.rollout(settings).values())
        share = vllm.gpu_memory_utilization * card_gib * 2**30 if card_gib else least
        # With a share that does not hold the weights and some keys, vLLM does not start.
        beside = {"vllm": share if share >= least else math.inf} if vllm.mode == "colocated" else {}
        rollout = rest | beside
        if not vllm.sleep:
            kept, rollout = kept | beside, rest
    return MemoryPlan(kept=kept, update=update, rollout=rollout)


def kept_in_memory(settings: Settings) -> dict[str, float]:
    """Return the most bytes of the machine's own memory that a process keeps from pass to pass, by key."""
    loadings = [settings.loading, *(stage.loading for stage in settings.stages.values() if stage.loading)]
    limits = {
        "keep_encoded": max(loading.keep_encoded for loading in loadings),
        "keep_features": max(loading.keep_features for loading in loadings),
    }
    return {f"loading.{name}": limit * 2.0**20 for name, limit in limits.items() if limit}


def _inputs(shape: Shape) -> dict[str, int]:
    """The width of what each linear layer of the language model reads, by name."""
    wide = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"), shape.hidden)
    return {**wide, "o_proj": shape.queries, "down_proj": shape.mlp}


def _copies(shape: Shape, adapter: AdapterSettings) -> int:
    inputs = _inputs(shape)
    return 4 * sum(inputs[name] for name in adapter.targets)


def adapter_size(shape: Shape, adapter: AdapterSettings) -> float:
    """Return the weights of an adapter's matrices: its rank times the two widths of every adapted layer."""
    narrow, wide = ("k_proj", "v_proj"), ("gate_proj", "up_proj")
    outputs = dict.fromkeys(narrow, shape.kv_width) | dict.fromkeys(wide, shape.mlp)
    outputs["q_proj"] = shape.queries
    inputs = _inputs(shape)
    text = sum(inputs[name] + outputs.get(name, shape.hidden) for name in adapter.targets)
    width, merged = shape.vision_hidden, shape.vision_hidden * shape.merge**2
    widths = shape.layers * text
    if adapter.vision:
        mlp = shape.vision_matrices * (width + shape.vision_mlp)
        widths += shape.vision_layers * (4 * width + 2 * width + mlp)
    if adapter.merger:
        widths += shape.mergers * (2 * merged + merged + shape.hidden)
    return float(adapter.rank * widths)


@dataclass(frozen=True, kw_only=True)
class _Lengths:
    """A micro-batch: ``prompts`` groups of ``group`` completions of ``tokens`` tokens.

    ``copies``: bytes per token and layer that an adapter keeps of what its layers read, in float32.
    """

    shape: Shape
    element: int
    prompts: int
    group: int
    tokens: int
    prompt: float
    patches: float
    checkpointing: bool
    recomputed: bool
    copies: int

    def update(self, twins: bool, frozen: bool) -> dict[str, float]:
        """Return the parts of an update's peak: both branches' activations, once both heads are read.

        With one branch recomputed, those of the other alone are alive then, and its own later.
        """
        branches = 2 if twins else 1
        alive = 1 if self.recomputed else branches
        form = "pair" if twins else "single"
        chunk = head_chunk(self.shape.vocabulary, form)
        positions, tensors = min(chunk, self.prompts * self.group * self.tokens), HEAD_TENSORS[form]
        parts = {
            "activations of the language model": SLACK * alive * self.text(),
            "activations of the vision tower": 0.0 if frozen else SLACK * alive * self.vision(),
            "logits": SLACK * tensors * positions * self.shape.vocabulary * 4,
            "pixels": SLACK * branches * self.pixels(),
        }
        return {name: size for name, size in parts.items() if size}

    def rollout(self, settings: Settings) -> dict[str, float]:
        """Return the parts of a rollout's peak: keys and values of the groups that are decoded together."""
        group = 1 if settings.training.learner == "supervised" else settings.rollout.group_size
        together = max(1, settings.rollout.decode_batch // group)
        together = min(together, settings.training.prompts_per_step)
        width = 2 * self.shape.layers * self.shape.kv_width * self.element
        return {
            "keys and values": SLACK * together * (self.prompt + group * self.tokens) * width,
            "next logits": SLACK * together * group * self.shape.vocabulary * 4,
        }

    def text(self) -> float:
        """Return what the decoder keeps for one branch."""
        row = self.prompts * (self.prompt + self.group * self.tokens)
        shared = 2 * self.prompts * self.prompt * self.shape.kv_width
        own = 2 * self.prompts * self.group * (self.prompt + self.tokens) * self.shape.kv_width
        # Queries, and what attention gave twice, are as wide as the heads.
        heads = 3 * row * (self.shape.queries - self.shape.hidden)
        layer = self.layer(row, self.shape.hidden, shared + own + heads, 4 * self.shape.mlp)
        layer += row * self.copies
        return self.blocks(self.shape.layers, layer, row * self.shape.hidden)

    def vision(self) -> float:
        """Return what the vision tower keeps for one branch."""
        patches, width = self.prompts * self.patches, self.shape.vision_hidden
        # With a gate: gate, activation, up and product; without: what the activation reads and gives.
        mlp = (4 if self.shape.vision_matrices == 3 else 2) * self.shape.vision_mlp
        layer = self.layer(patches, width, 2 * patches * width, mlp)
        return self.blocks(self.shape.vision_layers, layer, patches * width)

    def blocks(self, count: int, layer: float, entry: float) -> float:
        """Return what ``count`` layers keep: all of each, or with checkpointing their input and one layer."""
        return count * entry * self.element + layer if self.checkpointing else count * layer

    def layer(self, tokens: float, hidden: int, keys_and_values: float, mlp: int) -> float:
        """Return the bytes that the backward pass of one layer keeps.

        Two norms keep what they normalised in float32 and their output, in half precision also their input in
        float32. Then come the residual stream before each of them, queries, what attention gave in its order
        and in that of the row, keys and values as it reads them; of the MLP ``mlp`` numbers a token.
        """
        half = self.element == 2
        norms = 2 * tokens * hidden * (4 + self.element + (4 if half else 0))
        return norms + self.element * (tokens * (5 * hidden + mlp) + keys_and_values)

    def pixels(self) -> float:
        """Return the patches of one branch's pictures; a patch has two frames of three colours."""
        return PIXEL_COPIES * self.prompts * self.patches * 6 * self.shape.patch**2 * 4


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change that saves memory: what is written on the command line, and the settings that it gives."""

    words: str
    apply: Callable[[Settings], Settings]


def fitting_changes(settings: Settings, *, gib: float, answer_tokens: int | None) -> list[str]:
    """Return the single changes, as written on a command line, each of which lets the run fit in ``gib``."""
    found = []
    for change in CHANGES:
        changed = change.apply(settings)
        plan = memory_plan(changed, answer_tokens=answer_tokens, on_cpu=False, processes=SPREAD, card_gib=gib)
        if changed != settings and plan is not None and plan.total <= gib * 2**30:
            found.append(change.words)
    return found


def _with(node: str, **values: object) -> Callable[[Settings], Settings]:
    """Return what gives settings with other ``values`` in one node."""

    def apply(settings: Settings) -> Settings:
        return settings.model_copy(update={node: getattr(settings, node).model_copy(update=values)})

    return apply


def _with_vllm(**values: object) -> Callable[[Settings], Settings]:
    """Return what gives settings with other ``values`` for vLLM, the same settings where there is none."""

    def apply(settings: Settings) -> Settings:
        vllm = settings.rollout.vllm
        changed = None if vllm is None else vllm.model_copy(update=values)
        return _with("rollout", vllm=changed)(settings)

    return apply


def _spread(settings: Settings) -> Settings:
    # Weights in 4 bits cannot be divided.
    is_quantised = settings.adapter is not None and settings.adapter.form == "qlora"
    return settings if is_quantised else _with("distributed", form="fsdp2")(settings)


def _eight_bit(settings: Settings) -> Settings:
    is_whole = settings.distributed.form in ("single", "ddp")
    return _with("optimizer", form="adamw_8bit")(settings) if is_whole else settings


def _adapted(settings: Settings) -> Settings:
    return settings.model_copy(update={"adapter": LORA})


def _quantised(settings: Settings) -> Settings:
    # 4-bit weights are published ones, whole in every process, and sampled from by the policy itself.
    is_possible = (
        settings.model.form == "pretrained"
        and settings.cold_start.form == "none"
        and settings.distributed.form in ("single", "ddp")
        and settings.rollout.engine == "policy"
    )
    if not is_possible:
        return settings
    return settings.model_copy(update={"adapter": LORA.model_copy(update={"form": "qlora"})})


def _smaller_pictures(settings: Settings) -> Settings:
    is_possible = settings.model.min_pixels <= 512 * 512
    return _fewer("model", "max_pixels", 512 * 512)(settings) if is_possible else settings


def _fewer(node: str, key: str, number: int) -> Callable[[Settings], Settings]:
    """Return what gives settings with at most ``number`` for one key of a node."""

    def apply(settings: Settings) -> Settings:
        now = getattr(getattr(settings, node), key)
        return settings if now <= number else _with(node, **{key: number})(settings)

    return apply


LORA = AdapterSettings(
    form="lora",
    rank=16,
    alpha=32.0,
    dropout=0.0,
    targets=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    vision=False,
    merger=False,
    lr_factor=10.0,
)
"""What the option of that name gives."""

CHANGES = (
    Change(words="model.gradient_checkpointing=true", apply=_with("model", gradient_checkpointing=True)),
    Change(words="model.branch_checkpointing=true", apply=_with("model", branch_checkpointing=True)),
    Change(words="training.prompts_per_device=1", apply=_with("training", prompts_per_device=1)),
    Change(words=f"distributed=fsdp2 on {SPREAD} processes", apply=_spread),
    Change(words="rollout.vllm.sleep=true", apply=_with_vllm(sleep=True)),
    Change(words="rollout.vllm.gpu_memory_utilization=0.25", apply=_with_vllm(gpu_memory_utilization=0.25)),
    Change(words="optimizer=adamw_8bit", apply=_eight_bit),
    Change(words="model.freeze_vision=true", apply=_with("model", freeze_vision=True)),
    Change(words="adapter=lora", apply=_adapted),
    Change(words="adapter=qlora", apply=_quantised),
    Change(words="rollout.max_new_tokens=256", apply=_fewer("rollout", "max_new_tokens", 256)),
    Change(words="rollout.group_size=4", apply=_fewer("rollout", "group_size", 4)),
    Change(words="model.max_pixels=262144", apply=_smaller_pictures),
    Change(words="objective.kl_coef=0", apply=_with("objective", kl_coef=0.0)),
)
"""In the order of how little they change what is learned."""


def memory_lines(settings: Settings, *, answer_tokens: int, on_cpu: bool) -> list[str]:
    """Return the plan in words: totals with its largest parts, and what would make it fit the usual cards."""
    limit = settings.rollout.max_new_tokens
    plan = memory_plan(settings, answer_tokens=answer_tokens, on_cpu=on_cpu, processes=SPREAD)
    longest = memory_plan(settings, on_cpu=on_cpu, processes=SPREAD)
    if plan is None or longest is None:
        return [f"memory     no estimate: the size of {settings.model.path} is not known"]
    tokens = min(limit, answer_tokens)
    is_alike = settings.distributed.form in ("single", "ddp")
    each = "a process" if is_alike else f"each of {SPREAD} processes"
    lines = [f"memory     about {_gib(plan.total)} {each}, estimated, with answers of {tokens} tokens"]
    if longest.total > plan.total:
        lines[0] += f"; {_gib(longest.total)} where all are as long as allowed ({limit})"
    parts = [f"{name} {_gib(size)}" for name, size in list(plan.largest.items())[:4]]
    lines.append(f"           most of it: {', '.join(parts)}")
    if not on_cpu:
        lines += [
            f"           beside the GPU, up to {_gib(size)} of each process for {key}"
            for key, size in kept_in_memory(settings).items()
        ]
        lines += [f"           {line}" for line in _cards(settings, answer_tokens=answer_tokens)]
    return lines


def _cards(settings: Settings, *, answer_tokens: int) -> list[str]:
    """Return a line for the smallest card that holds the run, and one for each smaller with what helps."""
    lines: list[str] = []
    for gib in CARDS_GIB:
        plan = memory_plan(
            settings, answer_tokens=answer_tokens, on_cpu=False, processes=SPREAD, card_gib=gib
        )
        assert plan is not None
        if plan.total <= gib * 2**30:
            longest = memory_plan(settings, on_cpu=False, processes=SPREAD, card_gib=gib)
            assert longest is not None
            if longest.total <= gib * 2**30:
                return [*lines, f"{gib} GiB: fits"]
            changes = fitting_changes(settings, gib=gib, answer_tokens=None)
            helps = f"; then with {' or '.join(changes)}" if changes else ""
            return [*lines, f"{gib} GiB: fits, but not where all answers are as long as allowed{helps}"]
        changes = fitting_changes(settings, gib=gib, answer_tokens=answer_tokens)
        lines.append(f"{gib} GiB: {' or '.join(changes) if changes else 'no single change is enough'}")
    return lines


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"
