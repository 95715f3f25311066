"""The console script: reads the command line, composes and checks every job, then runs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qhk.cli.arguments import COMMANDS, Arguments, read_arguments
from qhk.cli.command import Job
from qhk.cli.errors import report
from qhk.cli.help import command_help, general_help
from qhk.config.catalogue import Catalogue, config_root, read_catalogue


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 for success, 2 for a user's mistake (one line on stderr), 1 for an internal error."""
    words = list(sys.argv[1:] if argv is None else argv)
    return report(lambda: _main(words))


def _main(words: list[str]) -> int:
    arguments = read_arguments(words)
    if arguments.command is None:
        print(general_help())
        return 0
    catalogue = read_catalogue(config_root())
    if arguments.help:
        print(command_help(arguments.command, catalogue))
        return 0
    if arguments.cfg is not None:
        return _print_config(arguments, catalogue)
    if _is_sweep(arguments):
        return _run_sweep(arguments, catalogue)
    if arguments.multirun:
        return _run_many(arguments, catalogue)
    return _run_one(arguments, arguments.overrides, catalogue)


def _print_config(arguments: Arguments, catalogue: Catalogue) -> int:
    from qhk.config.compose import compose_config, config_text

    assert arguments.command is not None
    config = compose_config(arguments.command, arguments.overrides, catalogue)
    print(config_text(config, resolve=arguments.resolve), end="")
    return 0


def _run_one(arguments: Arguments, overrides: Sequence[str], catalogue: Catalogue) -> int:
    """Composes, checks and runs one job; nothing is loaded before everything was checked."""
    from qhk.cli.job import prepare

    assert arguments.command is not None
    return _start(arguments, prepare(arguments.command, overrides, catalogue))


def _start(arguments: Arguments, job: Job) -> int:
    """Runs a checked job, or prints what it would be."""
    assert arguments.command is not None
    for note in job.notes:
        print(f"note: {note}", file=sys.stderr)
    if job.settings.dry_run:
        from qhk.cli.dry_run import print_dry_run

        return print_dry_run(job.settings)
    return COMMANDS[arguments.command].start(job, arguments.positionals)


def _run_sweep(arguments: Arguments, catalogue: Catalogue) -> int:
    """Plans a sweep or a multirun of trainings, prints it or launches it."""
    from qhk.cli.sweep_plan import plan_multirun, plan_sweep
    from qhk.config.compose import choice_of

    plan = plan_sweep if choice_of("sweep", arguments.overrides) is not None else plan_multirun
    planned = plan(arguments.overrides, catalogue)
    if planned.dry_run:
        from qhk.cli.sweep_dry_run import print_sweep

        return print_sweep(planned, catalogue)
    from qhk.cli.sweep_launch import launch_plan

    return launch_plan(planned, catalogue)


def _is_sweep(arguments: Arguments) -> bool:
    if arguments.command != "train":
        return False
    return arguments.multirun or any(
        word.lstrip("+").startswith("sweep=") and word.partition("=")[2] not in ("", "null")
        for word in arguments.overrides
    )


def _run_many(arguments: Arguments, catalogue: Catalogue) -> int:
    """Checks every job of a multirun, then runs each in a process of its own; the worst exit code of all."""
    from qhk.cli.job import prepare
    from qhk.cli.multirun import run_each
    from qhk.config.overrides import expand

    command = arguments.command
    assert command is not None
    jobs = [prepare(command, overrides, catalogue) for overrides in expand(arguments.overrides, catalogue)]
    return run_each(command, [job.overrides for job in jobs], arguments.positionals)


if __name__ == "__main__":
    sys.exit(main())
