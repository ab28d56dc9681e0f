"""`clas families`: which families of decoders are supported, tried on tiny random models."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.folded_table import FoldedTable
from lm_eval_clas.base.near_names import did_you_mean
from lm_eval_clas.base.screen import print_out
from lm_eval_clas.commands.application import Json, app, console, notes, progress_bars


@app.command(name="families")
def list_families(
    names: Annotated[list[str] | None, typer.Argument(help="Families, e.g. llama qwen3_moe; default: all of them.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table, as docs/families.md has it.")] = False,
    as_json: Json = False,
) -> None:
    """Show which families of decoders are supported: each is tried on a tiny model with random weights."""
    from lm_eval_clas.base.logs import quiet_libraries
    from lm_eval_clas.families import family_table
    from lm_eval_clas.families.family_trial import try_family
    from lm_eval_clas.families.tried_in_vllm import tried_in_vllm

    quiet_libraries()
    known = family_table.decoder_families()
    if unknown := [name for name in names or [] if name not in known]:
        raise ClasError(
            f"transformers has no causal language model of the family '{unknown[0]}'"
            f"{did_you_mean(unknown[0], known)}; give the model_type of a config.json, or no name for all families."
        )
    trials = []
    with progress_bars() as progress:
        task = progress.add_task("families", total=len(names or known))
        for name in names or known:
            progress.say(f"trying {name}")
            trials.append(try_family(name))
            progress.advance(task)
    if as_json:
        rows = [dict(zip(family_table.HEADINGS, one.cells, strict=True)) for one in trials]
        print_out(json.dumps(rows, indent=1, ensure_ascii=False))
    elif markdown:
        print_out("\n".join(family_table.family_rows(trials)))
    else:
        table = FoldedTable(*family_table.HEADINGS)
        for one in trials:
            table.add_row(*map(escape, one.cells))
        console.print(table)
    to = notes if as_json else console
    to.print(family_table.totals(trials), highlight=False)
    to.print(f"What stands under vLLM was found with {tried_in_vllm().versions}.", highlight=False)
