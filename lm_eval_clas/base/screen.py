"""What is written to the terminal: nothing from a file moves its cursor, changes its colours, or turns text round."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from lm_eval_clas.base.escaping import visible


class Screen(Console):
    """rich's console, in which the only control characters are its own: what it renders is made visible, text by text."""

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
