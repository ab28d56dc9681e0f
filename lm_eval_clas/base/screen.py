"""What is written to the terminal: nothing from a file moves its cursor, changes its colours, or turns text round."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol

from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from lm_eval_clas.base.escaping import visible


class Bar(Protocol):
    """A line that is drawn again and again in its place."""

    @property
    def console(self) -> Console: ...
    def hidden(self) -> AbstractContextManager[None]: ...


class Screen(Console):
    """rich's console, in which the only control characters are its own: what it renders is made visible, text by text.

    Attributes:
        bar: what is being drawn at the moment, on one of the screens (`job_progress.py`); a text for another screen of the same
            terminal takes its place, and it is drawn again below.
    """

    bar: ClassVar[Bar | None] = None

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's."""
        bar = Screen.bar
        with bar.hidden() if bar and bar.console is not self and self.is_terminal else nullcontext():
            super().print(*objects, **options)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of anything that rich can draw."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n":
                yield segment
            else:
                yield Segment(visible(segment.text, keep="\n"), segment.style)


def print_out(text: object, end: str = "\n") -> None:
    """Prints a text of several lines, such as a table as CSV or JSON, to the standard output, as it is but visible."""
    print(visible(f"{text}{end}", keep="\n\t"), end="")
