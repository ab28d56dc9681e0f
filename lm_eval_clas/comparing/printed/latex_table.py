r"""A comparison as a table for a paper: booktabs, names as people write them, the best in bold, daggers, notes below.

The caption is short; what was tested, and what must be known, is a note in small print under the table.
"""

from __future__ import annotations

import re

from lm_eval_clas.base.escaping import latex_text
from lm_eval_clas.comparing.layouts import Layout, Orientation, Style, caption, layout, legend
from lm_eval_clas.comparing.printed.aligned_numbers import SETUP, aligned
from lm_eval_clas.comparing.printed.written_names import spoken, written, written_family, written_metric
from lm_eval_clas.comparing.rows import Comparison

# Characters of a table that fit the width of a page, in the size that we choose or only a little smaller.
_PAGE = 110
_DAGGER = r"$^{\dagger}$"
_USE = r"\usepackage"


def _shortstack(lines: list[str]) -> str:
    joined = r" \\ ".join(lines)
    return joined if len(lines) == 1 else f"\\shortstack{{{joined}}}"


LATEX = Style(
    text=latex_text,
    stacked=_shortstack,
    signed=lambda number: f"${number}$",
    negative=lambda number: f"$-${number[1:]}",
    best=lambda number: f"\\textbf{{{number}}}",
    star=_DAGGER,
    hanging=lambda star: f"\\rlap{{{star}}}",
)


def latex(comparison: Comparison, languages: Orientation | None = None, siunitx: bool = False, name: str | None = None) -> str:
    r"""A table environment for `\input`, which needs the packages booktabs and graphicx.

    Args:
        comparison: what `compare` gives.
        languages: as `columns`, shrunk to the width of the page where they are many, or as `rows`. Default: whichever fits.
        siunitx: whether numbers are put below each other by their decimal points, which needs that package, too.
        name: of the label, for a paper with several tables of one family; default: the family.
    """
    heading, comparison = _caption(comparison), written(comparison)
    across = sum(width + 1 for width in layout(comparison, "columns").widths) - 1
    chosen = languages or ("columns" if across <= _PAGE else "rows")
    drawn = layout(comparison, chosen, LATEX)
    cells = drawn.frame if chosen == "rows" else drawn.frame.set_axis(drawn.headings, axis=1)
    align, cells = aligned(cells) if siunitx else ("l" + "r" * (len(drawn.headings) - 1), cells)
    body = _ruled(cells.to_latex(index=False, escape=False, column_format=align, multicolumn_format="c"), drawn)
    body = f"\\resizebox{{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}}{{!}}{{%\n{body}}}\n"
    packages = ["booktabs", "graphicx", *(["siunitx"] if siunitx else [])]
    return (
        f"% Needs {' and '.join(f'{_USE}{{{one}}}' for one in packages)}{', version 3 or later' if siunitx else ''}.\n"
        f"\\begin{{table}}\n\\centering\\footnotesize\\setlength{{\\tabcolsep}}{{3pt}}\n{SETUP if siunitx else ''}"
        f"\\caption{{{latex_text(heading)}}}\n\\label{{tab:{plain_name(name or comparison.family)}}}\n"
        f"\\par\\smallskip\n{body}"
        f"\\par\\medskip\\begin{{minipage}}{{\\linewidth}}\\footnotesize\n{_note(comparison)}\n\\end{{minipage}}\n\\end{{table}}\n"
    )


def plain_name(name: str) -> str:
    """A name that a file and a LaTeX label can have."""
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in name)


def _caption(comparison: Comparison) -> str:
    """One sentence: the metric, the task, how many languages, and what gains are over."""
    count = len(comparison.languages)
    metric = written_metric(comparison.metric, comparison.family)
    unit = "" if comparison.unit in (metric, comparison.metric.partition(",")[0]) else f" ({comparison.unit})"
    over = [spoken(comparison, row) for row in comparison.rows if row.kind == "baseline"]
    gains = f", and gains over {over[0]}" if over and len(comparison.rows) > 1 else ""
    task = written_family(comparison.family)
    return f"{metric[0].upper()}{metric[1:]}{unit} on {task} in {count} language{'s' * (count != 1)}{gains}."


def _note(comparison: Comparison) -> str:
    """What was scored, what the marks mean, how it was tested, and what else must be known, in one paragraph."""
    family, metric, rest = map(latex_text, caption(comparison))
    parts = [f"\\texttt{{{metric}}} of \\texttt{{{family}}} {rest}."]
    if len(comparison.rows) > 1:
        parts.append("Bold: the best score.")
    if marks := latex_text(legend(comparison)):
        parts.append((f"{_DAGGER}: " if comparison.test != "none" else "") + f"{marks}.")
    return "\n".join([*parts, *(latex_text(note) for note in comparison.notes)])


def _ruled(tabular: str, drawn: Layout) -> str:
    """Lines above the layout's rules, in what pandas wrote: a row is a line, from the one after the last heading on.

    A short line goes under each heading of several columns.
    """
    lines = tabular.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith(r"\midrule")) + 1
    for rule in sorted(drawn.rules, reverse=True):
        lines.insert(first + rule, "\\midrule\n")
    for number, line in reversed(list(enumerate(lines[:first]))):
        if spans := _spans(line):
            lines.insert(number + 1, "".join(f"\\cmidrule(lr){{{start}-{end}}}" for start, end in spans) + "\n")
    return "".join(lines)


def _spans(heading: str) -> list[tuple[int, int]]:
    """The first and the last column of each heading over several columns, counted from 1."""
    found, column = [], 1
    for cell in heading.split(" & "):
        spread = re.match(r"\s*\\multicolumn\{(\d+)\}", cell)
        width = int(spread[1]) if spread else 1
        if spread:
            found.append((column, column + width - 1))
        column += width
    return found
