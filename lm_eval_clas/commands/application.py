"""What the commands share: the application, its consoles, and how options become objects.

Heavy libraries are imported by the command that needs them, so that `--help` is quick.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.escaping import visible
from lm_eval_clas.base.job_progress import JobProgress
from lm_eval_clas.base.logs import no_bars_of_libraries
from lm_eval_clas.base.plain_numbers import plain_number
from lm_eval_clas.base.processes import launched_as
from lm_eval_clas.base.screen import Screen
from lm_eval_clas.base.version import __version__
from lm_eval_clas.commands.manners.command_kind import Commands
from lm_eval_clas.disk.checked_files import user_path

# Those that share their work among processes; any other would do the same in each, and write the same files.
SEVERAL_PROCESSES = ("profile", "tune", "eval")
OTHER_LINES = ("eval", "serve")  # those whose bars and messages are another program's
OTHER = "..."  # in a command that comes next: what only the reader knows

# Of several processes, only the main one talks; but all of them may fail.
_quiet = launched_as()[0] > 0
console = Screen(quiet=_quiet)  # results
notes = Screen(quiet=_quiet)  # what was written where, and what comes next; with --json, not among the results
messages = Screen(stderr=True, quiet=_quiet)
failures = Screen(stderr=True)


def be_quiet() -> None:
    """Prints results and errors alone from here on."""
    notes.quiet = messages.quiet = True


def _told_of_stop(sentence: str) -> None:
    if launched_as()[0] == 0:
        failures.print(f"Interrupted. {escape(sentence)}", highlight=False, soft_wrap=True)


app = Commands(
    be_quiet,
    _told_of_stop,
    help="Cross-Lingual Activation Steering for the LM evaluation harness: profile, masks, tune, evaluate, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _tell_version(asked: bool) -> None:
    if asked:
        console.print(f"clas {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _begin(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version, and end.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    notes.quiet = messages.quiet = launched_as()[0] > 0
    notes.stderr = False
    if context.invoked_subcommand not in OTHER_LINES:
        no_bars_of_libraries()
    if launched_as()[1] > 1 and context.invoked_subcommand not in SEVERAL_PROCESSES:
        raise ClasError(
            f"clas {context.invoked_subcommand} runs in one process; start it without a launcher (those that share their work "
            f"are {', '.join(SEVERAL_PROCESSES)})."
        )


def parse_words(text: str | None) -> list[str]:
    """The parts of an option that takes several words with commas between them."""
    return [one.strip() for one in (text or "").split(",") if one.strip()]


def parse_numbers(option: str, text: str) -> list[float]:
    """The numbers of an option that takes several with commas between them.

    Raises:
        ClasError: one of them is not a finite number in plain digits.
    """
    try:
        return [plain_number(one) for one in parse_words(text)]
    except ValueError as error:
        raise ClasError(f"{option} takes finite numbers with commas between them, like -2,-1,1,2; not '{text}'.") from error


def number_option(about: str) -> Any:
    """An option that takes one finite number in plain digits."""

    def parse(value: Any) -> float:
        try:
            return plain_number(value)
        except ValueError as error:
            raise typer.BadParameter(f"'{value}' is no finite number in plain digits, like -2 or 0.4.") from error

    return typer.Option(help=about, parser=parse, metavar="FLOAT")


def path_option(about: str) -> Any:
    """An option that takes a path, with `~` for the home folder also where the shell leaves it (`--out=~/x`)."""
    return typer.Option(help=about, parser=_path, metavar="PATH")


def path_argument(about: str, metavar: str | None = None) -> Any:
    """An argument that takes a path, as `path_option`."""
    return typer.Argument(help=about, parser=_path, metavar=metavar)


def _path(text: Any) -> Path:
    try:
        return user_path(text)
    except ClasError as error:
        raise typer.BadParameter(str(error)) from error


def _notes_beside(asked: bool) -> bool:
    notes.stderr = asked
    return asked


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.", callback=_notes_beside)]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        "--replace",
        help="Replace what is there already, also what this program did not write or what was changed since, and do not ask.",
    ),
]


def may_replace(what: Sequence[str], force: bool) -> bool:
    """Asks whether files may be replaced that are there and are not known to be this program's.

    Args:
        what: their names, as the reader knows them; none is fine.
        force: whether --force was given.

    Returns:
        Whether there is anything of the kind; it may be replaced then.

    Raises:
        ClasError: nobody can be asked.
        typer.Exit: with status 1: the person said no.
    """
    if what:
        verb = "is" if len(what) == 1 else "are"
        confirm(f"{', '.join(what)} {verb} already there and not known to be what this program wrote", force)
    return bool(what)


def confirm(sentence: str, force: bool) -> None:
    """Returns if what a sentence says may be replaced or lost: with --force, or if a person at a terminal agrees.

    Raises:
        ClasError: nobody can be asked.
        typer.Exit: with status 1: the person said no.
    """
    if force:
        return
    if not _somebody_can_answer():
        raise ClasError(f"{sentence}; give another place, or --force to replace.")
    if not typer.confirm(visible(f"{sentence}. Replace?"), err=True):
        raise typer.Exit(1)


def _somebody_can_answer() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


@contextmanager
def replacing(folder: Path, names: Sequence[str], force: bool) -> Iterator[None]:
    """Takes a folder to write files of these names to, beside whatever else is in it; asks where one is not known to be ours.

    Raises:
        ClasError: one is there, and nobody can be asked.
    """
    from lm_eval_clas.disk.written import claimed, foreign

    strange = may_replace([str(folder / name) for name in names if foreign(folder / name)], force)
    with claimed(folder, names, force=strange):
        yield


@contextmanager
def replacing_file(path: Path | None, force: bool) -> Iterator[None]:
    """Takes one file to write, if any; asks where it is there and is not known to be ours.

    Raises:
        ClasError: it is there, and nobody can be asked; or it is a folder.
    """
    from lm_eval_clas.disk.written import foreign, kept_noted

    if path is not None and path.is_dir():
        raise ClasError(f"'{path}' is a folder; give the name of a file.")
    strange = may_replace([str(path)], force) if path is not None and foreign(path) else False
    with kept_noted(path, strange):
        yield


def progress_bars() -> JobProgress:
    """The job's one bar, on the standard error stream."""
    return JobProgress(messages)


def tell_next(*words: str, lead: str = "Next") -> None:
    """Prints the command that comes next, quoted where a shell needs it: with all that makes it the same model and prompts."""
    notes.print(f"{lead}: {escape(shlex.join(words))}", highlight=False, soft_wrap=True)


def next_run(model: str, arguments: Sequence[str], *options: str, tasks: str = OTHER, command: str = "lm_eval") -> list[str]:
    """The words of an evaluation.

    Args:
        model: the harness's name of the model class.
        arguments: for `--model_args`, such as `dtype=bfloat16`; empty ones are left out.
        options: more words.
        tasks: for `--tasks`.
        command: `lm_eval`, or `clas eval`, which has our tasks on its path.
    """
    given = ",".join(one for one in arguments if one)
    return [*command.split(), "--model", model, "--model_args", given, *options, "--tasks", tasks]
