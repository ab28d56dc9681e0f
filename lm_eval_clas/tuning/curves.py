"""What steering gains, drawn over its strength: a small panel for each language."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.drawing.figures import COLORS, DASHES, INK, LARGE, LINE, MIDDLE, SMALL, SOFT, new_figure, open_axes, save
from lm_eval_clas.languages.codes import english_name
from lm_eval_clas.masks.strengths import Tuned, TunedStrength
from lm_eval_clas.texts.metric_units import NATS, MetricUnit, unit_named, unit_of

# A strong alpha can ruin a model, and then gains of a few points would be flat lines: losses are drawn up to this many
# times the largest gain.
_DEPTH = 2


@dataclass(frozen=True)
class Curve:
    """The gains of one task in one language.

    Attributes:
        task: how the legend calls it.
        language: a code, such as `hi`.
        alphas: ascending.
        gains, low, high: of each alpha: score minus the score at alpha 0, and the ends of its 95 % interval.
        chosen: one of `alphas`; 0 if steering was turned down.
        items: how many the gains were measured on.
        unit: that gains are drawn in, by its name; `unit_named` knows what they are multiplied by.
        missing: more alphas, that were tried and have no score; the line is broken there.

    Raises:
        ClasError: the numbers do not belong together.
    """

    task: str
    language: str
    alphas: list[float]
    gains: list[float]
    low: list[float]
    high: list[float]
    chosen: float
    items: int
    unit: str
    missing: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        which = f"The curve of {self.task} in {self.language}"
        if not self.alphas or {len(self.gains), len(self.low), len(self.high)} != {len(self.alphas)}:
            raise ClasError(f"{which} needs one gain and one interval for each alpha, and at least one alpha.")
        if any(left >= right for left, right in pairwise(self.alphas)):
            raise ClasError(f"{which} needs ascending alphas, not {self.alphas}.")
        if self.chosen not in self.alphas:
            raise ClasError(f"{which} has no point at the chosen alpha {self.chosen}, only at {self.alphas}.")
        if not np.isfinite([self.alphas, self.gains, self.low, self.high]).all():
            raise ClasError(f"{which} holds a number that is not finite.")


def unit_tuned_in(strength: TunedStrength) -> MetricUnit:
    """The unit of a strength's scores and gains."""
    if strength.objective != "metric":
        return NATS
    return unit_of(strength.metric, [one.score for one in strength.measured])


