"""Tab completion: commands, and through Hydra the groups, options and keys of their configs."""

from __future__ import annotations

import os

from qhk.cli.arguments import FLAG_NAMES, FLAGS, folder_of, read_flags, take_values
from qhk.cli.commands import COMMANDS
from qhk.config.catalogue import config_root, read_catalogue
from qhk.errors import UserError
from qhk.plain import print

SCRIPTS = {
    "bash": """\
_qhk() {
  local IFS=$'\\n'
  COMPREPLY=($(QHK_LINE="${COMP_LINE:0:$COMP_POINT}" qhk --shell-completion query=bash 2>/dev/null))
  case "${COMPREPLY[0]}" in *[=./]) compopt -o nospace;; esac
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o default -F _qhk qhk
""",
}
SCRIPTS["zsh"] = "autoload -Uz bashcompinit && bashcompinit\n" + SCRIPTS["bash"]
UNINSTALL = "complete -r qhk; unset -f _qhk\n"


def complete_shell(asked: str) -> int:
    """Print the shell's script for ``install=bash`` or ``install=zsh``, and answers its ``query``s."""
    action, _, shell = asked.partition("=")
    if shell not in SCRIPTS or action not in ("install", "uninstall", "query"):
        raise UserError(
            f"--shell-completion {asked}: write install=bash or install=zsh, "
            'as in eval "$(qhk --shell-completion install=bash)"'
        )
    if action == "query":
        print("\n".join(complete(os.environ.get("QHK_LINE", ""))))
    else:
        print(SCRIPTS[shell] if action == "install" else UNINSTALL, end="")
    return 0


def complete(line: str) -> list[str]:
    """Return what the last word of a command line can become; after a space a new word begins."""
    *before, word = line.split(" ")
    words = [text for text in before if text][1:]
    if word.startswith("-"):
        return [name for name in FLAG_NAMES if name.startswith(word)]
    for flag in FLAGS:
        if flag.value and words and words[-1] in flag.names:
            return [choice for choice in flag.options.get("choices", ()) if choice.startswith(word)]
    flags, words = read_flags(words)
    commands = [name.split() for name in COMMANDS]
    given = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
    if given is None:
        further = {name[len(words)] for name in commands if name[: len(words)] == words}
        return sorted(text for text in further if text.startswith(word))
    folders = [*flags.config_dir, *take_values(words, "hydra.searchpath")[1]]
    catalogue = read_catalogue(config_root(), [folder_of(text) for text in folders])
    key, equals, _ = word.partition("=")
    if equals and key.rpartition(".")[2] in ("data", "benchmark"):
        # Values that name sets, the last of a list too: Hydra would offer the places of the default's list.
        begun = max(word.rfind(sign) for sign in "=[,{") + 1
        return [word[:begun] + name for name in catalogue.sets if name.startswith(word[begun:])]
    # Hydra is loaded for a key or an option alone.
    from qhk.config.compose import completions

    return completions(given, word, catalogue)
