"""The help texts: one sentence, three recipes, every group with its options."""

from __future__ import annotations

import textwrap

from qhk.cli.arguments import FLAGS, Flag
from qhk.cli.commands import COMMANDS
from qhk.config.catalogue import OVERLAYS, Catalogue

WIDTH = 100


def general_help() -> str:
    """The text of ``qhk --help``."""
    lines = ["qhk: reinforcement learning of vision-language models for image quality assessment.", ""]
    lines += ["Commands:"]
    usages = {f"qhk {name} {command.positionals}".strip(): command for name, command in COMMANDS.items()}
    width = max(map(len, usages)) + 2
    lines += [f"  {usage:<{width}}{command.sentence}" for usage, command in usages.items()]
    lines += ["", "Recipes:"]
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
    options = {group: catalogue.options.get(group, []) for group in [*catalogue.options, *OVERLAYS]}
    width = max(map(len, options)) + 2
    groups = [group for group in options if group not in OVERLAYS]
    lines += ["", "Groups and their options:", *_table({group: options[group] for group in groups}, width)]
    lines += ["", "Sets, named by data=[...] and benchmark=[...]:", *_table({"": catalogue.sets}, width)]
    lines += ["", "Overlays, applied after the groups in this order:"]
    lines += _table({group: options[group] for group in OVERLAYS}, width)
    lines += ["", "Flags:", *(_flag_line(flag) for flag in FLAGS if flag.help), ""]
    lines += [
        "dry_run=true checks the settings, lists missing files and stops; of a training it prints the id.",
        "Any key of --cfg job can be set: training.duration.steps=40 optimizer.lr=1e-4",
    ]
    return "\n".join(lines)


def _flag_line(flag: Flag) -> str:
    words = f"{', '.join(flag.names)} {flag.value}"
    return f"  {words:<38}{flag.help}"


def _table(options: dict[str, list[str]], width: int) -> list[str]:
    lines = []
    for group, names in options.items():
        text = ", ".join(names) if names else "(none yet)"
        first, others = f"  {group:<{width}}", " " * (width + 2)
        lines += textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=others)
    return lines
