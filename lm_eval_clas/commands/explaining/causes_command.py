"""`clas causes`: what goes with a language's gain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lm_eval_clas.base.errors import ClasError, first_line
from lm_eval_clas.commands.application import Force, Json, app, console, messages, path_argument, path_option, replacing_file
from lm_eval_clas.commands.explaining.shown_numbers import number_table, print_analysis, two_digits, write_analysis
from lm_eval_clas.commands.shared_options import JsonFileOption

if TYPE_CHECKING:
    from lm_eval_clas.geometry.causes import Causes


@app.command()
def causes(
    table: Annotated[Path, path_argument("A table of runs that clas table wrote as JSON.", "TABLE.json")],
    masks: Annotated[str, typer.Option(help="The masks that the run was steered with.")],
    model: Annotated[str, typer.Option(help="The model, for its tokenizer.")],
    run: Annotated[str, typer.Option(help="The label of the run in the table.")],
    corpus: Annotated[
        str | None, typer.Option(help="Texts to count tokens on, as for clas profile; default: the masks' corpus.")
    ] = None,
    geometry: Annotated[
        Path | None, path_option("geometry.json of the same steering: do scores change where representations do?")
    ] = None,
    out: JsonFileOption = None,
    seed: Annotated[int, typer.Option(help="Of the resampling behind intervals and p-values.", min=0)] = 0,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Put candidate causes beside each language's gain, with correlations over languages, and say if these are too few."""
    from transformers import AutoTokenizer

    from lm_eval_clas.base.logs import quiet_libraries
    from lm_eval_clas.comparing.rows import Comparison
    from lm_eval_clas.geometry.causes import find_causes, tokens_per_character
    from lm_eval_clas.geometry.measurements import Geometry
    from lm_eval_clas.masks.mask_set import MaskSet
    from lm_eval_clas.texts.corpora import ParallelInputBuilder

    with replacing_file(out, force):
        quiet_libraries()
        comparison = _read(table, Comparison, "clas table ... --format json")
        moved = _read(geometry, Geometry, "clas geometry") if geometry else None
        loaded = MaskSet.load(masks)
        texts = ParallelInputBuilder(corpus or loaded.config.corpus.name).build()
        try:
            tokenizer = AutoTokenizer.from_pretrained(model)
        except Exception as error:  # transformers and the Hub raise every kind for a wrong name
            reason = first_line(error)
            raise ClasError(f"Cannot load the tokenizer of '{model}': {reason}") from error
        found = find_causes(comparison, run, loaded, tokens_per_character(tokenizer, texts), moved, seed)
        if as_json:
            print_analysis(found)
        else:
            _show_causes(found)
        write_analysis(found, out)


def _read(path: Path, kind: Any, maker: str) -> Any:
    from lm_eval_clas.disk.checked_json import read_as

    return read_as(kind, path, f"make a {kind.__name__.lower()} with '{maker}'.")


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None else f"{two_digits(low, '+')} {two_digits(high, '+')}"


def _show_causes(found: Causes) -> None:
    names = list(dict.fromkeys(name for row in found.rows.values() for name in row))
    table = number_table(f"{found.run} in {found.family}: gain and candidate causes", "lang", *names)
    for language, row in found.rows.items():
        table.add_row(language, *(f"{row[name]:.3g}" if name in row else "-" for name in names))
    console.print(table)
    if found.left_out:
        told = ", ".join(f"{language} ({why})" for language, why in found.left_out.items())
        console.print(f"Left out, as they were not steered: {escape(told)}.", highlight=False)
    if found.averaged:
        told = "; ".join(map(", ".join, found.averaged))
        console.print(f"Columns of one language, whose mean is in the correlations: {escape(told)}.", highlight=False)
    table = number_table("Correlation with the gain, over languages, with 95 % intervals",
                   "cause", "n", "Pearson", "interval", "p", "Spearman", "interval", "p")  # fmt: skip
    for one in found.correlations:
        table.add_row(
            one.cause,
            str(one.n),
            two_digits(one.pearson, "+"),
            _interval(one.pearson_low, one.pearson_high),
            two_digits(one.pearson_p),
            two_digits(one.spearman, "+"),
            _interval(one.spearman_low, one.spearman_high),
            two_digits(one.spearman_p),
        )
    console.print(table)
    for warning, named in found.warned.items():
        which = ", ".join(named) if len(named) <= 4 else f"{len(named)} of {len(found.correlations)} causes"
        messages.print(f"[bold]Note[/bold] ({escape(which)}): {escape(warning)}", highlight=False)
