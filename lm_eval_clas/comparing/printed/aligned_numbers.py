r"""Numbers of a LaTeX table below each other by their decimal points: columns `S` of the package siunitx, from version 3 on.

A column in which no cell is a number alone stays as it is. In the others, whatever is no number goes into braces, as siunitx
asks for.
"""

from __future__ import annotations

import re
from typing import Any

# A number as `latex_table.py` writes it: 33.7, \textbf{33.7}, $-$0.5, $+0.5$ or $-1.2$\rlap{...}.
_NUMBER = re.compile(
    r"(?P<bold>\\textbf\{)?\$?(?P<sign>[+-]?)\$?(?P<whole>\d+)(?:\.(?P<part>\d+))?\$?(?(bold)\})(?P<mark>\\rlap\{.*\})?"
)

# Bold digits, which siunitx would otherwise print in the weight of formulae; it holds within the table.
SETUP = "\\sisetup{text-series-to-math}\n"


def aligned(frame: Any) -> tuple[str, Any]:
    r"""The columns' types for `tabular`, and the frame with its cells and headings as these need them.

    Args:
        frame: a DataFrame of LaTeX, whose first column names the rows; headings are texts or tuples of texts.
    """
    import pandas as pd

    types, changed = ["l"], frame.copy()
    for number in range(1, len(frame.columns)):
        cells = [(cell, _NUMBER.fullmatch(cell)) for cell in frame.iloc[:, number]]
        found = [one for _, one in cells if one]
        types.append(_type(found) if found else "r")
        changed.isetitem(number, [_number(one) if one else _text(cell) for cell, one in cells])
    headings = list(frame.columns)
    braced = [tuple(map(_text, one)) if isinstance(one, tuple) else _text(one) for one in headings[1:]]
    return "".join(types), changed.set_axis(pd.Index(headings[:1] + braced), axis=1)


def _type(numbers: list[re.Match[str]]) -> str:
    """With room for the sign, and for as many digits as any of the numbers has before and after its point."""
    sign = "-" if any(one["sign"] for one in numbers) else ""
    part = max(len(one["part"] or "") for one in numbers)
    return f"S[table-format={sign}{max(len(one['whole']) for one in numbers)}{f'.{part}' if part else ''}]"


def _number(found: re.Match[str]) -> str:
    bold = r"\bfseries " if found["bold"] else ""
    part = f".{found['part']}" if found["part"] else ""
    return bold + found["sign"] + found["whole"] + part + _text(found["mark"] or "")


def _text(cell: str) -> str:
    return f"{{{cell}}}" if cell else ""
