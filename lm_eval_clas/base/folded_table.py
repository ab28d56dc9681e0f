"""`FoldedTable`: a table that loses nothing where the screen is narrow."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

_NARROWEST = 12  # of a column of texts, before other columns move below it


class FoldedTable(Table):
    """A table whose columns go below each other where they do not fit side by side, each time behind those that name the row.

    Columns that are justified to the right hold numbers, which are never cut or broken; those to the left hold texts, which are
    folded to no less than a few letters before a column moves.

    Args:
        headings: of columns to the left.
        keys: how many of the first columns name the row.
        **options: as of rich's tables.
    """

    def __init__(self, *headings: Column | str, keys: int = 1, **options: Any) -> None:
        self._keys = keys
        super().__init__(*headings, **{"box": SIMPLE_HEAD, "pad_edge": False, "title_justify": "left", **options})

    def add_column(self, *arguments: Any, **options: Any) -> None:
        """As rich's, with long texts folded and not cut."""
        super().add_column(*arguments, **{"overflow": "fold", **options})

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        spare = options.max_width - self._extra_width
        if sum(self._measure_column(console, options, one).maximum for one in self.columns) <= spare:
            yield from super().__rich_console__(console, options)
            return
        least = [self._least(console, options, one) for one in self.columns]
        keys = list(range(self._keys))
        panels: list[list[int]] = [keys.copy()]
        for number in range(self._keys, len(self.columns)):
            if len(panels[-1]) > self._keys and sum(least[one] for one in (*panels[-1], number)) > spare:
                panels.append(keys.copy())
            panels[-1].append(number)
        for count, panel in enumerate(panels):
            part = self._part(console, panel, options, None if count else self.title)
            yield from Table.__rich_console__(part, console, options)

    def _least(self, console: Console, options: ConsoleOptions, column: Column) -> int:
        """The least width of a column, with its padding."""
        padding = self._get_padding_width(column._index)
        whole = self._measure_column(console, options, column)
        if column.justify == "right":
            return max(whole.minimum, self._longest_cell(console, options, column) + padding)
        return min(whole.maximum, max(_NARROWEST, column.min_width or 0) + padding)

    def _longest_cell(self, console: Console, options: ConsoleOptions, column: Column) -> int:
        return max((Measurement.get(console, options, cell).maximum for cell in column.cells), default=1)

    def _part(self, console: Console, panel: list[int], options: ConsoleOptions, title: Any) -> Table:
        """Some of the columns, those with numbers in the width that they need."""
        part = FoldedTable(title=title, box=self.box, pad_edge=self.pad_edge, padding=self.padding)
        for number in panel:
            column = self.columns[number]
            copied = column.copy()
            if column.justify == "right":
                copied.width = self._least(console, options, column) - self._get_padding_width(number)
                copied.no_wrap = False  # a heading may be longer than what is below it
            copied._index = len(part.columns)
            copied._cells = list(column.cells)
            part.columns.append(copied)
        part.rows = list(self.rows)
        return part
