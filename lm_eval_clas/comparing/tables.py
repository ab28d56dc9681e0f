"""A comparison as a table to print: Markdown, LaTeX (`printed/latex_table.py`), CSV, JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lm_eval_clas.base.escaping import markdown_text
from lm_eval_clas.comparing.layouts import MARKDOWN, Orientation, caption, layout, legend
from lm_eval_clas.comparing.printed.latex_table import latex as latex
from lm_eval_clas.comparing.printed.latex_table import plain_name
from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.disk.files import write_text

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


def csv(comparisons: Sequence[Comparison]) -> str:
    """A line for each run and language, and one for its average, whose language is empty; numbers unrounded."""
    import pandas as pd

    return str(pd.concat([frame(one) for one in comparisons]).to_csv(index=False, lineterminator="\n"))


def frame(comparison: Comparison) -> Any:
    """The comparison as a DataFrame: a row for each run and language, and one for its average, whose language is None."""
    import pandas as pd

    about = {name: getattr(comparison, name) for name in ("family", "metric", "unit", "higher_is_better", "test", "baseline")}
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
    comparison: Comparison,
    folder: str | Path,
    languages: Orientation | None = None,
    name: str | None = None,
    siunitx: bool = False,
) -> list[Path]:
    """Writes NAME.md, .tex, .csv and .json into a folder, each whole or not at all, and returns their paths.

    Args:
        comparison: what `compare` gives.
        folder: is made if it is not there.
        languages: as `columns` or `rows`, in Markdown and LaTeX; default: columns, and in LaTeX whichever fits the page.
        name: of the files; default: the family.
        siunitx: as in `latex`.

    Raises:
        ClasError: the folder cannot be written.
    """
    formats: dict[str, Callable[[Comparison], str]] = {
        ".md": lambda one: markdown_table(one, languages),
        ".tex": lambda one: latex(one, languages, siunitx, name),
        ".csv": lambda one: csv([one]),
        ".json": lambda one: json([one]),
    }
    paths = [Path(folder) / one for one in file_names(comparison, name)]
    for path in paths:
        write_text(path, formats[path.suffix](comparison))
    return paths


def file_names(comparison: Comparison, name: str | None = None) -> list[str]:
    """The names of the files that `write_tables` writes."""
    return [f"{plain_name(name or comparison.family)}{ending}" for ending in _ENDINGS]
