"""The pictures of the report: averages with their intervals, gains by language, what moves inside by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval_clas.comparing.printed.written_names import written_label
from lm_eval_clas.comparing.rows import Comparison, Row
from lm_eval_clas.comparing.task_families import language_of
from lm_eval_clas.drawing.figures import COLORS, GREY, GRID, LINE, MIDDLE, SMALL, new_figure, open_axes, save
from lm_eval_clas.drawing.labels import label_ends
from lm_eval_clas.drawing.web_page import WIDTH
from lm_eval_clas.geometry.measurements import Geometry, Measure, Pooling
from lm_eval_clas.steering.results_entry import left_alone
from lm_eval_clas.study.report.verdicts import distinguishable, significant
from lm_eval_clas.study.report.wording import drawable

PANEL = 1.9  # inches, of a panel of one row
_FARTHEST = 2  # times the largest gain of a method, where the axis of gains ends


def _axes(height: float) -> tuple[Any, Any]:
    figure = new_figure(WIDTH, height)
    axes = figure.add_subplot()
    open_axes(axes)
    return figure, axes


def plot_averages(comparison: Comparison, rows: Sequence[Row], path: Path) -> Path:
    """The average gain of each row with its interval, one below the other."""
    figure, axes = _axes(0.75 + 0.24 * len(rows))
    axes.axvline(0, color=LINE, linewidth=1)
    for position, row in enumerate(rows):
        color = COLORS[0] if row.kind == "method" else COLORS[1]
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [position, position], color=color, linewidth=2)
        axes.plot([row.gain], [position], "o" if row.kind == "method" else "s", color=color, markersize=6)
    axes.set_yticks(range(len(rows)), [drawable(row.label, 24) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    lower = "" if comparison.higher_is_better else "; lower is better"
    figure.supxlabel(f"average gain ({drawable(comparison.unit)}{lower}), 95\u00a0% interval", fontsize=MIDDLE)
    return save(figure, path)


def plot_row(comparison: Comparison, row: Row, codes: Sequence[str], limits: tuple[float, float], path: Path) -> Path:
    """One row's gain by language with intervals, below its average; a panel of a figure of all rows.

    Filled marks are significant; a language that the row left alone has a cross at 0. A gain beyond the limits is an arrow at
    the edge, with its number.

    Args:
        comparison: of the row.
        row: to draw.
        codes: the languages, from top to bottom.
        limits: of the axis of gains, the same for all panels.
        path: where to write.
    """
    figure = new_figure(PANEL, 0.5 + 0.165 * (len(codes) + 1))
    axes = figure.add_subplot()
    open_axes(axes)
    axes.axvline(0, color=LINE, linewidth=1)
    color, mark = (COLORS[1], "s") if row.kind == "control" else (COLORS[0], "o")
    sure = bool(distinguishable(row))
    whole = [(row.gain, row.low, row.high, sure, "D")] if row.gain is not None else []
    places: list[tuple[float, tuple[Any, ...]]] = [(-1.2, one) for one in whole]
    for position, code in enumerate(codes):
        cell = row.cells.get(code)
        if cell is None or cell.gain is None:
            continue
        if left_alone(row.steering, language_of(code), comparison.family):
            axes.plot([0], [position], "x", color=LINE, markersize=4)
        else:
            places.append((position, (cell.gain, cell.low, cell.high, significant(cell), mark)))
    for height, (gain, low, high, filled, shape) in places:
        if not limits[0] <= gain <= limits[1]:
            side = int(gain > limits[1])
            axes.plot([limits[side]], [height], "<>"[side], color=color, markersize=4.5, clip_on=False)
            axes.annotate(
                f"{gain:.2g}".replace("-", "\u2212"), (limits[side], height), (5 - 10 * side, 0), textcoords="offset points",
                ha=("left", "right")[side], va="center", fontsize=SMALL,
            )  # fmt: skip
            continue
        if low is not None and high is not None:
            axes.plot([low, high], [height, height], color=color, linewidth=1.2, solid_capstyle="butt")
        face = color if filled else "none"
        axes.plot([gain], [height], shape, color=color, markerfacecolor=face, markersize=4.5)
    axes.axhline(-0.6, color=GRID, linewidth=1)
    axes.set_yticks([-1.2, *range(len(codes))], ["mean", *(drawable(code, 8) for code in codes)])
    axes.set_ylim(len(codes) - 0.4, -1.8)
    axes.set_xlim(*limits)
    axes.locator_params(axis="x", nbins=4)
    axes.set_title(drawable(written_label(row), 22), loc="left", fontsize=SMALL)
    return save(figure, path)


def limits_of(rows: Sequence[Row], codes: Sequence[str]) -> tuple[float, float]:
    """An axis that holds gains, and every interval that is not much wider than they are.

    It reaches at most twice as far as the gains of methods do: a control that fails wholly would leave no room for them.
    """
    gains = [0.0, *(row.gain for row in rows if row.gain is not None)]
    gains += [end for row in rows for end in (row.low, row.high) if end is not None]
    cells = [row.cells[code] for row in rows for code in codes if code in row.cells]
    gains += [cell.gain for cell in cells if cell.gain is not None]
    low, high = (pick(one for one in gains if math.isfinite(one)) for pick in (min, max))
    ends = [end for cell in cells for end in (cell.low, cell.high) if end is not None and math.isfinite(end)]
    room = max(high - low, 1e-9)
    seen = [low, high, *(end for end in ends if low - room <= end <= high + room)]
    low, high = min(seen), max(seen)
    of_methods = [row.gain for row in rows if row.kind == "method"]
    of_methods += [row.cells[code].gain for row in rows for code in codes if row.kind == "method" and code in row.cells]
    if reach := _FARTHEST * max((abs(one) for one in of_methods if one is not None and math.isfinite(one)), default=0.0):
        low, high = max(low, -reach), min(high, reach)
    room = 0.06 * max(high - low, 1e-9)
    return low - room, high + room


def plot_layers(geometry: Geometry, measure: Measure, pooling: Pooling, path: Path) -> Path:
    """A measure by layer, a thin line for each language with its code at the end; the bridge is shaded.

    Grey and whole without steering; with it, blue and dashed, from the bridge on, before which nothing is steered.
    """
    figure, axes = _axes(2.8)
    from matplotlib.ticker import MaxNLocator

    chosen = [one for one in geometry.telling if (one.measure, one.pooling) == (measure, pooling)]
    codes = list(dict.fromkeys(one.language for one in chosen))
    if bridge := geometry.bridge_layers:  # what decoder layer l puts out is representation l + 1
        axes.axvspan(bridge[0] + 0.5, bridge[-1] + 1.5, color=GREY, alpha=0.25, linewidth=0, label="bridge layers")
    faint = 0.9 if len(codes) <= 3 else 0.6 if len(codes) <= 15 else 0.35
    for steered, color, dashes in ((False, LINE, "-"), (True, COLORS[0], "--")):
        there = {one.language for one in chosen if one.steered == steered}
        for order, code in enumerate(one for one in codes if one in there):
            points = sorted((one.layer, one.value) for one in chosen if one.language == code and one.steered == steered)
            points = [point for point in points if not steered or not bridge or point[0] >= bridge[0]]
            label = ("steered" if steered else "not steered") if order == 0 else None
            line = {"color": color, "linestyle": dashes, "linewidth": 1.3, "alpha": faint, "label": label}
            axes.plot([layer for layer, _ in points], [value for _, value in points], **line)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("layer of the representation (0: embeddings)", fontsize=MIDDLE)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=SMALL)
    ends = {one.language: one for one in sorted(chosen, key=lambda one: (one.steered, one.layer)) if one.language is not None}
    if ends:
        last = max(one.layer for one in ends.values())
        axes.set_xlim(right=last + 0.1 * (last + 1))  # the codes' lines begin within the axes
        figure.draw_without_rendering()  # codes need to know how high the axes are
        names = [drawable(code, 8) for code in ends]
        label_ends(axes, last, [one.value for one in ends.values()], names, SMALL - 1)
    return save(figure, path)
