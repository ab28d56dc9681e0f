"""`clas inspect`: what is in a mask folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.folded_table import FoldedTable
from lm_eval_clas.base.screen import print_out
from lm_eval_clas.commands.application import Force, Json, app, console, messages, path_option, replacing_file
from lm_eval_clas.commands.shared_options import WidthOption

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet
    from lm_eval_clas.tuning.curves import Curve


@app.command()
def inspect(
    masks: Annotated[str, typer.Argument(help="Mask folder, name of a shipped one, or Hub repository.")],
    as_json: Json = False,
    plot: Annotated[Path | None, path_option("Draw categories by layer to FILE.png (or .pdf, .svg).")] = None,
    curves: Annotated[Path | None, path_option("Draw what tuned strengths gain to FILE.png (or .pdf, .svg).")] = None,
    experts: Annotated[Path | None, path_option("Draw the choice of experts by language to FILE.png (or .pdf, .svg).")] = None,
    width: WidthOption = None,
    force: Force = False,
) -> None:
    """Show what is in a mask folder: model, corpus, languages, categories by layer, bridge layers and why."""
    from lm_eval_clas.masks.mask_set import MaskSet

    if width is not None and plot is None and curves is None and experts is None:
        raise ClasError("--width is that of pictures; name one with --plot, --curves or --experts, or drop it.")
    loaded = MaskSet.load(masks)
    drawn: list[tuple[Path, Callable[[Path], object]]] = []
    if plot is not None:
        from lm_eval_clas.masks.category_picture import plot_categories

        drawn.append((plot, partial(plot_categories, loaded, width=width)))
    if curves is not None:
        from lm_eval_clas.tuning.curves import plot_curves

        drawn += [(path, partial(plot_curves, alike, width=width)) for path, alike in _curves(loaded, masks, curves).items()]
    if experts is not None:
        from lm_eval_clas.masks.expert_picture import plot_experts

        drawn.append((experts, partial(plot_experts, loaded, width=width)))
    for path, draw in drawn:
        with replacing_file(path, force):
            draw(path)
        messages.print(f"Wrote {escape(str(path))}", highlight=False, soft_wrap=True)
    tell_masks(loaded, as_json)


def _curves(masks: MaskSet, called: str, path: Path) -> dict[Path, list[Curve]]:
    """Curves by the picture that they go into: the first ones into that of the path, other methods and units beside it."""
    from lm_eval_clas.masks.strengths import CLAS
    from lm_eval_clas.tuning.curves import by_unit, tuned_curves

    found: dict[Path, list[Curve]] = {}
    for method, tuned in {CLAS: masks.config.tuned, **masks.config.tuned_methods}.items():
        for name, alike in by_unit(tuned_curves(tuned)).items():
            other = ("" if method == CLAS else f"-{method}") + name.removeprefix("curves")
            found[path.with_stem(path.stem + other) if found else path] = alike
    if not found:
        raise ClasError(f"The masks '{called}' have no tuned strengths to draw curves of; run 'clas tune', or drop --curves.")
    return found


def tell_masks(masks: MaskSet, as_json: bool) -> None:
    """Prints what is in masks, for people or as JSON."""
    from lm_eval_clas.masks.inspection import summary

    if as_json:
        print_out(json.dumps(summary(masks), indent=2, ensure_ascii=False))
    else:
        _show(masks)


def _specific(info: dict[str, Any]) -> str:
    source = info["specific"]
    how = f"lape, top {source['top']:g}, percentile {source['percentile']:g}" if source["source"] == "lape" else source["file"]
    return f"{how}; in the bridge {', '.join(f'{one} {count}' for one, count in info['specific_in_bridge'].items())}"


def _residual(source: dict[str, Any]) -> str:
    corpus = source["corpus"]
    return f"{corpus['name']}, {corpus['samples']} samples, {sum(corpus['tokens'].values()):,} tokens; hash {source['hash']}"


def _show(masks: MaskSet) -> None:
    from lm_eval_clas.masks.inspection import summary
    from lm_eval_clas.neurons.bridge import layers_text

    info = summary(masks)
    corpus = info["corpus"]
    size = info["model"]["fingerprint"]
    empty = masks.config.model.fingerprint.empty_layers
    most = "up to " if size["holds"] else ""
    what = "neurons" if info["site"] == "mlp" else "channels of attention's output"
    width = f"{most}{size['neurons']:,} {what}"
    for label, text in [
        ("model", f"{info['model']['name']} ({size['model_type']}, {size['layers']} layers x {width})"),
        ("corpus", f"{corpus['name']}, {corpus['samples']} samples, {sum(corpus['tokens'].values()):,} tokens"),
        ("active", masks.config.activity),
        ("languages", f"{', '.join(info['languages'])}; anchor {info['anchor']}"),
        ("bridge", f"{', '.join(map(str, info['bridge_layers']))} ({info['bridge_rule']})"),
        *([("specific", _specific(info))] if info["specific"]["source"] != "counts" else []),
        *([("left out", f"layers {layers_text(empty)}, which have no neurons at this site")] if empty else []),
        *([("added", f"{', '.join(info['added'])}; not counted in categories")] if info["added"] else []),
        *([("residual", _residual(info["residual"]))] if info["residual"] else []),
        ("steering", f"beta {info['beta']:g}, gamma {info['gamma']:g}; hash {info['hash']}"),
    ]:
        console.print(f"[bold]{label:10}[/bold]{escape(text)}", highlight=False)
    names = ("dead", "specific", "partial", "all")
    unmeasured = ("unmeasured",) if masks.measured is not None else ()
    numbers = [Column(name, justify="right") for name in ("layer", *names, *unmeasured)]
    table = FoldedTable(*numbers, title="Neurons by layer and category (* bridge layer)")
    for row in info["layers"]:
        mark = "*" if row["bridge"] else " "
        counts = (f"{row[name]:6,} {row[f'{name}_share']:6.1%}" for name in names)
        table.add_row(f"{row['layer']:3} {mark}", *counts, *(f"{row[name]:6,}" for name in unmeasured))
    console.print(table)
    if len(info["languages"]) <= 20:
        table = FoldedTable(title="Overlap of active neurons in the bridge layers (Jaccard)")
        for column in ("", *info["languages"]):
            table.add_column(column, justify="right")
        for language, overlaps in zip(info["languages"], info["overlap"], strict=True):
            table.add_row(language, *(f".{round(value * 100):02d}" if value < 0.995 else "1" for value in overlaps))
        console.print(table)
    if info["instance_shares"]:
        numbers = [Column(name, justify="right") for name in ("layer", *names)]
        table = FoldedTable(*numbers, title="Share of categories input by input (Wang et al. 2024)")
        for layer, row in enumerate(info["instance_shares"]):
            table.add_row(f"{layer:3}", *(f"{value:6.1%}" for value in row))
        console.print(table)
