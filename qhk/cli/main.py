"""The console script: reads the command line, composes and checks every job, then runs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version

from qhk.cli.arguments import COMMANDS, Arguments, read_arguments
from qhk.cli.command import Command, Job, LightCommand
from qhk.cli.completion import complete_shell
from qhk.cli.errors import report, tell_everything
from qhk.cli.help import command_help, general_help
from qhk.cli.threads import let_idle_threads_sleep
from qhk.config.catalogue import LAUNCHER, Catalogue, choice_of, config_root, read_catalogue, search_folders
from qhk.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 for success, 2 for a user's mistake (one line on stderr), 1 for a fault."""
    let_idle_threads_sleep()
    words = list(sys.argv[1:] if argv is None else argv)
    return report(lambda: _main(words))


def _main(words: list[str]) -> int:
    arguments = read_arguments(words)
    if arguments.version:
        print(f"qhk {version('qhk')}")
        return 0
    if arguments.completion is not None:
        return complete_shell(arguments.completion)
    if arguments.command is None:
        print(general_help())
        return 0
    if arguments.verbose:
        tell_everything(arguments.verbose)
    catalogue = read_catalogue(config_root(), arguments.config_dirs)
    if arguments.help:
        print(command_help(arguments.command, catalogue))
        return 0
    if arguments.cfg is not None or arguments.info is not None:
        return _print_config(arguments, catalogue)
    if _is_plan(arguments):
        return _run_sweep(arguments, catalogue)
    if arguments.multirun:
        return _run_many(arguments, catalogue)
    return _run_one(arguments, arguments.overrides, catalogue)


def _print_config(arguments: Arguments, catalogue: Catalogue) -> int:
    """Print what ``--cfg`` and ``--info`` ask for."""
    from qhk.config.compose import composed_text, defaults_text

    assert arguments.command is not None
    if arguments.info in ("searchpath", "all"):
        print("\n".join(str(folder) for folder in search_folders(config_root(), arguments.config_dirs)))
    if arguments.info in ("defaults", "all"):
        print(defaults_text(arguments.command, arguments.overrides, catalogue))
    if arguments.cfg is not None or arguments.info in ("config", "all"):
        text = composed_text(
            arguments.command,
            arguments.overrides,
            catalogue,
            part=arguments.cfg or "job",
            package=arguments.package,
            resolve=arguments.resolve,
        )
        print(text, end="")
    return 0


def _run_one(arguments: Arguments, overrides: Sequence[str], catalogue: Catalogue) -> int:
    """Composes, checks and runs one job; nothing is loaded before everything was checked."""
    from qhk.cli.job import prepare, read_request

    assert arguments.command is not None
    command = COMMANDS[arguments.command]
    if isinstance(command, LightCommand):
        request = read_request(command.request, arguments.command, overrides, catalogue)
        return command.start(request, arguments.positionals, overrides, catalogue)
    return _start(arguments, prepare(arguments.command, overrides, catalogue))


def _start(arguments: Arguments, job: Job) -> int:
    """Runs a checked job, or prints what it would be."""
    assert arguments.command is not None
    for note in job.notes:
        print(f"note: {note}", file=sys.stderr)
    if job.settings.dry_run:
        from qhk.cli.dry_run import print_dry_run

        return print_dry_run(arguments.command, job.settings)
    command = COMMANDS[arguments.command]
    assert isinstance(command, Command)
    return command.start(job, arguments.positionals)


def _run_sweep(arguments: Arguments, catalogue: Catalogue) -> int:
    """Plans a sweep or a multirun of trainings, prints it or launches it."""
    from qhk.cli.display import ConsoleDisplay
    from qhk.sweep.dry_run import print_sweep
    from qhk.sweep.launch import launch_plan
    from qhk.sweep.plan import plan_multirun, plan_sweep

    plan = plan_sweep if choice_of("sweep", arguments.overrides) is not None else plan_multirun
    planned, task = plan(arguments.overrides, catalogue), ConsoleDisplay().task
    return print_sweep(planned, task) if planned.dry_run else launch_plan(planned, task)


def _is_plan(arguments: Arguments) -> bool:
    """Return whether trainings are planned and launched: several, or one by a launcher of its own."""
    launcher = choice_of(LAUNCHER, arguments.overrides)
    if arguments.command != "train":
        if launcher not in (None, "local") and arguments.command != "sweep resume":
            raise UserError(f"{LAUNCHER}={launcher}: qhk {arguments.command} runs here; leave it out")
        return False
    return (
        arguments.multirun
        or choice_of("sweep", arguments.overrides) is not None
        or launcher not in (None, "local")
    )


def _run_many(arguments: Arguments, catalogue: Catalogue) -> int:
    """Checks every job of a multirun, then runs each in a process of its own; the worst exit code of all."""
    from qhk.cli.job import prepare
    from qhk.cli.multirun import run_each
    from qhk.config.overrides import expand

    command = arguments.command
    assert command is not None
    jobs = expand(arguments.overrides, catalogue)
    if isinstance(COMMANDS[command], Command):
        for overrides in jobs:
            prepare(command, overrides, catalogue)
    return run_each(command, jobs, arguments.positionals, arguments.config_dirs)


if __name__ == "__main__":
    sys.exit(main())
