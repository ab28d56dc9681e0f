"""What the commands of analyses share: how they show numbers, and the file that they write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from lm_eval_clas.commands.application import console

if TYPE_CHECKING:
    from pydantic import BaseModel


def number_table(title: str, *columns: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def two_digits(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f}"


def write_analysis(found: BaseModel, out: Path | None) -> None:
    from lm_eval_clas.disk.checked_json import write_as

    if out is not None:
        write_as(found, out)
        console.print(f"Wrote {escape(str(out))}", soft_wrap=True)
