"""The sections about steering itself: strengths by language, categories of neurons, bridge layers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.drawing.figures import DASHES, told_apart
from lm_eval_clas.drawing.web_page import WIDTH, in_the_page, inline, picture, web_style
from lm_eval_clas.evidence.clusters import FEWEST
from lm_eval_clas.masks.category_picture import plot_categories
from lm_eval_clas.masks.inspection import summary
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.masks.strengths import Tuned, TunedStrength
from lm_eval_clas.study.report.view import Block, Gallery, Heading, Legend, Picture, Section, Table, TableCell, Text
from lm_eval_clas.study.report.wording import (
    NONE,
    counted,
    drawable,
    interval,
    language_text,
    layers,
    listed,
    number_text,
    probability,
    short,
    signed,
)
from lm_eval_clas.texts.metric_units import MetricUnit, unit_named
from lm_eval_clas.tuning.curves import Curve, by_unit, cut_off, plot_panels, tuned_curves, unit_tuned_in

_DASHES = dict(zip(DASHES, ("", "5 3", "1.5 2.5"), strict=True))


def strengths_section(by_method: Mapping[str, Tuned], where: Path) -> Section:
    """Alpha curves by language, and the strengths that were chosen, method by method, by what it is called."""
    blocks: list[Block] = []
    for number, (method, tuned) in enumerate(by_method.items()):
        if len(by_method) > 1:
            blocks.append(Heading(method))
        blocks += _strengths(tuned, where, f"curves-{number}")
    return Section("strengths", "Strength by language", blocks)


def _strengths(tuned: Tuned, where: Path, name: str) -> list[Block]:
    try:
        curves = tuned_curves(tuned)
    except ClasError as error:
        raise ClasError(f"The tuned strengths under '{where}' cannot be drawn: {error} Tune again with 'clas tune'.") from error
    blocks: list[Block] = []
    for key, alike in by_unit(curves).items():
        blocks.append(_panels(alike, f"{name}-{key}"))
    for family, by_language in tuned.items():
        rows = []
        for code, one in by_language.items():
            unit = unit_tuned_in(one)
            scale, digits = unit.scale, unit.digits
            rows.append(
                [
                    TableCell(language_text(code)),
                    TableCell(short(one.chosen.alpha), "" if one.chosen == one.best else f"best was {short(one.best.alpha)}"),
                    TableCell(number_text(scale * one.measured[0].score, digits) if one.measured else NONE),
                    TableCell(signed(scale * one.best.gain, digits)),
                    TableCell(_interval(one.best.low, one.best.high, unit)),
                    TableCell(probability(one.p_value)),
                    TableCell(str(one.items), _together(one)),
                ]
            )
        kinds = sorted({(one.metric, one.objective, one.guarded, one.shared) for one in by_language.values()})
        told = [
            f"{metric if objective == 'metric' else objective}{', guarded' * guarded}{', one strength for all' * shared}"
            for metric, objective, guarded, shared in kinds
        ]
        head = ["language", "chosen alpha", "score at 0", "gain of the best", "95\u00a0% interval", "p", "items"]
        caption = f"Strengths of {family} ({listed(told)}), on tuning items; other items may gain less."
        if any(one.best.low is None for one in by_language.values()):
            caption += f" No interval where there are fewer than {FEWEST} items or clusters."
        blocks.append(Table(caption, head, rows))
    return blocks


def _interval(low: float | None, high: float | None, unit: MetricUnit) -> str:
    """A gain's interval in the unit in which it is told."""
    ends = [None if end is None else unit.scale * end for end in (low, high)]
    return interval(ends[0], ends[1], unit.digits)


def _together(strength: TunedStrength) -> str:
    if strength.clusters is None:
        return "one by one"
    return counted(strength.clusters, "cluster") if strength.clusters < strength.items else ""


