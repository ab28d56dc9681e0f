"""What the commands of analyses share: how they show numbers, and the file that they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from lm_eval_clas.base.folded_table import FoldedTable
from lm_eval_clas.base.screen import print_out
from lm_eval_clas.commands.application import notes

if TYPE_CHECKING:
    from pydantic import BaseModel


def number_table(title: str, *columns: str) -> FoldedTable:
    """A table whose first column is text and whose others are numbers."""
    table = FoldedTable(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def two_digits(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f}"


def write_analysis(found: BaseModel, out: Path | None) -> None:
    from lm_eval_clas.disk.checked_json import write_as

    if out is not None:
        write_as(found, out)
        notes.print(f"Wrote {escape(str(out))}", soft_wrap=True)


def print_analysis(found: BaseModel) -> None:
    """All that was found, as JSON."""
    print_out(json.dumps(found.model_dump(), indent=1, ensure_ascii=False))
