"""Composes a command's config from the catalogue, and says what was wrong in one line."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from textwrap import indent
from typing import Any

from hydra import compose, initialize
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.bash_completion import BashCompletion
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qhk.config.catalogue import LAUNCHER, OVERLAYS, STRENGTHS, Catalogue, choice_of
from qhk.config.explain import HYDRA_ERRORS, explain_interpolation, explain_override
from qhk.config.overrides import check_overrides, named_in_lists, parse_override
from qhk.config.sets import keep_used_sets
from qhk.config.source import CatalogueSource
from qhk.errors import UserError
from qhk.settings.problems import suggestion

VERSION_BASE = "1.3"
SHOWN = 60
"""Characters of a value that a note shows."""

KEPT = 256
"""Configs of options that a catalogue keeps, those asked for last; each takes about 0.1 MB."""


def _primary(command: str, catalogue: Catalogue) -> str:
    """Return the name of a command's YAML file: ``data_check`` of ``data check``, ``base`` of most others."""
    own = command.replace(" ", "_")
    return own if own in catalogue.by_place else "base"


def compose_config(command: str, overrides: Sequence[str], catalogue: Catalogue) -> DictConfig:
    """Return the composed config of one job, without Hydra's own node, interpolations unresolved.

    Hydra sets values after it has composed the options, in the order of the overrides. So the catalogue keeps
    what options alone compose to, and a further command with the same options sets its values on a copy.
    Raises UserError in one line for an unknown group, option or key, and for an override that Hydra
    cannot read; the line names it and the fix.
    """
    check_overrides(overrides, catalogue)
    source = CatalogueSource(catalogue)
    values = [text for text in overrides if _sets_value(text, source)]
    options = tuple(text for text in overrides if text not in values)
    composed = catalogue.composed
    place = (command, options)
    kept = composed.pop(place, None)
    # Put at the end, what is asked for again is kept longest.
    composed[place] = kept or pickle.dumps(_compose(command, options, catalogue, with_hydra=False))
    if len(composed) > KEPT:
        del composed[next(iter(composed))]
    config: DictConfig = pickle.loads(composed[place])
    try:
        ConfigLoaderImpl._apply_overrides_to_config(
            [parse_override(named_in_lists(text)) for text in values], config
        )
    except HYDRA_ERRORS:
        # Composed as a whole, the mistake is explained.
        return _compose(command, overrides, catalogue, with_hydra=False)
    return config


def _sets_value(text: str, source: CatalogueSource) -> bool:
    """Return whether an override changes keys of the composed config: no option, and none of Hydra's."""
    key = text.lstrip("+~").partition("=")[0]
    return not key.startswith("hydra") and "@" not in key and not source.is_group(key)


def compose_launcher(command: str, overrides: Sequence[str], catalogue: Catalogue) -> dict[str, Any]:
    """Return the node ``hydra.launcher`` as plain data. Raises UserError as ``compose_config`` does."""
    launcher = _compose(command, overrides, catalogue, with_hydra=True).hydra.launcher
    assert isinstance(launcher, DictConfig)
    return plain_config(launcher)


def _compose(command: str, overrides: Sequence[str], catalogue: Catalogue, *, with_hydra: bool) -> DictConfig:
    words = _hydra_overrides(overrides, catalogue)
    try:
        with _hydra(catalogue):
            return compose(
                config_name=_primary(command, catalogue), overrides=words, return_hydra_config=with_hydra
            )
    except HYDRA_ERRORS as error:
        raise UserError(
            explain_override(error, overrides, _base(command, words, catalogue), catalogue)
        ) from None


def _hydra_overrides(overrides: Sequence[str], catalogue: Catalogue) -> list[str]:
    """Return the checked overrides as Hydra is to get them. Raises UserError as ``check_overrides`` does."""
    check_overrides(overrides, catalogue)
    words = [named_in_lists(text) for text in overrides]
    return [*_default_launcher(words, catalogue), *scale_overrides(words, catalogue)]


