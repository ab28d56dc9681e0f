"""`clas stability`: do two corpora give the same masks?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from lm_eval_clas.commands.application import Force, Json, app, console, path_argument, replacing_file
from lm_eval_clas.commands.explaining.shown_numbers import number_table, print_analysis, two_digits, write_analysis
from lm_eval_clas.commands.shared_options import (
    BridgeOption,
    ExcludeLastOption,
    JsonFileOption,
    StatisticOption,
    ThresholdOption,
    TokensOption,
)

if TYPE_CHECKING:
    from lm_eval_clas.neurons.agreement import Agreement, Stability


@app.command()
def stability(
    a: Annotated[Path, path_argument("Folder that clas profile wrote.", "PROFILE_A")],
    b: Annotated[Path, path_argument("Another one, of the same model.", "PROFILE_B")],
    ceiling: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Profiles of two halves of one corpus: clas profile --half first, second.")
    ] = None,
    out: JsonFileOption = None,
    statistic: StatisticOption = "signed-mean",
    tokens: TokensOption = "all",
    threshold: ThresholdOption = 0.0,
    bridge: BridgeOption = "auto",
    exclude_last: ExcludeLastOption = 2,
    as_json: Json = False,
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
        if as_json:
            print_analysis(found)
        else:
            _show_stability(found)
        write_analysis(found, out)


def _show_stability(found: Stability) -> None:
    console.print(f"A: {escape(found.a)}, bridge {', '.join(map(str, found.bridge_a))}", highlight=False)
    console.print(f"B: {escape(found.b)}, bridge {', '.join(map(str, found.bridge_b))}", highlight=False)
    console.print(f"languages: {', '.join(found.languages)}", highlight=False)
    if found.ceiling_of:
        console.print(f"ceiling: {escape(found.ceiling_of)}", highlight=False)

    def cells(agreements: list[Agreement], layer: int | None, category: str) -> tuple[str, str, str]:
        one = next((one for one in agreements if (one.layer, one.category) == (layer, category)), None)
        return (two_digits(one.jaccard), two_digits(one.jaccard_chance), two_digits(one.kappa)) if one else ("-", "-", "-")

    table = number_table("All bridge layers together", "category", "Jaccard", "by chance", "ceiling", "kappa", "ceiling")
    for category in ("dead", "specific", "partial", "all", "any"):
        same, chance, kappa = cells(found.agreements, None, category)
        top, _, top_kappa = cells(found.ceiling, None, category)
        table.add_row(category, same, chance, top, kappa, top_kappa)
    console.print(table)
    table = number_table("Kappa of the category, by layer (* bridge layer of either)", "layer", "kappa", "ceiling")
    for layer in sorted({one.layer for one in found.agreements if one.layer is not None}):
        mark = "*" if layer in (*found.bridge_a, *found.bridge_b) else " "
        table.add_row(f"{layer:3} {mark}", cells(found.agreements, layer, "any")[2], cells(found.ceiling, layer, "any")[2])
    console.print(table)
