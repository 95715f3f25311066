"""The help texts: one sentence, recipes, a command's own keys, every group with its options."""

from __future__ import annotations

import textwrap

from qhk.cli.arguments import FLAGS, Flag
from qhk.cli.command import Command
from qhk.cli.commands import COMMANDS
from qhk.config.catalogue import OVERLAYS, Catalogue, config_root

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
    choices = "[group=option] " if isinstance(command, Command) else ""
    lines = [command.sentence, "", f"Usage: {usage} {choices}[key=value] [flags]", ""]
    lines += ["Recipes:"]
    for what, recipe in command.recipes:
        lines += [f"  # {what}", f"  {recipe}"]
    own = _own_keys(name)
    lines += ["", "Keys of this command, as they are without a word:", *own] if own else []
    if isinstance(command, Command):
        lines += _groups(catalogue)
    lines += ["", "Flags:", *(_flag_line(flag) for flag in FLAGS if flag.help), ""]
    if isinstance(command, Command):
        lines += [
            "dry_run=true checks settings, lists missing files and stops; of a training it prints the id.",
            "Any key of --cfg job can be set: training.duration.steps=40 optimizer.lr=1e-4",
        ]
    else:
        lines += ["--cfg job lists all keys; paths.outputs=FOLDER says where runs and sweeps lie."]
    return "\n".join(lines)


def _own_keys(name: str) -> list[str]:
    """Return the lines of a command's primary config that are its own, with their comments."""
    path = config_root() / "conf" / f"{name.replace(' ', '_')}.yaml"
    if not path.is_file():
        return []
    own = path.read_text(encoding="utf-8").partition("  - _self_\n")[2]
    return [f"  {line}" for line in own.splitlines() if line]


def _groups(catalogue: Catalogue) -> list[str]:
    """Return every group with its options, the sets, and the overlays."""
    options = {group: catalogue.options.get(group, []) for group in [*catalogue.options, *OVERLAYS]}
    width = max(map(len, options)) + 2
    groups = [group for group in options if group not in OVERLAYS]
    lines = ["", "Groups and their options:", *_table({group: options[group] for group in groups}, width)]
    lines += ["", "Sets, named by data=[...] and benchmark=[...]:", *_table({"": catalogue.sets}, width)]
    lines += ["", "Overlays, applied after the groups in this order:"]
    lines += _table({group: options[group] for group in OVERLAYS}, width)
    return lines


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
