"""What the commands share: the application, its consoles, and how options become objects.

Heavy libraries are imported by the command that needs them, so that `--help` is quick.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lm_eval_clas.errors import ClasError
from lm_eval_clas.processes import launched_as

# Those that share their work among processes; any other would do the same in each, and write the same files.
SEVERAL_PROCESSES = ("profile", "tune", "eval")

app = typer.Typer(
    help="Cross-Lingual Activation Steering for the LM evaluation harness: profile, masks, tune, evaluate, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
# Of several processes, only the main one talks; but all of them may fail.
_quiet = launched_as()[0] > 0
console = Console(quiet=_quiet)
messages = Console(stderr=True, quiet=_quiet)
failures = Console(stderr=True)


@app.callback()
def _check_processes(context: typer.Context) -> None:
    if launched_as()[1] > 1 and context.invoked_subcommand not in SEVERAL_PROCESSES:
        raise ClasError(
            f"clas {context.invoked_subcommand} runs in one process; start it without a launcher (those that share their work "
            f"are {', '.join(SEVERAL_PROCESSES)})."
        )


def words(text: str | None) -> list[str]:
    """The parts of an option that takes several words with commas between them."""
    return [one.strip() for one in (text or "").split(",") if one.strip()]


def numbers(option: str, text: str) -> list[float]:
    """The numbers of an option that takes several with commas between them.

    Raises:
        ClasError: one of them is not a finite number.
    """
    try:
        found = [float(one) for one in words(text)]
    except ValueError as error:
        raise ClasError(f"{option} takes numbers with commas between them, like -2,-1,1,2; not '{text}'.") from error
    if not all(map(math.isfinite, found)):
        raise ClasError(f"{option} takes finite numbers, not '{text}'.")
    return found


Force = Annotated[
    bool,
    typer.Option(
        "--force",
        "--replace",
        help="Replace what is there already, also what this program did not write or what was changed since, and do not ask.",
    ),
]


def may_replace(what: Sequence[str], force: bool) -> None:
    """Returns if these may be replaced; a person at a terminal is asked.

    Args:
        what: names of files that are there and are not known to be this program's, as the reader knows them; none is fine.
        force: whether --force was given.

    Raises:
        ClasError: nobody can be asked.
        typer.Exit: with status 1: the person said no.
    """
    if force or not what:
        return
    names = f"{', '.join(what)} {'is' if len(what) == 1 else 'are'}"
    if sys.stdin.isatty() and sys.stderr.isatty():
        question = f"{names} already there and not written by this program (or changed since). Replace?"
        if not typer.confirm(question, err=True):
            raise typer.Exit(1)
        return
    raise ClasError(
        f"{names} already there and not written by this program (or changed since); give another place, or --force to replace."
    )


def progress_bars() -> Progress:
    """Bars on the standard error stream."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=messages,
    )
