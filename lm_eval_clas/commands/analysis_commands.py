"""`clas geometry`, `clas stability`, `clas causes`: what moves inside, whether masks are stable, and what goes with a gain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.commands.application import (
    Force,
    app,
    console,
    messages,
    number_option,
    parse_words,
    path_argument,
    path_option,
    progress_bars,
    replacing,
    replacing_file,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from lm_eval_clas.geometry.causes import Causes
    from lm_eval_clas.geometry.measurements import Geometry
    from lm_eval_clas.neurons.agreement import Agreement, Stability


@app.command()
def geometry(
    model: Annotated[str, typer.Option(help="Hugging Face model: Hub id or local path.")],
    masks: Annotated[str, typer.Option(help="Mask folder, name of a shipped one, or Hub repository.")],
    corpus: Annotated[str, typer.Option(help="As for clas profile: xquad, xnli, mini, or a path.")],
    out: Annotated[Path, path_option("Folder for geometry.json, geometry.csv and geometry.png.")],
    alpha: Annotated[str, typer.Option(help="Strength: a number, or a .json file with one by language.")] = "1.0",
    beta: Annotated[str | None, typer.Option(help="Amplification; default: the masks'.")] = None,
    gamma: Annotated[str | None, typer.Option(help="Damping; default: the masks'.")] = None,
    layers: Annotated[str | None, typer.Option(help="Bridge layers, like 13-15; default: the masks'.")] = None,
    method: Annotated[str, typer.Option(help="clas, or one of its controls, e.g. uniform, random.")] = "clas",
    specific_scope: Annotated[str, typer.Option(help="all or own, as in hf-clas.")] = "all",
    partial_scope: Annotated[str, typer.Option(help="all, own or anchor, as in hf-clas.")] = "all",
    languages: Annotated[
        str | None, typer.Option(help="BCP-47 codes, the anchor among them; default: all that corpus and masks have.")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Items; default: all of the corpus.", min=2)] = None,
    batch_size: Annotated[int, typer.Option(help="Texts in a batch.", min=1)] = 8,
    max_tokens: Annotated[int, typer.Option(help="Longer texts are cut at the end.", min=1)] = 2048,
    model_args: Annotated[str, typer.Option(help="More arguments of the harness's hf model, e.g. dtype=bfloat16.")] = "",
    model_name: Annotated[str | None, typer.Option(help="What to call the model; default: --model.")] = None,
    device: Annotated[str | None, typer.Option(help="cuda, cuda:0, cpu, mps; default: the first accelerator.")] = None,
    projection: Annotated[str | None, typer.Option(help="Pattern of the down-projections' names.")] = None,
    seed: Annotated[int, typer.Option(help="Of method random.", min=0)] = 0,
    force: Force = False,
) -> None:
    """Measure what steering moves: how near the languages' sentence representations are, by layer, before and after."""
    from lm_eval_clas.base.logs import quiet_libraries
    from lm_eval_clas.drawing.figures import new_figure
    from lm_eval_clas.geometry.geometry_run import FILES, run_geometry, shared_languages
    from lm_eval_clas.harness.model_loading import load_model
    from lm_eval_clas.masks.mask_set import MaskSet
    from lm_eval_clas.steering.options import SteeringOptions
    from lm_eval_clas.texts.corpora import ParallelInputBuilder

    quiet_libraries()
    new_figure(1, 1)  # a missing matplotlib is told now, and not after the model has run
    loaded = MaskSet.load(masks)
    options: dict[str, Any] = {"alpha": alpha, "beta": beta, "gamma": gamma, "layers": layers, "method": method, "seed": seed}
    options |= {"specific_scope": specific_scope, "partial_scope": partial_scope}
    SteeringOptions.parse(loaded, **options)  # before the model is loaded
    found = ParallelInputBuilder(corpus, parse_words(languages) or None, samples).build()
    texts = shared_languages(found, loaded)
    if left_out := [language for language in found.languages if language not in texts.languages]:
        messages.print(f"Left out, as the masks do not have them: {', '.join(left_out)}.", highlight=False)
    with replacing(out, FILES, force), progress_bars() as progress:
        lm = load_model(model, model_args, device)
        tasks = {language: progress.add_task(language, total=2 * len(texts.ids)) for language in texts.languages}
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
            **options,
        )
    _show_geometry(measured)
    console.print(f"Wrote {escape(str(out))}: geometry.json, geometry.csv, geometry.png", soft_wrap=True)


@app.command()
def stability(
    a: Annotated[Path, path_argument("Folder that clas profile wrote.", "PROFILE_A")],
    b: Annotated[Path, path_argument("Another one, of the same model.", "PROFILE_B")],
    ceiling: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Profiles of two halves of one corpus: clas profile --half first, second.")
    ] = None,
    out: Annotated[Path | None, path_option("Write all of it to FILE.json too.")] = None,
    statistic: Annotated[str, typer.Option(help="signed-mean, mean-abs or share-positive.")] = "signed-mean",
    tokens: Annotated[str, typer.Option(help="all, or last: the last token of each text only.")] = "all",
    threshold: Annotated[float, number_option("A neuron is active where its statistic is above this.")] = 0.0,
    bridge: Annotated[str, typer.Option(help="auto, or layers like 24-29.")] = "auto",
    exclude_last: Annotated[int, typer.Option(help="Last layers that auto leaves out.", min=0)] = 2,
    force: Force = False,
) -> None:
    """Compare two profiles: do both corpora give the same bridge layers and masks, against chance and a ceiling?"""
    from lm_eval_clas.neurons.categories import NeuronCategorizer
    from lm_eval_clas.neurons.profile_folder import Profile
    from lm_eval_clas.neurons.stability import compare_profiles

    with replacing_file(out, force):
        halves = tuple(Profile.load_finished(half) for half in ceiling or ())
        found = compare_profiles(
            Profile.load_finished(a),
            Profile.load_finished(b),
            (halves[0], halves[1]) if halves else None,
            categorizer=NeuronCategorizer(statistic, tokens, threshold),  # type: ignore[arg-type]
            bridge=bridge,
            exclude_last=exclude_last,
        )
        _show_stability(found)
        _write(found, out)


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
    out: Annotated[Path | None, path_option("Write all of it to FILE.json too.")] = None,
    seed: Annotated[int, typer.Option(help="Of the resampling behind intervals and p-values.", min=0)] = 0,
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
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ClasError(f"Cannot load the tokenizer of '{model}': {reason}") from error
        found = find_causes(comparison, run, loaded, tokens_per_character(tokenizer, texts), moved, seed)
        _show_causes(found)
        _write(found, out)