def _default_launcher(overrides: Sequence[str], catalogue: Catalogue) -> list[str]:
    """Return the override that chooses our own launcher, where neither user nor sweep's file chooses one.

    A primary config cannot say so: its choice would beat a sweep file's.
    """
    if choice_of(LAUNCHER, overrides) is not None:
        return []
    file = catalogue.by_place.get(f"sweep/{choice_of('sweep', overrides)}")
    lines = file.content.get("defaults", []) if file is not None else []
    chosen = any(
        LAUNCHER in str(key) for line in lines for key in (line if isinstance(line, DictConfig) else ())
    )
    return [] if chosen else [f"{LAUNCHER}=local"]


def scale_overrides(overrides: Sequence[str], catalogue: Catalogue) -> list[str]:
    """Return the overrides with ``scale=miniature`` fitted to the chosen experiment, stages and mixture.

    An experiment on another task than scores needs other miniature sets and prompts: they stand in the
    option ``scale/miniature_<experiment>``, which builds on ``scale/miniature``. Stages and mixtures that
    bring sets of their own have ``scale/miniature_<option>`` for those sets alone, which is added. Which
    stages and mixture they are is the command line's choice, else the experiment's.
    """
    scale, experiment = choice_of("scale", overrides), choice_of("experiment", overrides)
    chosen_options = {
        group: choice_of(group, overrides) or _experiment_choice(experiment, group, catalogue)
        for group in ("stages", "mixture")
    }
    chosen_options["experiment"] = experiment
    names = {group: f"{scale}_{option}" for group, option in chosen_options.items()}
    fits = {group: name for group, name in names.items() if name in catalogue.options["scale"]}
    if scale is None or not fits:
        return list(overrides)
    # An experiment's fit holds the scale itself, and what it says of lengths: it comes last.
    chosen = [*fits.values()] if "experiment" in fits else [scale, *fits.values()]
    fitted = f"scale=[{','.join(chosen)}]" if len(chosen) > 1 else f"scale={chosen[0]}"
    return [text if text.lstrip("+").partition("=")[0] != "scale" else fitted for text in overrides]


def _experiment_choice(experiment: str | None, group: str, catalogue: Catalogue) -> str | None:
    """Return the option that an experiment, or one it builds on, chooses for a group, or None."""
    folder = (experiment or "").rpartition("/")[0]
    file = catalogue.by_place.get(f"experiment/{experiment}")
    if file is None:
        return None
    chosen = None
    for line in file.content.get("defaults", []):
        if isinstance(line, str) and line != "_self_":
            chosen = _experiment_choice(f"{folder}/{line}".lstrip("/"), group, catalogue) or chosen
        elif isinstance(line, DictConfig) and f"override /{group}" in line:
            chosen = str(line[f"override /{group}"])
    return chosen


def _base(command: str, overrides: Sequence[str], catalogue: Catalogue) -> DictConfig | None:
    """The config of the options that were chosen, for the names of its keys; None if it cannot compose."""
    choices = [text for text in overrides if text.lstrip("+").partition("=")[0] in catalogue.options]
    try:
        with _hydra(catalogue):
            return compose(config_name=_primary(command, catalogue), overrides=choices)
    except HYDRA_ERRORS:
        return None


