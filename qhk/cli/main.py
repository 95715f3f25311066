"""The console script: reads the command line, composes and checks every job, then runs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version

from qhk.cli.arguments import Arguments, read_arguments
from qhk.cli.command import LightCommand
from qhk.cli.commands import COMMANDS
from qhk.cli.completion import complete_shell
from qhk.cli.help import command_help, general_help
from qhk.cli.process import USER_ERROR, let_idle_threads_sleep, report, tell_everything
from qhk.config.catalogue import LAUNCHER, Catalogue, choice_of, config_root, read_catalogue, search_folders
from qhk.errors import UserError
from qhk.plain import counted, print
from qhk.settings.identity import run_directory, run_id
from qhk.settings.root import Settings


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
    if not arguments.command:
        print(general_help())
        return 0
    if arguments.verbose:
        tell_everything(arguments.verbose)
    catalogue = read_catalogue(config_root(), arguments.config_dirs)
    if arguments.help:
        print(command_help(arguments.command, catalogue))
        return 0
    _check_repeated(arguments)
    if arguments.cfg is not None or arguments.info is not None:
        return _print_config(arguments, catalogue)
    if _is_plan(arguments):
        return _run_sweep(arguments, catalogue)
    _check_positionals(arguments)
    return _run(arguments, catalogue)


def _check_repeated(arguments: Arguments) -> None:
    """Raise UserError for a key that the command line gives two values."""
    from qhk.config.overrides import refuse_repeated

    refuse_repeated(arguments.overrides)


def _print_config(arguments: Arguments, catalogue: Catalogue) -> int:
    """Print what ``--cfg`` and ``--info`` ask for."""
    from qhk.config.compose import composed_text, defaults_text

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


def _check_positionals(arguments: Arguments) -> None:
    """Raise UserError where a command lacks a word that it needs, or has one too many."""
    command, given = COMMANDS[arguments.command], len(arguments.positionals)
    several = command.positionals.endswith("...")
    if command.positionals and (given == 0 or given > 1 and not several):
        wanted = f"{'at least ' if several else ''}one {command.positionals.removesuffix('...')}"
        raise UserError(f"qhk {arguments.command}: give {wanted}, got {given}; e.g. {command.recipes[0][1]}")


def _run(arguments: Arguments, catalogue: Catalogue) -> int:
    """Compose, check and run a job, or print what it would be; nothing is loaded before all was checked."""
    from qhk.cli.job import prepare, prepare_light, run_each

    command = COMMANDS[arguments.command]
    what = (arguments.command, arguments.overrides, catalogue, arguments.positionals)
    if arguments.multirun:
        return run_each(*what, config_dirs=arguments.config_dirs)
    if isinstance(command, LightCommand):
        return command.run(prepare_light(*what))
    job = prepare(*what)
    for note in job.notes:
        print(f"note: {note}", file=sys.stderr)
    return _dry_run(arguments.command, job.settings, catalogue) if job.settings.dry_run else command.run(job)


def _dry_run(command: str, settings: Settings, catalogue: Catalogue) -> int:
    """Print a training's identity; return 0, or 2 after a line for each reason to refuse the job."""
    from qhk.config.compose import compose_launcher
    from qhk.policy.shape import ANSWER_TOKENS
    from qhk.settings.sweep import parse_launcher
    from qhk.sweep.cost import step_line
    from qhk.tracking.run_directory import known_run_id
    from qhk.training.dry_run import directory_problems, run_problems
    from qhk.training.memory import memory_lines

    if command == "train":
        directory = run_directory(settings)
        print(f"run id     {run_id(settings) if settings.fresh else known_run_id(directory, settings)}")
        print(f"name       {settings.name}")
        print(f"directory  {directory}")
        on_cpu = settings.model.tiny is not None
        print("\n".join(memory_lines(settings, answer_tokens=ANSWER_TOKENS, on_cpu=on_cpu)))
        where = [f"{LAUNCHER}={'local' if on_cpu else 'slurm'}"]
        line = step_line(settings, parse_launcher(compose_launcher("train", where, catalogue)).machine)
        if line is not None:
            print(line)
    problems = run_problems(settings)
    if command == "train" and not problems:
        problems = directory_problems(settings)
    for line in problems:
        print(f"error: {line}", file=sys.stderr)
    if problems:
        print(f"dry run: a run would be refused, for {counted(len(problems), 'reason')}; nothing was started")
        return USER_ERROR
    print("dry run: the settings are valid; nothing was started")
    return 0


def _run_sweep(arguments: Arguments, catalogue: Catalogue) -> int:
    """Plan a sweep or a multirun of trainings, print it or launch it."""
    from qhk.sweep.dry_run import print_sweep
    from qhk.sweep.launch import launch_plan
    from qhk.sweep.plan import plan_multirun, plan_sweep
    from qhk.training.display import ConsoleDisplay
    from qhk.training.dry_run import run_problems

    plan = plan_sweep if choice_of("sweep", arguments.overrides) is not None else plan_multirun
    planned, task = plan(arguments.overrides, catalogue), ConsoleDisplay().task
    return print_sweep(planned, task, run_problems) if planned.dry_run else launch_plan(planned, task)


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


if __name__ == "__main__":
    sys.exit(main())
