"""An adapter: low-rank matrices beside the frozen weights of a model that stays of its own class.

peft puts them into the model's linear layers in place, so every forward of ours works as without them, and
the reference needs no second model: it is the same one with the adapter off.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qhk.errors import UserError
from qhk.files import read_json, writing
from qhk.policy.adapter_base import ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE_FILE, Base
from qhk.policy.families import family_of
from qhk.policy.families.family import BLOCKS
from qhk.settings.model import AdapterSettings

LEARNING, START = "default", "start"
"""The adapter that learns, and a frozen copy of it where a later stage is held against its own start."""

PREFIX = "base_model.model."
"""Of every name in an adapter's file: what peft's own model has around the one that it adapts."""


def count_parameters(model: nn.Module) -> dict[str, dict[str, int]]:
    """Return by block how many parameters are trainable and how many there are, an adapter's among them.

    A head that shares the weights of the embedding counts there.
    """
    counts = {block: {"trainable": 0, "total": 0} for block in BLOCKS}
    for name, parameter in model.named_parameters():
        if f".{START}." in name:
            continue
        block = counts[family_of(model).block_of(name)]
        block["total"] += parameter.numel()
        block["trainable"] += parameter.numel() * parameter.requires_grad
    return counts


def adapted_layers(model: nn.Module, settings: AdapterSettings) -> dict[str, list[str]]:
    """Return the names within their block of the linear layers that an adapter goes beside, by block.

    Raises ``UserError`` for a part that the model has no such layers in.
    """
    chosen: dict[str, set[str]] = {"language": set(), "vision": set(), "merger": set()}
    whole = {"vision": settings.vision, "merger": settings.merger}
    for name, module in model.named_modules():
        block, own = family_of(model).block_of(name), name.rpartition(".")[2]
        if isinstance(module, nn.Linear) and (
            own in settings.targets if block == "language" else whole.get(block)
        ):
            chosen[block].add(own)
    wanted = {
        **{f"targets ({name})": name in chosen["language"] for name in settings.targets},
        **{block: bool(chosen[block]) for block, asked in whole.items() if asked},
    }
    for key, found in wanted.items():
        if not found:
            raise UserError(
                f"adapter.{key}: a {type(model).__name__} has no linear layer there; leave it out"
            )
    return {block: sorted(names) for block, names in chosen.items() if names}


def _pattern(model: nn.Module, layers: Mapping[str, Sequence[str]]) -> str:
    """The regular expression by which peft finds the layers of each block."""
    where = family_of(model).linear_places
    places = (f"{where[block]}(?:.*\\.)?(?:{'|'.join(names)})" for block, names in layers.items())
    return f"(?:{'|'.join(places)})"


def put_adapter(model: nn.Module, settings: AdapterSettings, *, seed: int) -> None:
    """Put an adapter into the model, in place: all its weights are frozen, those of the adapter learn.

    A is drawn from ``seed`` and the global random state left as it was; B is zero, so the model computes
    exactly what it did. The adapter's weights are float32 where the model's are narrower: their updates are
    small.
    """
    from peft import LoraConfig

    layers = adapted_layers(model, settings)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft divides it by the rank
        lora_dropout=settings.dropout,
        target_modules=_pattern(model, layers),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed % 2**63)
        _inject(model, config)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (".lora_" in name), name
    rest_dropout(model)


def _inject(model: nn.Module, config: Any, name: str = LEARNING) -> None:
    from peft import inject_adapter_in_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a second one is meant
        inject_adapter_in_model(config, model, adapter_name=name)
    wide = torch.promote_types(model.dtype, torch.float32)  # type: ignore[arg-type]
    for parameter_name, parameter in model.named_parameters():
        if ".lora_" in parameter_name:
            parameter.data = parameter.data.to(wide)


def adapter_layers(model: nn.Module) -> list[Any]:
    """Return the model's layers that have an adapter beside them; none without one."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not hasattr(model, "peft_config"):
        return []
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


@contextmanager
def adapter_dropout(model: nn.Module) -> Iterator[None]:
    """Let the adapter's dropout act inside, and nowhere else.

    It does not follow the model's own mode, which asks for recomputation of activations.
    """
    for layer in adapter_layers(model):
        layer.lora_dropout.train()
    try:
        yield
    finally:
        rest_dropout(model)


def rest_dropout(model: nn.Module) -> None:
    """Switch the adapter's dropout off, also where the model's own mode has just been set."""
    for layer in adapter_layers(model):
        layer.lora_dropout.eval()


@contextmanager
def at_reference(model: nn.Module) -> Iterator[None]:
    """Let the model compute what its reference does: with the adapter's kept start, or with the adapter off.

    A model without an adapter stays as it is: a reference that is a model of its own.
    """
    layers = adapter_layers(model)
    has_start = START in getattr(model, "peft_config", ())
    for layer in layers:
        layer.set_adapter(START, inference_mode=True) if has_start else layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_adapter(LEARNING) if has_start else layer.enable_adapters(True)


def keep_start(model: Any, weights: Mapping[str, Tensor] | None) -> None:
    """Give the model a frozen second adapter to be held against, of ``weights``; None takes it away."""
    if START in model.peft_config:
        for layer in adapter_layers(model):
            layer.delete_adapter(START)
        del model.peft_config[START]
    if weights is None:
        return
    _inject(model, model.peft_config[LEARNING], START)
    _fill(model, weights, START)
    for layer in adapter_layers(model):
        layer.set_adapter(LEARNING)
    rest_dropout(model)


