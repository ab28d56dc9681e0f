"""A table on a narrow screen loses nothing: its columns go below each other, and numbers stay whole."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from lm_eval_clas.base.folded_table import FoldedTable
from lm_eval_clas.base.screen import Screen

NUMBERS = [f"{1000 + column}.{row}" for row in range(2) for column in range(12)]


def drawn(width: int, kind: type[Table] = FoldedTable, **options: int) -> list[str]:
    table = kind("task", "lang", title="Some scores", **options)
    for column in range(12):
        table.add_column(f"a heading {column}", justify="right")
    for row in range(2):
        table.add_row("clas_xquad_with_a_name_of_some_length", f"l{row}", *NUMBERS[12 * row : 12 * (row + 1)])
    screen = Screen(file=io.StringIO(), width=width)
    screen.print(table)
    return screen.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_numbers_stay_whole_and_rows_are_named_in_every_panel(width: int) -> None:
    lines = drawn(width, keys=2)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert [number for number in NUMBERS if words.count(number) != 1] == []
    assert "…" not in "".join(lines)
    panels = sum("─" in line for line in lines)
    assert panels > 1
    assert words.count("l1") == panels
    assert words.count("Some") == 1


def test_a_wide_screen_has_one_panel_as_rich_draws_it() -> None:
    lines = drawn(300)
    assert sum("─" in line for line in lines) == 1
    assert len(lines) == len(drawn(300, keys=2))


def test_a_table_of_texts_is_folded_in_place_as_long_as_that_can_be_read() -> None:
    table = FoldedTable("name", "why")
    table.add_row("one", "because " * 20)
    screen = Screen(file=io.StringIO(), width=60)
    screen.print(table)
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert text.split().count("because") == 20
    assert sum("─" in line for line in text.splitlines()) == 1
