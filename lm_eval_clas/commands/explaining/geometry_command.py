"""`clas geometry`: what steering moves inside the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from lm_eval_clas.commands.application import (
    Force,
    Json,
    app,
    console,
    messages,
    notes,
    parse_words,
    path_option,
    progress_bars,
    replacing,
    replacing_file,
)
from lm_eval_clas.commands.explaining.shown_numbers import number_table, print_analysis
from lm_eval_clas.commands.shared_options import (
    BatchSizeOption,
    DeviceOption,
    LayersOption,
    MaxTokensOption,
    ModelOption,
    PartialScopeOption,
    SpecificScopeOption,
    WidthOption,
)

if TYPE_CHECKING:
    from lm_eval_clas.geometry.measurements import Geometry, Measure


@app.command()
def geometry(
    model: ModelOption,
    masks: Annotated[str, typer.Option(help="Mask folder, name of a shipped one, or Hub repository.")],
    corpus: Annotated[str, typer.Option(help="As for clas profile: xquad, xnli, mini, or a path.")],
    out: Annotated[Path, path_option("Folder for geometry.json, geometry.csv and geometry.png.")],
    alpha: Annotated[str, typer.Option(help="Strength: a number, or a .json file with one by language.")] = "1.0",
    beta: Annotated[str | None, typer.Option(help="Amplification; default: the masks'.")] = None,
    gamma: Annotated[str | None, typer.Option(help="Damping; default: the masks'.")] = None,
    layers: LayersOption = None,
    method: Annotated[str, typer.Option(help="clas, or another method of hf-clas, e.g. uniform, diffmean.")] = "clas",
    specific_scope: SpecificScopeOption = "all",
    partial_scope: PartialScopeOption = "all",
    languages: Annotated[
        str | None, typer.Option(help="BCP-47 codes, the anchor among them; default: all that corpus and masks have.")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Items; default: all of the corpus.", min=2)] = None,
    batch_size: BatchSizeOption = 8,
    max_tokens: MaxTokensOption = 2048,
    model_args: Annotated[str, typer.Option(help="More arguments of the harness's hf model, e.g. dtype=bfloat16.")] = "",
    model_name: Annotated[str | None, typer.Option(help="What to call the model; default: --model.")] = None,
    device: DeviceOption = None,
    projection: Annotated[str | None, typer.Option(help="Pattern of the projections' names.")] = None,
    seed: Annotated[int, typer.Option(help="Of --method random and random-direction.", min=0)] = 0,
    plot: Annotated[Path | None, path_option("Draw geometry.png to FILE.pdf (or .svg, .png), too.")] = None,
    width: WidthOption = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Measure what steering moves: how near the languages' sentence representations are, by layer, before and after."""
    from lm_eval_clas.base.logs import quiet_libraries
    from lm_eval_clas.drawing.figures import new_figure, print_width
    from lm_eval_clas.geometry.geometry_run import FILES, run_geometry, shared_languages
    from lm_eval_clas.harness.model_loading import load_model
    from lm_eval_clas.languages.macrolanguages import as_known
    from lm_eval_clas.masks.mask_set import MaskSet
    from lm_eval_clas.steering.options import SteeringOptions
    from lm_eval_clas.texts.corpora import ParallelInputBuilder

    quiet_libraries()
    new_figure(print_width(width), 1)  # a missing matplotlib is told now, and not after the model has run
    loaded = MaskSet.load(masks)
    options: dict[str, Any] = {"alpha": alpha, "beta": beta, "gamma": gamma, "layers": layers, "method": method, "seed": seed}
    options |= {"specific_scope": specific_scope, "partial_scope": partial_scope}
    SteeringOptions.parse(loaded, **options)  # before the model is loaded
    found = ParallelInputBuilder(corpus, parse_words(languages) or None, samples).build()
    texts = shared_languages(found, loaded)
    if left_out := [one for one in found.languages if as_known(one, texts.languages) not in texts.languages]:
        messages.print(f"Left out, as the masks do not have them: {', '.join(left_out)}.", highlight=False)
    with replacing(out, FILES, force), replacing_file(plot, force), progress_bars() as progress:
        progress.say("loading the model")
        lm = load_model(model, model_args, device)
        tasks = {one: progress.add_task(f"measuring {one}", total=2 * len(texts.ids)) for one in texts.languages}
        measured = run_geometry(
            lm.model,
            lm.tokenizer,
            texts,
            loaded,
            out,
            name=model_name,
            projection=projection,
            batch_size=batch_size,
            max_tokens=max_tokens,
            report=lambda language, done, _: progress.update(tasks[language], completed=done),
            picture=plot,
            width=width,
            **options,
        )
    if as_json:
        print_analysis(measured)
    else:
        _show_geometry(measured)
    notes.print(f"Wrote {escape(str(out))}: geometry.json, geometry.csv, geometry.png", soft_wrap=True)
    if plot is not None:
        notes.print(f"Wrote {escape(str(plot))}", soft_wrap=True)


def _show_geometry(geometry: Geometry) -> None:
    from lm_eval_clas.geometry.measurements import MEASURE_WORDS, POOLING_WORDS

    value = {
        (one.measure, one.layer, one.language, one.steered): one.value for one in geometry.measurements if one.pooling == "mean"
    }
    last = max(layer for _, layer, _, _ in value)
    for layer in sorted({max(geometry.bridge_layers) + 1, last}):

        def change(measure: Any, language: str | None, layer: int = layer) -> str:
            before, after = (value[measure, layer, language, steered] for steered in (False, True))
            return f"{before:.3f} {after - before:+.3f}"

        what = "the end of the bridge" if layer != last else "the last"
        told: tuple[Measure, ...] = ("cosine", "retrieval", "centroid_distance")
        title = f"Leaving layer {layer - 1}, {what}: unsteered, change ({POOLING_WORDS['mean']})"
        table = number_table(title, "lang", *(MEASURE_WORDS[one] for one in told))
        for language in geometry.languages:
            if language != geometry.anchor:
                table.add_row(language, *(change(one, language) for one in told))
        console.print(table)
        console.print(f"{MEASURE_WORDS['silhouette']}: {change('silhouette', None)}", highlight=False)
