"""The help texts: one sentence, three recipes, every group with its options."""

from __future__ import annotations

import textwrap

from qhk.cli.arguments import COMMANDS
from qhk.config.catalogue import OVERLAYS, Catalogue

WIDTH = 100


def general_help() -> str:
    """The text of ``qhk --help``."""
    lines = ["qhk: reinforcement learning of vision-language models for image quality assessment.", ""]
    lines += ["Commands:"]
    for name, command in COMMANDS.items():
        usage = f"qhk {name} {command.positionals}".strip()
        lines.append(f"  {usage:<24}{command.sentence}")
    lines += ["", "Three recipes:"]
    for name in [name for name in COMMANDS if " " not in name]:
        lines.append(f"  {COMMANDS[name].recipes[0][1]}")
    lines += ["", "qhk COMMAND --help lists the settings of a command."]
    return "\n".join(lines)


def command_help(name: str, catalogue: Catalogue) -> str:
    """The text of ``qhk <name> --help``."""
    command = COMMANDS[name]
    usage = f"qhk {name} {command.positionals}".strip()
    lines = [command.sentence, "", f"Usage: {usage} [group=option] [key=value] [flags]", ""]
    lines += ["Three recipes:"]
    for what, recipe in command.recipes:
        lines += [f"  # {what}", f"  {recipe}"]
    options = catalogue.options
    groups = [group for group in options if group not in OVERLAYS]
    lines += ["", "Groups and their options:", *_table({group: options[group] for group in groups})]
    lines += ["", "Sets, named by data=[...] and benchmark=[...]:", *_table({"": catalogue.sets})]
    lines += ["", "Overlays, applied after the groups in this order:"]
    lines += _table({group: options.get(group, []) for group in OVERLAYS})
    lines += [
        "",
        "Flags:",
        "  --cfg job [--resolve]   print the composed config and stop",
        "  -m, --multirun          one run for each of several values: -m seed=0,1,2",
        "  -h, --help              this text",
        "",
        "dry_run=true checks a run, lists missing files, prints its id and stops.",
        "Any key of --cfg job can be set: training.duration.steps=40 optimizer.lr=1e-4",
    ]
    return "\n".join(lines)


def _table(options: dict[str, list[str]]) -> list[str]:
    lines = []
    for group, names in options.items():
        text = ", ".join(names) if names else "(none yet)"
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {group:<14}", subsequent_indent=" " * 16)
    return lines