def _panels(curves: Sequence[Curve], name: str) -> Gallery:
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    codes = list(dict.fromkeys(curve.language for curve in curves))
    drawn = [replace(one, language=drawable(one.language, 20), task=drawable(one.task)) for one in curves]
    panels = []
    with tempfile.TemporaryDirectory() as folder, web_style():
        paths = list(plot_panels(drawn, folder).values())
        if len(paths) != len(codes):  # two names that are the same once they can be drawn
            raise ClasError("Two languages of the tuned strengths have the same name; give them codes such as 'hi'.")
        for number_, (code, path) in enumerate(zip(codes, paths, strict=True)):
            told = " ".join(_told(curve) for curve in curves if curve.language == code)
            panels.append(
                Picture(inline(path.read_text(encoding="utf-8"), f"{name}-{number_}", f"{language_text(code)}: {told}"))
            )
    lines = [told_apart(order) for order in range(len(tasks))]
    legend = [Legend(task, in_the_page(color), _DASHES[dashes]) for task, (color, dashes) in zip(tasks, lines, strict=True)]
    cut = cut_off(curves)
    shaded = " Shaded: 95\u00a0% intervals." if any(curve.has_interval for curve in curves) else ""
    caption = (
        f"Gain over alpha 0 in {curves[0].unit} (upwards), over alpha (to the right), on tuning items"
        f"{f'; {cut}' if cut else ''}."
        f"{shaded} Small dots: alphas tried; a large dot: the chosen one; a ring: 0 was kept."
    )
    return Gallery(panels, small=True, caption=caption, legend=legend)


def _told(curve: Curve) -> str:
    unit = unit_named(curve.unit)
    scale, digits = unit.scale, unit.digits
    best = max(range(len(curve.alphas)), key=lambda position: curve.gains[position])
    told = f" (95\u00a0% interval {_interval(curve.low[best], curve.high[best], unit)})" if curve.has_interval else ""
    ends = [f"{signed(scale * curve.gains[end], digits)} at alpha {short(curve.alphas[end])}" for end in (0, -1)]
    return (
        f"{curve.task}: highest gain {signed(scale * curve.gains[best], digits)} {curve.unit} at alpha "
        f"{short(curve.alphas[best])}{told}, "
        f"{listed(ends)}; chosen alpha {short(curve.chosen)}."
    )


def neurons_section(all_masks: Mapping[str, MaskSet], headed: bool) -> Section:
    """Categories by layer, which bridge was chosen, and why.

    Args:
        all_masks: by part; `headed`: each part has a heading.
    """
    blocks: list[Block] = []
    for order, (part, masks) in enumerate(all_masks.items()):
        if headed:
            blocks.append(Heading(part))
        blocks += _neurons(masks, f"categories-{order}")
    return Section("neurons", "Neurons and bridge layers", blocks)


def _neurons(masks: MaskSet, picture_name: str) -> list[Block]:
    info = summary(masks)
    rows = []
    for one in info["layers"]:
        mark = "bridge" if one["bridge"] else ""
        shares = [TableCell(f"{100 * one[f'{name}_share']:.1f}") for name in ("dead", "specific", "partial", "all")]
        rows.append([TableCell(str(one["layer"]), mark), *shares, TableCell(number_text(one["score"], 3))])
    marked = frozenset(position for position, one in enumerate(info["layers"]) if one["bridge"])
    lowest, highest = masks.bridge_layers[0], masks.bridge_layers[-1]
    told = [
        f"layer {at}: dead {rows[at][1].text} %, language-specific {rows[at][2].text} %, partial-shared {rows[at][3].text} %, "
        f"all-shared {rows[at][4].text} %"
        for at in dict.fromkeys((0, lowest, highest, len(rows) - 1))
    ]
    drawn = picture(
        partial(plot_categories, masks, width=WIDTH),
        picture_name,
        f"Share of neurons by category and layer, bridge layers {layers(masks.bridge_layers)}; {'; '.join(told)}.",
    )
    name = masks.config.model.short_name
    caption = f"Neurons of {name} by the number of languages, of {len(masks.counted)}, in which they are active."
    return [
        Text(f"Bridge layers: {layers(masks.bridge_layers)} of {len(rows)} (counted from 0). Why: {masks.config.bridge_rule}."),
        Gallery([Picture(drawn, caption)]),
        Table(
            "Share of neurons by category, in per cent; score is partial-shared minus dead, what the default rule looks at.",
            ["layer", "dead", "language-specific", "partial-shared", "all-shared", "score"],
            rows,
            emphasised=marked,
        ),
    ]
