"""`Commands`: the application, whose commands end by Ctrl-C with a line, are quiet if asked to, and name the nearest choice.

A command may have a function that tells what is kept when it is stopped:

    @app.command(kept=lambda out, **_: f"Finished: {...}. The same command goes on from there.")
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from lm_eval_clas.base.near_names import did_you_mean

STOPPED = 130  # what shells take for the exit code of a program that Ctrl-C ended
_Work = Callable[..., Any]
_QUIET = Annotated[bool, typer.Option("--quiet", help="Print results and errors only: no progress, no notes.")]


def kept_whole(**_: Any) -> str:
    """What is said of a command that writes at its end, if at all."""
    return "Files are written whole or not at all; the same command starts from the beginning."


class Commands(typer.Typer):
    """typer's application with the same manners for every command.

    Args:
        be_quiet: is called before a command for which `--quiet` was given.
        told_of_stop: is given the sentence on what is kept of a command that Ctrl-C ended.
        **settings: as of typer's.

    Attributes:
        stop_told: whether it was said already what is kept of the command that runs.
    """

    def __init__(self, be_quiet: Callable[[], None], told_of_stop: Callable[[str], None], **settings: Any) -> None:
        super().__init__(**settings)
        self._be_quiet, self._told_of_stop = be_quiet, told_of_stop
        self.stop_told = False

    def tell_stop(self, sentence: str) -> None:
        """Says what is kept of what Ctrl-C ended, unless that was said already."""
        if not self.stop_told:
            self.stop_told = True
            self._told_of_stop(sentence)

    def command(  # type: ignore[override]  # the kind of command is ours
        self, name: str | None = None, *, kept: Callable[..., str] = kept_whole, **settings: Any
    ) -> Callable[[_Work], _Work]:
        """As typer's.

        Args:
            name: default: that of the function.
            kept: tells, from the arguments of the command, what is kept of it when it is stopped, and how to go on.
            **settings: as of typer's.
        """
        register = super().command(name, cls=_Choosing, **settings)

        def add(work: _Work) -> _Work:
            register(self._mannered(work, kept))
            return work

        return add

    def _mannered(self, work: _Work, kept: Callable[..., str]) -> _Work:
        @functools.wraps(work)
        def run(*, quiet: bool, **given: Any) -> Any:
            if quiet:
                self._be_quiet()
            try:
                return work(**given)
            except KeyboardInterrupt:
                self.tell_stop(kept(**given))
                raise typer.Exit(STOPPED) from None

        hints = get_type_hints(work, include_extras=True)
        given = [one.replace(annotation=hints[one.name]) for one in inspect.signature(work).parameters.values()]
        last = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_QUIET)
        run.__signature__ = inspect.Signature([*given, last])  # type: ignore[attr-defined]
        run.__annotations__ = {**hints, "quiet": _QUIET}
        return run


class _Choosing(TyperCommand):
    """A command that says which choice is nearest to one that there is not."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            if isinstance(error.message, str) and (found := re.search("'([^']*)' is not one of (.*)", error.message)):
                meant = did_you_mean(found[1], re.findall("'([^']*)'", found[2]))
                error.message = f"{error.message.rstrip('.')}{meant}."
            raise
