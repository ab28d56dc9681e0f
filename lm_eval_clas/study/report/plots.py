"""The pictures of the report: averages with their intervals, gains by language, what moves inside by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval_clas.comparing.rows import Comparison, Row
from lm_eval_clas.drawing.figures import COLORS, GREY, LINE, MARKS, MIDDLE, SMALL, new_figure, open_axes, save
from lm_eval_clas.drawing.web_page import WIDTH
from lm_eval_clas.geometry.measurements import Geometry, Measure, Pooling
from lm_eval_clas.study.report.wording import drawable, language_text


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
    figure.supxlabel(f"average gain ({drawable(comparison.unit)}), 95\u00a0% interval", fontsize=MIDDLE)
    return save(figure, path)


def plot_gains(comparison: Comparison, rows: Sequence[Row], codes: Sequence[str], path: Path) -> Path:
    """Each row's gain by language, one language below the other; the first row's marks are filled."""
    widest = 0.45 + 0.07 * max(len(drawable(row.label, 24)) for row in rows)  # inches, of an entry of the legend
    fitting = max(1, min(len(rows), int(WIDTH / widest)))
    figure, axes = _axes(0.7 + 0.19 * len(codes) + 0.2 * math.ceil(len(rows) / fitting))
    axes.axvline(0, color=LINE, linewidth=1)
    for order, row in enumerate(rows):
        known = [(row.cells[code].gain, position) for position, code in enumerate(codes) if code in row.cells]
        points = [(gain, position) for gain, position in known if gain is not None]
        axes.plot(
            [gain for gain, _ in points],
            [position for _, position in points],
            MARKS[order % len(MARKS)],
            color=COLORS[order % len(COLORS)],
            markerfacecolor=COLORS[0] if order == 0 else "none",
            markersize=6 if order == 0 else 5,
            zorder=20 - order,
            label=drawable(row.label, 24),
        )
    axes.set_yticks(range(len(codes)), [drawable(language_text(code), 22) for code in codes])
    axes.set_ylim(len(codes) - 0.4, -0.6)
    figure.supxlabel(f"gain over {drawable(comparison.baseline, 16)} ({drawable(comparison.unit, 10)})", fontsize=MIDDLE)
    figure.legend(loc="outside upper center", ncols=fitting, frameon=False, fontsize=SMALL)
    return save(figure, path)


def plot_layers(geometry: Geometry, measure: Measure, pooling: Pooling, path: Path) -> Path:
    """A measure by layer, a thin line for each language, without steering and with it; the bridge is shaded."""
    figure, axes = _axes(2.5)
    from matplotlib.ticker import MaxNLocator

    chosen = [one for one in geometry.measurements if (one.measure, one.pooling) == (measure, pooling)]
    codes = list(dict.fromkeys(one.language for one in chosen))
    if bridge := geometry.bridge_layers:  # what decoder layer l puts out is representation l + 1
        axes.axvspan(bridge[0] + 0.5, bridge[-1] + 1.5, color=GREY, alpha=0.25, linewidth=0, label="bridge layers")
    faint = 0.9 if len(codes) <= 3 else 0.6 if len(codes) <= 15 else 0.35
    for steered, color, dashes in ((False, LINE, "-"), (True, COLORS[0], "--")):
        for order, code in enumerate(codes):
            points = sorted((one.layer, one.value) for one in chosen if one.language == code and one.steered == steered)
            label = ("steered" if steered else "not steered") if order == 0 else None
            line = {"color": color, "linestyle": dashes, "linewidth": 1.3, "alpha": faint, "label": label}
            axes.plot([layer for layer, _ in points], [value for _, value in points], **line)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("layer of the representation (0: embeddings)", fontsize=MIDDLE)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=SMALL)
    return save(figure, path)