def plain_config(config: DictConfig) -> dict[str, Any]:
    """Return the config as plain data, its interpolations resolved and without ``strengths``.

    Raises UserError where an interpolation has no target.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(explain_interpolation(error)) from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != STRENGTHS}


def composed_text(
    command: str,
    overrides: Sequence[str],
    catalogue: Catalogue,
    *,
    part: str,
    package: str | None,
    resolve: bool,
) -> str:
    """Return what ``--cfg`` prints: YAML, its ``${...}`` resolved or as the files have them.

    ``part``: ``job``, Hydra's own node ``hydra``, or ``all``; ``package``: only the node of that name.
    Raises UserError where there is no such node, and as ``compose_config`` does.
    """
    config = _compose(command, overrides, catalogue, with_hydra=part != "job")
    package = "hydra" if part == "hydra" else package
    config = keep_used_sets(config) if "dataset" in config else config
    node = config if package is None else OmegaConf.select(config, package, default=None)
    if node is None:
        raise UserError(f"--package {package}: no such node; {suggestion(str(package), map(str, config))}")
    try:
        if resolve and OmegaConf.is_config(node):
            OmegaConf.resolve(node)
    except OmegaConfBaseException as error:
        raise UserError(explain_interpolation(error)) from None
    text = OmegaConf.to_yaml(node) if OmegaConf.is_config(node) else f"{node}\n"
    return f"hydra:\n{indent(text, '  ')}" if part == "hydra" else text


def defaults_text(command: str, overrides: Sequence[str], catalogue: Catalogue) -> str:
    """Return what ``--info defaults`` prints: the files that make the config, in order, and where to."""
    words = _hydra_overrides(overrides, catalogue)
    with _hydra(catalogue) as loader:
        rows = loader.compute_defaults_list(_primary(command, catalogue), words, RunMode.RUN).defaults
    return "\n".join(f"{row.config_path}  ->  {row.package or '_global_'}" for row in rows if row.config_path)


def completions(command: str, line: str, catalogue: Catalogue) -> list[str]:
    """Return what the last word of a line of overrides can become: groups, their options, and keys."""
    with _hydra(catalogue) as loader:
        return BashCompletion(loader)._query(config_name=_primary(command, catalogue), line=line)


@contextmanager
def _hydra(catalogue: Catalogue) -> Iterator[ConfigLoaderImpl]:
    """Let Hydra find this catalogue's files, and those of no other, besides its own."""
    GlobalHydra.instance().clear()
    with initialize(config_path=None, version_base=VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl) and isinstance(loader.repository, ConfigRepository)
        # Hydra takes the source of its own dataclasses to be the last one.
        loader.repository.sources.insert(-1, CatalogueSource(catalogue))
        yield loader


def overruled_choices(
    command: str, overrides: Sequence[str], config: DictConfig, catalogue: Catalogue
) -> list[str]:
    """Return a line for each option chosen on the command line of which an overlay then replaced some values.

    An experiment's or a scale's own values stand after all groups, so they also beat an option that the
    command line chose; a value given on the command line beats both.
    """
    overlays = [text for text in overrides if text.lstrip("+").partition("=")[0] in OVERLAYS]
    chosen = [
        text
        for text in overrides
        if text.partition("=")[0] in catalogue.options
        and text not in overlays
        and not text.startswith(LAUNCHER)
    ]
    if not overlays or not chosen:
        return []
    # Of the options alone: a key that is set besides may belong to a node that only an overlay has.
    alone = compose_config(command, chosen, catalogue)
    said = {text.lstrip("+~").partition("=")[0] for text in overrides}
    lines = []
    for text in chosen:
        group = text.partition("=")[0]
        ours, theirs = (dict(_leaves(OmegaConf.to_container(node[group]), group)) for node in (alone, config))
        both = sorted((ours.keys() & theirs.keys()) - said)
        replaced = [key for key in both if ours[key] != theirs[key]]
        if replaced:
            lines.append(
                f"{text}: {' '.join(overlays)} replaces values of it: "
                + ", ".join(f"{key}={_text(theirs[key])} (was {_text(ours[key])})" for key in replaced)
                + "; set a key on the command line to decide it"
            )
    return lines


def _leaves(plain: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield every value below a node of plain data, with its dotted key."""
    if not isinstance(plain, dict):
        yield key, plain
        return
    for name, child in plain.items():
        yield from _leaves(child, f"{key}.{name}")


def _text(value: Any) -> str:
    """Return a value on one line, cut where it is long, as prompts are."""
    text = "null" if value is None else " ".join(str(value).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
