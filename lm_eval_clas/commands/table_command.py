"""`clas table`: runs of the harness side by side, with tests that say what can be told apart."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.text import Text

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.folded_table import FoldedTable
from lm_eval_clas.base.screen import print_out
from lm_eval_clas.commands.application import Force, Json, app, console, messages, parse_words, path_option, replacing
from lm_eval_clas.commands.shared_options import ClusterOption, MetricOption

if TYPE_CHECKING:
    from lm_eval_clas.comparing.layouts import Orientation
    from lm_eval_clas.comparing.rows import Comparison


class TableFormat(str, Enum):
    """What is printed."""

    md = "md"
    latex = "latex"
    csv = "csv"
    json = "json"


class Languages(str, Enum):
    """Where languages go."""

    rows = "rows"
    columns = "columns"


@app.command(name="table")
def table_command(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULTS",
            help="Results files of lm_eval (any model), or folders, searched with all that is in them; LABEL=PATH names a row.",
            show_default=False,
        ),
    ],
    baseline: Annotated[
        str | None, typer.Option(help="Label of the row to compare with; default: hf, or the one that steers nothing.")
    ] = None,
    tasks: Annotated[str, typer.Option(help="Families, e.g. clas_xnli,clas_xquad; default: all that the runs have.")] = "",
    metric: MetricOption = None,
    languages: Annotated[
        Languages | None, typer.Option(help="Languages as columns or rows; default: columns, where they fit.")
    ] = None,
    format: Annotated[TableFormat | None, typer.Option(help="Print this; default: a table for the terminal.")] = None,
    out: Annotated[Path | None, path_option("Write FAMILY.md, .tex, .csv and .json into this folder.")] = None,
    siunitx: Annotated[
        bool, typer.Option("--siunitx", help="In LaTeX: numbers aligned at their decimal points, with the package siunitx (3).")
    ] = False,
    cited: Annotated[bool, typer.Option("--cited", help="Add the CLAS paper's averages, marked as cited.")] = False,
    without_anchor: Annotated[
        bool, typer.Option("--without-anchor", help="Leave the anchor (English), which is not steered, out of averages.")
    ] = False,
    cluster: ClusterOption = None,
    resamples: Annotated[int, typer.Option(help="Of permutation tests and the bootstrap.", min=100)] = 10_000,
    seed: Annotated[int, typer.Option(help="Of permutation tests and the bootstrap.", min=0)] = 0,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Compare runs of lm_eval language by language: gains, paired tests, intervals; as a table for a paper."""
    from lm_eval_clas.comparing import tables
    from lm_eval_clas.comparing.compare_runs import compare
    from lm_eval_clas.comparing.results_files import read_runs
    from lm_eval_clas.comparing.row_notes import about_few_items
    from lm_eval_clas.comparing.task_families import families

    if as_json and format not in (None, TableFormat.json):
        raise ClasError(f"--json prints JSON, and --format {format.value} something else; drop one of them.")
    if siunitx and format is not TableFormat.latex and out is None:
        raise ClasError("--siunitx changes LaTeX tables and nothing else; give it together with --format latex or --out.")
    runs = read_runs(results)
    for run in runs:
        if run.superseded:
            names = ", ".join(path.name for path in run.superseded)
            messages.print(f"{run.label}: newer results replace {names}", style="dim", highlight=False, markup=False)
    chosen = parse_words(tasks) or list(families(runs))
    if not chosen:
        raise ClasError("None of the runs has a task with a language in its name, such as clas_xnli_hi; nothing to compare.")
    orientation: Orientation | None = None if languages is None else languages.value  # type: ignore[assignment]
    comparisons = [
        compare(
            runs,
            family,
            metric,
            baseline,
            without_anchor=without_anchor,
            cited=cited,
            cluster=cluster,
            resamples=resamples,
            seed=seed,
        )
        for family in chosen
    ]
    for one in comparisons if format is not None else ():
        for note in about_few_items(one.rows, one.unit):  # on a screen it is below the table
            messages.print(f"Warning, {one.family}: {note}", highlight=False, markup=False)
    if format is TableFormat.csv:
        print_out(tables.csv(comparisons), end="")
    elif as_json or format is TableFormat.json:
        print_out(tables.json(comparisons), end="")
    elif format is not None:
        drawn = [
            tables.markdown_table(one, orientation) if format is TableFormat.md else tables.latex(one, orientation, siunitx)
            for one in comparisons
        ]
        print_out("\n".join(drawn), end="")
    else:
        for one in comparisons:
            _show(one, orientation)
    if out is not None:
        with replacing(out, [name for one in comparisons for name in tables.file_names(one)], force):
            paths = [path for one in comparisons for path in tables.write_tables(one, out, orientation, siunitx=siunitx)]
        messages.print(f"Wrote {escape(', '.join(map(str, paths)))}", highlight=False, soft_wrap=True)


def _show(comparison: Comparison, languages: Orientation | None) -> None:
    """On the terminal: languages as columns if that fits, and else as rows, of as many runs at a time as fit."""
    from lm_eval_clas.comparing.layouts import caption, legend, title

    if languages is None:
        languages = "columns" if _width(comparison, "columns") <= console.width else "rows"
    console.print(Text.assemble((comparison.family, "bold"), ": ", " ".join(caption(comparison)[1:])))
    for part in _panels(comparison) if languages == "rows" else [comparison]:
        console.print(_drawn(part, languages))
    for row in comparison.rows if languages == "rows" else ():
        if row.kind == "cited" and row.gain is not None:
            console.print(Text(f"{title(row)}: average gain {row.gain:+.2f}"))
    if marks := legend(comparison):
        console.print(Text(f"{'*: ' if comparison.test != 'none' else ''}{marks}", style="dim"))
    for note in comparison.notes:
        console.print(Text(f"Note: {note}", style="dim"))
    console.print()


def _panels(comparison: Comparison) -> list[Comparison]:
    """The comparison in parts that fit the screen, each with the baseline; without what is cited, which has no languages."""
    baseline, *others = [row for row in comparison.rows if row.kind != "cited"]
    panels = [[baseline]]
    for row in others:
        more = [*panels[-1], row]
        if len(more) > 2 and _width(comparison.model_copy(update={"rows": more}), "rows") > console.width:
            more = [baseline, row]
            panels.append(more)
        panels[-1] = more
    return [comparison.model_copy(update={"rows": rows}) for rows in panels]


def _width(comparison: Comparison, languages: Orientation) -> int:
    """Of `_drawn`, which puts two spaces between columns and may break long labels."""
    from lm_eval_clas.comparing.layouts import layout

    labels, *others = layout(comparison, languages).widths
    return min(labels, 24) + sum(others) + 2 * len(others) + 2


def _drawn(comparison: Comparison, languages: Orientation) -> FoldedTable:
    from lm_eval_clas.comparing.layouts import broken, layout

    drawn = layout(comparison, languages)
    table = FoldedTable(padding=(0, 1, 0, 0))
    for number, heading in enumerate(drawn.headings):
        lines = Text("\n".join(broken(heading)))
        table.add_column(lines, justify="right" if number else "left", no_wrap=number > 0, vertical="top")
    for number, line in enumerate(drawn.frame.itertuples(index=False, name=None)):
        if number in drawn.rules and languages == "rows":
            table.add_section()
        table.add_row(*(Text(cell, style="bold" if cell.endswith("*") else "") for cell in line))
    return table
