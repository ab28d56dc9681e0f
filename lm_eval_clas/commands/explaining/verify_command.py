"""`clas verify`: do the numbers of a finished run stand?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.folded_table import FoldedTable
from lm_eval_clas.base.screen import print_out
from lm_eval_clas.commands.application import Json, app, console, failures, messages, path_argument, progress_bars

if TYPE_CHECKING:
    from lm_eval_clas.verifying.judging import Verified


@app.command()
def verify(
    results: Annotated[Path, path_argument("What lm_eval wrote with --log_samples, of hf-clas.", "RESULTS.json")],
    model: Annotated[str | None, typer.Option(help="The model, where it lies elsewhere than in the run.")] = None,
    masks: Annotated[str | None, typer.Option(help="The masks, where they lie elsewhere than in the run.")] = None,
    items: Annotated[int, typer.Option(help="Documents of each language to compute again.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Of the choice of documents.", min=0)] = 0,
    device: Annotated[str | None, typer.Option(help="cuda, cuda:0, cpu, mps; default: the first accelerator.")] = None,
    as_json: Json = False,
) -> None:
    """Compute some items of a run again, with the steering merged into weights; exit code 1 if the numbers do not stand."""
    from lm_eval_clas.base.logs import quiet_libraries
    from lm_eval_clas.harness.model_loading import load_model
    from lm_eval_clas.masks.mask_set import MaskSet
    from lm_eval_clas.verifying.logged_run import LoggedRun
    from lm_eval_clas.verifying.recomputing import Verification

    quiet_libraries()
    run = LoggedRun.read(results)
    run.logged  # noqa: B018 - missing samples are told before masks are looked for
    place = masks or run.arguments.get("masks")
    if not isinstance(place, str):
        raise ClasError(f"'{results}' does not tell where its masks are; give --masks.")
    verification = Verification(run, MaskSet.load(place), items, seed)
    arguments = {name: value for name, value in run.model_arguments.items() if name not in ("batch_size", "max_batch_size")}
    pretrained = model or arguments.get("pretrained")
    if not isinstance(pretrained, str):
        raise ClasError(f"'{results}' does not tell which model it is of; give --model.")
    given = ",".join(f"{name}={value}" for name, value in arguments.items() if name not in ("pretrained", "device"))
    with progress_bars() as progress:
        progress.say("loading the model")
        lm = load_model(pretrained, given, device)
        bar = progress.add_task("computing again", total=verification.passes)
        found = verification.run(lm, run.arguments.get("projection"), lambda done: progress.advance(bar, done))
    stands = not any(one.why for one in found)
    if as_json:
        print_out(json.dumps({"stands": stands, "languages": [asdict(one) for one in found]}, indent=1, ensure_ascii=False))
    else:
        _show(found, str(lm.model.dtype).removeprefix("torch."))
    for one in found:
        if one.why or one.note:
            screen = failures if one.why else messages
            screen.print(f"{escape(one.language)}: {one.why or one.note}.", highlight=False, soft_wrap=True)
    if not as_json:
        console.print("The numbers stand." if stands else "The numbers do not stand.", style="bold")
    if not stands:
        raise typer.Exit(1)


def _show(found: list[Verified], dtype: str) -> None:
    table = FoldedTable(title=f"Computed again with merged weights, in {dtype}; differences from the run in nats")
    for column in ("lang", "items", "requests", "largest", "mean", "mean, unsteered", "same texts", "stands"):
        table.add_column(column, justify="left" if column == "lang" else "right")
    for one in found:
        numbers = ("-" if value is None else f"{value:.2g}" for value in (one.largest, one.mean, one.unsteered))
        texts = f"{one.equal} of {one.texts}" if one.texts else "-"
        table.add_row(escape(one.language), str(one.items), str(one.requests), *numbers, texts, "no" if one.why else "yes")
    console.print(table)
