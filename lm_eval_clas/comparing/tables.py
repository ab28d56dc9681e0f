"""A comparison as a table to print: Markdown, LaTeX, CSV, JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lm_eval_clas.base.escaping import latex_text, markdown_text
from lm_eval_clas.comparing.layouts import LATEX, MARKDOWN, Layout, Orientation, caption, layout, legend
from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.disk.files import write_text

# Characters of a table that fit the width of a page, in the size that we choose or only a little smaller.
_PAGE = 110
_ENDINGS = (".md", ".tex", ".csv", ".json")


def markdown_table(comparison: Comparison, languages: Orientation | None = None) -> str:
    """A GitHub table with its title above and what must be known of it below.

    Args:
        comparison: what `compare` gives.
        languages: as `columns`, which is the default, or as `rows`.
    """
    drawn = layout(comparison, languages or "columns", MARKDOWN)
    align = ("left", *["right"] * (len(drawn.headings) - 1))
    # headers: a list, as two columns may have one heading; disable_numparse: numbers stay as they are
    table = drawn.frame.to_markdown(index=False, headers=drawn.headings, colalign=align, disable_numparse=True)
    family, metric, rest = caption(comparison)
    parts = [f"**`{family}`**: `{metric}` {markdown_text(rest)}", table]
    if marks := legend(comparison):
        parts.append((r"\*: " if comparison.test != "none" else "") + f"{markdown_text(marks)}.")
    if comparison.notes:
        parts.append("\n".join(f"- {markdown_text(note)}" for note in comparison.notes))
    return "\n\n".join(parts) + "\n"


def latex(comparison: Comparison, languages: Orientation | None = None) -> str:
    r"""A table environment for `\input`, which needs the packages booktabs and graphicx.

    Args:
        comparison: what `compare` gives.
        languages: as `columns`, shrunk to the width of the page where they are many, or as `rows`. Default: whichever fits.
    """
    chosen = languages or ("columns" if _width(comparison, "columns") <= _PAGE else "rows")
    drawn = layout(comparison, chosen, LATEX)
    cells = drawn.frame if chosen == "rows" else drawn.frame.set_axis(drawn.headings, axis=1)
    align = "l" + "r" * (len(drawn.headings) - 1)
    body = _ruled(cells.to_latex(index=False, escape=False, column_format=align, multicolumn_format="c"), drawn)
    body = f"\\resizebox{{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}}{{!}}{{%\n{body}}}\n"
    family, metric, rest = map(latex_text, caption(comparison))
    marks = latex_text(legend(comparison))
    marks = (" *: " if comparison.test != "none" else " ") + f"{marks}." if marks else ""
    notes = "".join(f"\n\n{latex_text(note)}" for note in comparison.notes)
    return (
        "% Needs \\usepackage{booktabs} and \\usepackage{graphicx}.\n"
        "\\begin{table}\n\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}\n"
        f"\\caption{{\\texttt{{{family}}}: {metric} {rest}.{marks}}}\n\\label{{tab:{_plain(comparison.family)}}}\n"
        f"\\par\\smallskip\n{body}" + (f"\\par\\medskip\\raggedright\\scriptsize{notes}\n" if notes else "") + "\\end{table}\n"
    )


def csv(comparisons: Sequence[Comparison]) -> str:
    """A line for each run and language, and one for its average, whose language is empty; numbers unrounded."""
    import pandas as pd

    return str(pd.concat([frame(one) for one in comparisons]).to_csv(index=False, lineterminator="\n"))


def frame(comparison: Comparison) -> Any:
    """The comparison as a DataFrame: a row for each run and language, and one for its average, whose language is None."""
    import pandas as pd

    about = {name: getattr(comparison, name) for name in ("family", "metric", "unit", "test", "baseline")}
    lines: list[dict[str, Any]] = []
    for row in comparison.rows:
        who = {**about, "run": row.label, "kind": row.kind}
        for language, cell in row.cells.items():
            lines.append({**who, "language": language, "task": comparison.tasks[language], **cell.model_dump()})
        summary = row.model_dump(exclude={"label", "kind", "cells", "steering", "average"})
        lines.append({**who, "language": None, "score": row.average, **summary})
    numbers = ("items", "clusters", "losses", "significant_losses", "significant_gains")
    return pd.DataFrame(lines).astype(dict.fromkeys(numbers, "Int64"))


def json(comparisons: Sequence[Comparison]) -> str:
    """The comparison as it is, or a list of several."""
    if len(comparisons) == 1:
        return comparisons[0].model_dump_json(indent=2) + "\n"
    return "[" + ",\n".join(one.model_dump_json(indent=2) for one in comparisons) + "]\n"


def write_tables(
    comparison: Comparison, folder: str | Path, languages: Orientation | None = None, name: str | None = None
) -> list[Path]:
    """Writes NAME.md, .tex, .csv and .json into a folder, each whole or not at all, and returns their paths.

    Args:
        comparison: what `compare` gives.
        folder: is made if it is not there.
        languages: as `columns` or `rows`, in Markdown and LaTeX; default: columns, and in LaTeX whichever fits the page.
        name: of the files; default: the family.

    Raises:
        ClasError: the folder cannot be written.
    """
    formats: dict[str, Callable[[Comparison], str]] = {
        ".md": lambda one: markdown_table(one, languages),
        ".tex": lambda one: latex(one, languages),
        ".csv": lambda one: csv([one]),
        ".json": lambda one: json([one]),
    }
    paths = [Path(folder) / one for one in file_names(comparison, name)]
    for path in paths:
        write_text(path, formats[path.suffix](comparison))
    return paths


def file_names(comparison: Comparison, name: str | None = None) -> list[str]:
    """The names of the files that `write_tables` writes."""
    return [f"{_plain(name or comparison.family)}{ending}" for ending in _ENDINGS]


def _plain(name: str) -> str:
    """A name that a file and a LaTeX label can have."""
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in name)


def _width(comparison: Comparison, languages: Orientation) -> int:
    """In characters, with one space between columns."""
    return sum(width + 1 for width in layout(comparison, languages).widths) - 1


def _ruled(tabular: str, drawn: Layout) -> str:
    """Lines above the layout's rules, in what pandas wrote: a row is a line, from the one after the last heading on."""
    lines = tabular.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith(r"\midrule")) + 1
    for rule in sorted(drawn.rules, reverse=True):
        lines.insert(first + rule, "\\midrule\n")
    return "".join(lines)