def _read(path: Path, kind: Any, maker: str) -> Any:
    from lm_eval_clas.disk.checked_json import read_as

    return read_as(kind, path, f"make a {kind.__name__.lower()} with '{maker}'.")


def _write(found: BaseModel, out: Path | None) -> None:
    from lm_eval_clas.disk.files import write_text

    if out is not None:
        write_text(out, json.dumps(found.model_dump(), indent=1, ensure_ascii=False) + "\n")
        console.print(f"Wrote {escape(str(out))}", soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None else f"{_number(low, '+')} {_number(high, '+')}"


def _show_geometry(geometry: Geometry) -> None:
    value = {
        (one.measure, one.layer, one.language, one.steered): one.value for one in geometry.measurements if one.pooling == "mean"
    }
    last = max(layer for _, layer, _, _ in value)
    for layer in sorted({max(geometry.bridge_layers) + 1, last}):

        def change(measure: Any, language: str | None, layer: int = layer) -> str:
            before, after = (value[measure, layer, language, steered] for steered in (False, True))
            return f"{before:.3f} {after - before:+.3f}"

        what = "the end of the bridge" if layer != last else "the last"
        table = _table(f"Leaving layer {layer - 1}, {what}: unsteered, change (mean of tokens)",
                       "lang", "cosine to anchor", "retrieval", "distance to anchor")  # fmt: skip
        for language in geometry.languages:
            if language != geometry.anchor:
                table.add_row(language, *(change(one, language) for one in ("cosine", "retrieval", "centroid_distance")))
        console.print(table)
        console.print(f"silhouette by language: {change('silhouette', None)}", highlight=False)


def _show_stability(found: Stability) -> None:
    console.print(f"A: {escape(found.a)}, bridge {', '.join(map(str, found.bridge_a))}", highlight=False)
    console.print(f"B: {escape(found.b)}, bridge {', '.join(map(str, found.bridge_b))}", highlight=False)
    console.print(f"languages: {', '.join(found.languages)}", highlight=False)
    if found.ceiling_of:
        console.print(f"ceiling: {escape(found.ceiling_of)}", highlight=False)

    def cells(agreements: list[Agreement], layer: int | None, category: str) -> tuple[str, str, str]:
        one = next((one for one in agreements if (one.layer, one.category) == (layer, category)), None)
        return (_number(one.jaccard), _number(one.jaccard_chance), _number(one.kappa)) if one else ("-", "-", "-")

    table = _table("All bridge layers together", "category", "Jaccard", "by chance", "ceiling", "kappa", "ceiling")
    for category in ("dead", "specific", "partial", "all", "any"):
        same, chance, kappa = cells(found.agreements, None, category)
        top, _, top_kappa = cells(found.ceiling, None, category)
        table.add_row(category, same, chance, top, kappa, top_kappa)
    console.print(table)
    table = _table("Kappa of the category, by layer (* bridge layer of either)", "layer", "kappa", "ceiling")
    for layer in sorted({one.layer for one in found.agreements if one.layer is not None}):
        mark = "*" if layer in (*found.bridge_a, *found.bridge_b) else " "
        table.add_row(f"{layer:3} {mark}", cells(found.agreements, layer, "any")[2], cells(found.ceiling, layer, "any")[2])
    console.print(table)


def _show_causes(found: Causes) -> None:
    names = list(dict.fromkeys(name for row in found.rows.values() for name in row))
    table = _table(f"{found.run} in {found.family}: gain and candidate causes", "lang", *names)
    for language, row in found.rows.items():
        table.add_row(language, *(f"{row[name]:.3g}" if name in row else "-" for name in names))
    console.print(table)
    table = _table("Correlation with the gain, over languages, with 95 % intervals",
                   "cause", "n", "Pearson", "interval", "p", "Spearman", "interval", "p")  # fmt: skip
    for one in found.correlations:
        table.add_row(
            one.cause,
            str(one.n),
            _number(one.pearson, "+"),
            _interval(one.pearson_low, one.pearson_high),
            _number(one.pearson_p),
            _number(one.spearman, "+"),
            _interval(one.spearman_low, one.spearman_high),
            _number(one.spearman_p),
        )
    console.print(table)
    by_warning: dict[str, list[str]] = {}
    for one in found.correlations:
        if one.warning:
            by_warning.setdefault(one.warning, []).append(one.cause)
    for warning, named in by_warning.items():
        which = ", ".join(named) if len(named) <= 4 else f"{len(named)} of {len(found.correlations)} causes"
        messages.print(f"[bold]Note[/bold] ({escape(which)}): {escape(warning)}", highlight=False)