def by_unit(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Curves that fit into one figure, by its name: `curves` for those in the first unit, `curves-UNIT` for those in others."""
    found: dict[str, list[Curve]] = {}
    for curve in curves:
        found.setdefault(curve.unit, []).append(curve)
    further = (f"curves-{re.sub(r'[^A-Za-z0-9]+', '-', unit).strip('-')}" for unit in list(found)[1:])
    return dict(zip(["curves", *further], found.values(), strict=True))


def tuned_curves(tuned: Tuned) -> list[Curve]:
    """Gain over alpha for each task and language, at the chosen beta, gamma and layers."""
    drawn = []
    for family, by_language in tuned.items():
        for language, one in by_language.items():
            rest = one.best.setting.options() | {"alpha": None}

            def beside(tried: Any, rest: Any = rest) -> bool:
                return bool(tried.alpha == 0 or tried.setting.options() | {"alpha": None} == rest)

            points = [measured for measured in one.measured if beside(measured)]
            points.sort(key=lambda point: point.alpha)
            drawn.append(
                Curve(
                    task=family,
                    language=language,
                    alphas=[point.alpha for point in points],
                    gains=[point.gain for point in points],
                    low=[point.low for point in points],
                    high=[point.high for point in points],
                    chosen=one.chosen.alpha,
                    items=one.items,
                    unit=unit_tuned_in(one).name,
                    missing=[dropped.alpha for dropped in one.dropped if beside(dropped)],
                )
            )
    return drawn


def plot_curves(curves: Sequence[Curve], path: str | Path) -> Path:
    """Draws gain over alpha, a panel for each language and a line for each task, as PNG, PDF or SVG.

    Languages and tasks stand in the order in which they first appear. All panels have the same axes.

    Raises:
        ClasError: no curves, curves in different units, matplotlib is not installed, or the file cannot be written.
    """
    unit, scale = _unit(curves)
    languages = list(dict.fromkeys(curve.language for curve in curves))
    tasks = list(dict.fromkeys(curve.task for curve in curves))

    columns = len(languages) if len(languages) <= 4 else math.ceil(math.sqrt(len(languages)))
    rows = math.ceil(len(languages) / columns)
    width, height = (3.6, 2.4) if len(languages) <= 2 else (1.9, 1.5)
    width, height = 0.7 + width * columns, 0.9 + (height + 0.35) * rows
    figure = new_figure(width, height)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, language in zip(grid, languages, strict=False):
        _draw_panel(axes, [curve for curve in curves if curve.language == language], tasks, scale)
    for position, axes in enumerate(grid):
        axes.set_visible(position < len(languages))
        axes.tick_params(labelbottom=position + columns >= len(languages))

    grid[0].set_ylim(_axis(curves, scale))
    cut = cut_off(curves)
    figure.supxlabel(f"alpha ({cut})" if cut else "alpha", fontsize=LARGE)
    figure.supylabel(f"gain over alpha 0 ({unit})", fontsize=LARGE)
    handles = _legend(tasks)
    widest = 0.6 + 0.075 * max(len(handle.get_label()) for handle in handles)  # inches, of the longest of the legend's entries
    fitting = max(1, min(len(handles), int(width / widest)))
    figure.set_figheight(height + 0.2 * (math.ceil(len(handles) / fitting) - 1))  # a longer legend takes no room from panels
    # Above, as the layout would lay a legend below over the label of the axis.
    figure.legend(handles=handles, loc="outside upper center", ncols=fitting, frameon=False, fontsize=MIDDLE)
    return save(figure, path)


def plot_panels(curves: Sequence[Curve], folder: str | Path) -> dict[str, Path]:
    """Draws the panels of `plot_curves` into files of their own, for pages that arrange them to their width.

    No legend and no labels of axes: the page says in which unit gain is drawn over alpha, and which task has
    which of `COLORS` and `DASHES`.

    Returns:
        The SVG file of each language, in the order in which languages first appear.

    Raises:
        ClasError: as `plot_curves`.
    """
    _, scale = _unit(curves)
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    alphas = [alpha for curve in curves for alpha in curve.alphas]
    room = 0.04 * (max(alphas) - min(alphas)) or 1
    paths = {}
    for number, language in enumerate(dict.fromkeys(curve.language for curve in curves)):
        figure = new_figure(1.8, 1.6)
        axes = figure.add_subplot()
        _draw_panel(axes, [curve for curve in curves if curve.language == language], tasks, scale)
        axes.set(xlim=(min(alphas) - room, max(alphas) + room), ylim=_axis(curves, scale))
        paths[language] = save(figure, Path(folder) / f"{number}.svg")
    return paths


def cut_off(curves: Sequence[Curve]) -> str:
    """What the figures of these curves leave out, in words; empty if nothing."""
    unit, scale = _unit(curves)
    bottom, _, lowest = _limits(curves, scale)
    return f"cut off: losses down to {lowest:.3g} {unit}".replace("-", "\u2212") if bottom > lowest else ""


def _unit(curves: Sequence[Curve]) -> tuple[str, float]:
    """The unit of all curves, and what to multiply gains with."""
    if not curves:
        raise ClasError("There are no curves to draw.")
    units = list(dict.fromkeys(curve.unit for curve in curves))
    if len(units) > 1:
        raise ClasError(f"Curves in {' and in '.join(units)} do not fit into one figure; draw one for each.")
    return units[0], unit_named(units[0]).scale


def _axis(curves: Sequence[Curve], scale: float) -> tuple[float, float]:
    bottom, top, _ = _limits(curves, scale)
    room = 0.06 * (top - bottom)
    return bottom - room, top + room


def _limits(curves: Sequence[Curve], scale: float) -> tuple[float, float, float]:
    """The lowest and the highest gain to draw, and the lowest there is."""
    top = max(0.0, *(high * scale for curve in curves for high in curve.high))
    lowest = min(0.0, *(low * scale for curve in curves for low in curve.low))
    if top == lowest:
        return -1, 1, -1
    return max(lowest, -_DEPTH * top) if top > 0 else lowest, top, lowest


def _draw_panel(axes: Any, curves: Sequence[Curve], tasks: list[str], scale: float) -> None:
    axes.axhline(0, color=LINE, linewidth=0.8, zorder=1)
    for curve in curves:
        order = tasks.index(curve.task)
        color = _color(order)
        gains, low, high = (np.array(numbers) * scale for numbers in (curve.gains, curve.low, curve.high))
        x, *lines = _broken(curve, gains, low, high)
        axes.fill_between(x, lines[1], lines[2], color=color, alpha=0.15, linewidth=0, zorder=2)
        axes.plot(x, lines[0], _dashes(order), color=color, linewidth=1.4, zorder=3 + order)
        chosen = curve.alphas.index(curve.chosen)
        # Every task that stays at 0 has its dot at the same place: rings of different sizes are all seen.
        ring = {"markersize": 4.5 + 2.5 * order, "markerfacecolor": "none"}
        dot = ring if curve.chosen == 0 else {"markersize": 5.5}
        axes.plot(curve.chosen, gains[chosen], "o", color=color, zorder=20, **dot)
    code = curves[0].language
    items = " / ".join(dict.fromkeys(str(curve.items) for curve in curves))
    axes.set_title(english_name(code), loc="left", fontsize=LARGE, pad=14)
    below = {"xytext": (0, 3), "textcoords": "offset points", "xycoords": "axes fraction", "fontsize": SMALL, "color": SOFT}
    axes.annotate(f"{code}, {items} {'item' if items == '1' else 'items'}", (0, 1), **below)
    open_axes(axes)


def _broken(curve: Curve, *numbers: Any) -> list[Any]:
    """Alphas, with those that have no score, and numbers over them, NaN where there is none."""
    x = np.array([*curve.alphas, *curve.missing])
    order = np.argsort(x)
    return [part[order] for part in (x, *(np.append(one, [np.nan] * len(curve.missing)) for one in numbers))]


def _legend(tasks: list[str]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dot: dict[str, Any] = {"color": INK, "marker": "o", "linestyle": "none", "markersize": 5.5}
    return [
        *(Line2D([], [], color=_color(order), linestyle=_dashes(order), label=task) for order, task in enumerate(tasks)),
        Patch(color=INK, alpha=0.15, linewidth=0, label="95 % interval"),
        Line2D([], [], label="chosen alpha", **dot),
        Line2D([], [], label="alpha 0 kept", markerfacecolor="none", **dot),
    ]


def _color(order: int) -> str:
    return COLORS[order % len(COLORS)]


def _dashes(order: int) -> str:
    return DASHES[order // len(COLORS) % len(DASHES)]