def start_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights of the frozen copy that a later stage is held against; none where there is none."""
    return [parameter for name, parameter in model.named_parameters() if f".{START}." in name]


def adapter_weights(
    model: nn.Module, name: str = LEARNING, *, weights: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return copies of an adapter's weights, under the names that peft gives them in a file.

    ``weights`` by the model's own names are taken where they are given, else those that it holds.
    """
    from peft import get_peft_model_state_dict

    held = None if weights is None else dict(weights)
    state = get_peft_model_state_dict(model, held, adapter_name=name, save_embedding_layers=False)
    return {f"{PREFIX}{key}": value.detach().clone().contiguous() for key, value in state.items()}


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight by the name that it has in a plain model, with the adapter's product in it.

    The product is added to a copy, in float32 at least, and rounded once; the model stays as it is, so
    nothing drifts however often this is done (added to and taken off again in bfloat16, weights wander away
    from what was trained). Without an adapter, the weights themselves. Weights that are shared come once.
    """
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        if ".base_layer." not in name:
            yield name, parameter.detach()
            continue
        own, _, last = name.partition(".base_layer.")
        weight = parameter.detach()
        if last == "weight":
            wide = torch.promote_types(weight.dtype, torch.float32)
            layer: Any = model.get_submodule(own)
            weight = (weight.to(wide) + layer.get_delta_weight(LEARNING).detach().to(wide)).to(weight.dtype)
        yield f"{own}.{last}", weight


def save_language_adapter(model: Any, folder: Path) -> None:
    """Write what adapts the language model, for plain peft; the vision tower's part stays here."""
    weights = {
        name: value
        for name, value in adapter_weights(model).items()
        if family_of(model).block_of(name.removeprefix(PREFIX)) == "language"
    }
    layers = sorted({name.rpartition(".lora_")[0].rpartition(".")[2] for name in weights})
    config = model.peft_config[LEARNING].to_dict()
    config |= {"target_modules": _pattern(model, {"language": layers}), "inference_mode": True}
    with writing(folder):
        save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        text = json.dumps(config, indent=1, sort_keys=True, default=sorted)
        (folder / ADAPTER_CONFIG).write_text(f"{text}\n", encoding="utf-8")


def save_adapter(
    model: Any, base: Base, folder: Path, *, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write the adapter for plain peft, and which weights it belongs to; see ``adapter_weights``."""
    held = adapter_weights(model, weights=weights)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file(held, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        config = model.peft_config[LEARNING].to_dict()
        config |= {"base_model_name_or_path": base.beside(folder), "inference_mode": True}
        text = json.dumps(config, indent=1, sort_keys=True, default=sorted)
        (folder / ADAPTER_CONFIG).write_text(f"{text}\n", encoding="utf-8")
        (folder / BASE_FILE).write_text(f"{json.dumps(asdict(base))}\n", encoding="utf-8")


def load_adapter(model: nn.Module, folder: Path) -> None:
    """Put the adapter saved in ``folder`` into its base model, in place.

    Raises ``UserError`` where it is no LoRA, or where a weight of its file has no place in the model, or a
    place no weight: other versions of transformers name layers otherwise, and peft passes over what it does
    not know.
    """
    from peft import LoraConfig

    path = folder / ADAPTER_CONFIG
    said = read_json(path)
    if not isinstance(said, dict) or said.get("peft_type") != "LORA":
        raise UserError(f"{path}: must describe a LoRA adapter; give another folder")
    try:
        config = LoraConfig(**{key: value for key, value in said.items() if key != "peft_type"})
        config.inference_mode = False
        _inject(model, config)
    except (TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: does not fit the model ({reason}); give the adapter's own base") from error
    _fill(model, read_weights(folder), LEARNING, where=f"{folder / ADAPTER_WEIGHTS}")
    rest_dropout(model)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights of the adapter saved in ``folder``. Raises ``UserError`` for another file."""
    file = folder / ADAPTER_WEIGHTS
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: holds no adapter ({error}); put the file back") from error


def _fill(model: nn.Module, weights: Mapping[str, Tensor], name: str, *, where: str = "the adapter") -> None:
    from peft import set_peft_model_state_dict

    places = adapter_weights(model, name)
    odd = sorted(set(weights) ^ set(places)) or [
        key for key in places if weights[key].shape != places[key].shape
    ]
    if odd:
        raise UserError(
            f"{where}: its weights are not those of the model's adapted layers ({len(odd)} differ, such as "
            f"{odd[0]}); give the adapter's own base, at the version of transformers that wrote it"
        )
    set_peft_model_state_dict(
        model, {key.removeprefix(PREFIX): value for key, value in weights.items()}, adapter_name=name
    )
    filled = adapter_weights(model, name)
    assert all(torch.equal(filled[key], weights[key].to(filled[key])) for key in filled), (
        "peft left weights out"
    )


def is_trained(model: nn.Module) -> bool:
    """Return whether the adapter changes anything: whether some matrix B has left zero."""
    return any(bool(value.any()) for key, value in adapter_weights(model).items() if ".lora_B." in key)


def merge_adapter(model: Any) -> None:
    """Add the adapter's products to the weights, in place, and leave the plain layers in the model.

    In the precision of the weights: a merge in bfloat16 rounds to the nearest of few numbers, so a model is
    to be read in float32 for it. It is not undone: the base on disk stays what it was.
    """
    assert model.dtype in (torch.float32, torch.float64)
    for name, module in list(model.named_modules()):
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            module.merge(safe_merge=True)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.get_base_layer())
    del model.peft_config
    assert not any(".lora_" in name or "base_layer" in name for name, _ in model.named_parameters())
