"""What steering gains, drawn over its strength: a small panel for each language."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.drawing.figures import (
    BLACK,
    INK,
    LARGE,
    LEAST,
    LINE,
    MIDDLE,
    PAGE,
    SMALL,
    SOFT,
    new_figure,
    open_axes,
    print_width,
    save,
    told_apart,
)
from lm_eval_clas.languages.codes import english_name
from lm_eval_clas.masks.strengths import Tuned, TunedStrength
from lm_eval_clas.texts.metric_units import MetricUnit, unit_named, unit_of_objective

# A strong alpha can ruin a model, and then gains of a few points would be flat lines: losses are drawn up to this many
# times the largest gain.
_DEPTH = 2
_PANEL = 1.75  # inches, of a panel by itself
_BESIDE = 0.65  # inches, of the words and numbers at the left
_NARROW, _WIDE = 0.8, 2.8  # inches, of a panel among others
_DOT = 0.06  # inches, from the middle of the largest dot to the edge of its panel
_LETTER = 0.58  # width of a letter, as a share of its size
_LEADING = 1.3  # from one line of words to the next, as a share of their size
_MINUS = "\u2212"


@dataclass(frozen=True)
class Curve:
    """The gains of one task in one language.

    Attributes:
        task: how the legend calls it.
        language: a code, such as `hi`.
        alphas: ascending.
        gains, low, high: of each alpha: score minus the score at alpha 0, and the ends of its 95 % interval; None where it has
            none.
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
    low: list[float | None]
    high: list[float | None]
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
        ends = [end for end in (*self.low, *self.high) if end is not None]
        if not np.isfinite([*self.alphas, *self.gains, *ends]).all():
            raise ClasError(f"{which} holds a number that is not finite.")

    @property
    def has_interval(self) -> bool:
        """Whether any of its gains has one."""
        return any(end is not None for end in (*self.low, *self.high))


def unit_tuned_in(strength: TunedStrength) -> MetricUnit:
    """The unit of a strength's scores and gains."""
    return unit_of_objective(strength.objective, strength.metric, [one.score for one in strength.measured])


def by_unit(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Curves that fit into one figure, by its name: `curves` for those in the first unit, `curves-UNIT` for those in others."""
    found: dict[str, list[Curve]] = {}
    for curve in curves:
        found.setdefault(curve.unit, []).append(curve)
    further = (f"curves-{re.sub(r'[^A-Za-z0-9]+', '-', unit).strip('-')}" for unit in list(found)[1:])
    return dict(zip(["curves", *further], found.values(), strict=False))  # no curves, no name


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


def plot_curves(curves: Sequence[Curve], path: str | Path, width: float | None = None) -> Path:
    """Draws gain over alpha, a panel for each language and a line for each task, as PNG, PDF or SVG.

    Languages and tasks stand in the order in which they first appear. All panels have the same axes.

    Args:
        curves: in one unit.
        path: of the picture.
        width: in inches; default: a paper's page, or less for a language or two.

    Raises:
        ClasError: no curves, curves in different units, such a width cannot be drawn, matplotlib is not installed, or the file
            cannot be written.
    """
    unit, scale = _unit(curves)
    languages = list(dict.fromkeys(curve.language for curve in curves))
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    width = print_width(width, min(PAGE, _BESIDE + _WIDE * len(languages)))
    square = len(languages) if len(languages) <= 4 else math.ceil(math.sqrt(len(languages)))
    columns = max(1, min(square, int((width - _BESIDE) / _NARROW)))
    panel = (width - _BESIDE) / columns
    height = min(1.9, max(0.75, 0.72 * panel))
    words = [_words([curve for curve in curves if curve.language == language], 0.94 * panel) for language in languages]
    rows = [words[start : start + columns] for start in range(0, len(words), columns)]

    above = sum(max(map(_height, row)) for row in rows)
    cut = cut_off(curves)
    told = textwrap.wrap(f"alpha ({cut})" if cut else "alpha", int(width / 0.083))
    handles, labels = _legend(tasks, {curve.task for curve in curves if curve.has_interval})
    each = _fitting([0.42 + _LETTER * SMALL / 72 * len(label) for label in labels], width)
    lines = math.ceil(len(labels) / each) + len(told)
    figure = new_figure(width, 0.4 + above + (height + 0.14) * len(rows) + 0.17 * lines)
    grid = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, language, one in zip(grid, languages, words, strict=False):
        _draw_panel(axes, [curve for curve in curves if curve.language == language], tasks, scale, one)
    for position, axes in enumerate(grid):
        axes.set_visible(position < len(languages))
        axes.tick_params(labelbottom=position + columns >= len(languages))
    _set_limits(grid[0], curves, scale, panel, height)
    figure.supxlabel("\n".join(told), fontsize=MIDDLE)
    figure.supylabel(f"gain over alpha 0 ({unit})", fontsize=MIDDLE)
    # Above, as the layout would lay a legend below over the label of the axis.
    figure.legend(handles, labels, loc="outside upper center", ncols=each, frameon=False, fontsize=SMALL, columnspacing=1)
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
    paths = {}
    languages = list(dict.fromkeys(curve.language for curve in curves))
    words = [_words([curve for curve in curves if curve.language == language], _PANEL - 0.4) for language in languages]
    highest = max(sum(line.size for line in one) for one in words)
    for number, (language, one) in enumerate(zip(languages, words, strict=True)):
        if room := highest - sum(line.size for line in one):  # above the words, so that axes are alike in all files
            one = [_Line(" ", room), *one]
        figure = new_figure(_PANEL, 1.25 + _height(one))
        axes = figure.add_subplot()
        _draw_panel(axes, [curve for curve in curves if curve.language == language], tasks, scale, one)
        _set_limits(axes, curves, scale, _PANEL - 0.4, 0.8)
        paths[language] = save(figure, Path(folder) / f"{number}.svg")
    return paths


def cut_off(curves: Sequence[Curve]) -> str:
    """What the figures of these curves leave out, in words; empty if nothing."""
    unit, scale = _unit(curves)
    bottom, _, lowest = _limits(curves, scale)
    tried = [alpha for curve in curves for alpha in curve.alphas]
    left, right = _reach(curves, scale)
    told = f"tried from {min(tried):g} to {max(tried):g}; " if min(tried) < left or max(tried) > right else ""
    return f"{told}cut off: losses down to {lowest:.3g} {unit}".replace("-", _MINUS) if bottom > lowest else ""


def choice(curve: Curve) -> str:
    """Which strength was chosen, what it gains, and whether another one gains more, in a few words."""
    scale = unit_named(curve.unit).scale
    best = int(np.argmax(curve.gains))

    def gain(position: int) -> str:
        return f"{scale * curve.gains[position]:+.2g}"

    chosen, better = curve.alphas.index(curve.chosen), f"; {curve.alphas[best]:g}: {gain(best)}"
    if curve.chosen == 0:
        told = "0 kept" + (better if curve.gains[best] > 0 else ": none gains")
    else:
        told = f"chosen {curve.chosen:g}: {gain(chosen)}" + (better if curve.gains[best] > curve.gains[chosen] else "")
    return told.replace("-", _MINUS)


def _unit(curves: Sequence[Curve]) -> tuple[str, float]:
    """The unit of all curves, and what to multiply gains with."""
    if not curves:
        raise ClasError("There are no curves to draw.")
    units = list(dict.fromkeys(curve.unit for curve in curves))
    if len(units) > 1:
        raise ClasError(f"Curves in {' and in '.join(units)} do not fit into one figure; draw one for each.")
    return units[0], unit_named(units[0]).scale


def _fitting(widths: Sequence[float], width: float) -> int:
    """In how many columns entries of these widths stand beside each other, the first ones in the first column."""
    for columns in range(len(widths), 1, -1):
        rows = math.ceil(len(widths) / columns)
        if sum(max(widths[start : start + rows]) for start in range(0, len(widths), rows)) < width:
            return math.ceil(len(widths) / rows)
    return 1


def _set_limits(axes: Any, curves: Sequence[Curve], scale: float, width: float, height: float) -> None:
    """The same for all panels: as far as curves are seen, with a mark at each strength tried and as many numbers as fit.

    Args:
        axes: one panel, or one of several that share their limits.
        curves: of all panels.
        scale: of gains.
        width, height: of a panel, in inches.
    """
    bottom, top, _ = _limits(curves, scale)
    axes.set_ylim(bottom - 0.06 * (top - bottom), top + 0.06 * (top - bottom))
    axes.locator_params(axis="y", nbins=max(3, min(9, int(height / 0.16))))
    left, right = _reach(curves, scale)
    room = max(0.05, _DOT / width) * (right - left) or 1
    axes.set_xlim(left - room, right + room)
    tried = sorted({alpha for curve in curves for alpha in (*curve.alphas, *curve.missing) if left <= alpha <= right})
    longest = max((len(f"{alpha:g}") for alpha in tried), default=1)
    gap = (right - left + 2 * room) * (0.08 + 0.07 * longest) / width  # of a number, with the room beside it
    numbered: list[float] = []
    for alpha in sorted(tried, key=abs):  # from 0 outwards
        if all(abs(alpha - other) >= gap for other in numbered):
            numbered.append(alpha)
    axes.set_xticks(numbered, [f"{alpha:g}".replace("-", _MINUS) for alpha in numbered])
    axes.set_xticks(tried, minor=True)


def _reach(curves: Sequence[Curve], scale: float) -> tuple[float, float]:
    """The alphas between which some curve is above the cut."""
    bottom = _limits(curves, scale)[0]
    seen = []
    for curve in curves:
        points = [(alpha, scale * gain) for alpha, gain in zip(curve.alphas, curve.gains, strict=True)]
        seen += [alpha for alpha, gain in points if gain >= bottom]
        for (before, one), (after, other) in pairwise(points):
            if (one >= bottom) != (other >= bottom):  # where the line crosses the cut
                seen.append(before + (bottom - one) / (other - one) * (after - before))
    return min(seen), max(seen)


def _limits(curves: Sequence[Curve], scale: float) -> tuple[float, float, float]:
    """The lowest and the highest gain to draw, and the lowest there is."""
    drawn = [scale * one for curve in curves for one in (*curve.gains, *curve.low, *curve.high) if one is not None]
    top, lowest = max(0.0, *drawn), min(0.0, *drawn)
    if top == lowest:
        return -1, 1, -1
    return max(lowest, -_DEPTH * top) if top > 0 else lowest, top, lowest


@dataclass(frozen=True)
class _Line:
    """A line of words above a panel; sizes in points. Before the first one of a task, if there are several, is its dot."""

    text: str
    size: int
    color: str = SOFT
    indent: float = 0
    task: str | None = None


def _height(lines: Sequence[_Line]) -> float:
    """In inches."""
    return sum(line.size for line in lines) * _LEADING / 72


def _words(curves: Sequence[Curve], room: float) -> list[_Line]:
    """The language, its code and items, and what was chosen in each task, in lines that fit into so many inches."""
    title, size = (LARGE, SMALL) if room > 1.3 else (MIDDLE, LEAST)
    indent = 9 if len(curves) > 1 else 0

    def wrapped(told: str, size: int, indent: float = 0) -> list[str]:
        return textwrap.wrap(told, max(6, int((72 * room - indent) / (_LETTER * size))), break_long_words=False)

    code = curves[0].language
    items = " / ".join(dict.fromkeys(str(curve.items) for curve in curves))
    lines = [_Line(one, title, BLACK) for one in wrapped(english_name(code), title)]
    lines += [_Line(one, size) for one in wrapped(f"{code}, {items} {'item' if items == '1' else 'items'}", size)]
    for curve in curves:
        for number, one in enumerate(wrapped(choice(curve), size, indent)):
            lines.append(_Line(one, size, indent=indent, task=curve.task if indent and not number else None))
    return lines


def _draw_panel(axes: Any, curves: Sequence[Curve], tasks: list[str], scale: float, words: Sequence[_Line]) -> None:
    from matplotlib.transforms import ScaledTranslation

    axes.axhline(0, color=LINE, linewidth=0.8, zorder=1)
    for curve in curves:
        order = tasks.index(curve.task)
        color, dashes = told_apart(order)
        gains, low, high = (np.array(numbers, dtype=float) * scale for numbers in (curve.gains, curve.low, curve.high))
        x, *lines = _broken(curve, gains, low, high)
        axes.fill_between(x, lines[1], lines[2], color=color, alpha=0.15, linewidth=0, zorder=2)
        axes.plot(x, lines[0], dashes, color=color, linewidth=1.4, zorder=3 + order)
        chosen = curve.alphas.index(curve.chosen)
        tried = np.delete(np.array([curve.alphas, gains]), chosen, axis=1)
        axes.plot(*tried, "o", color=color, markersize=2.5, zorder=3 + order)
        # Every task that stays at 0 has its dot at the same place: rings of different sizes are all seen.
        ring = {"markersize": 4.5 + 2.5 * order, "markerfacecolor": "none"}
        dot = ring if curve.chosen == 0 else {"markersize": 5.5}
        axes.plot(curve.chosen, gains[chosen], "o", color=color, zorder=20, **dot)
    height = 3.0
    for line in reversed(words):
        place = {"xytext": (line.indent, height), "textcoords": "offset points", "xycoords": "axes fraction"}
        axes.annotate(line.text, (0, 1), color=line.color, fontsize=line.size, **place)
        if line.task is not None:
            beside = axes.transAxes + ScaledTranslation(3 / 72, (height + 3) / 72, axes.figure.dpi_scale_trans)
            color, _ = told_apart(tasks.index(line.task))
            axes.plot([0], [1], "o", color=color, markersize=4, transform=beside, clip_on=False)
        height += _LEADING * line.size
    open_axes(axes)


def _broken(curve: Curve, *numbers: Any) -> list[Any]:
    """Alphas, with those that have no score, and numbers over them, NaN where there is none."""
    x = np.array([*curve.alphas, *curve.missing])
    order = np.argsort(x)
    return [part[order] for part in (x, *(np.append(one, [np.nan] * len(curve.missing)) for one in numbers))]


def _legend(tasks: list[str], banded: Collection[str]) -> tuple[list[Any], list[str]]:
    """Handles and labels: each task's line, with its band if it is one of those that have one, and what dots mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dot: dict[str, Any] = {"color": INK, "marker": "o", "linestyle": "none"}
    lines: list[Any] = []
    for order, task in enumerate(tasks):
        color, dashes = told_apart(order)
        line = Line2D([], [], color=color, linestyle=dashes)
        band = Patch(color=color, alpha=0.15, linewidth=0)
        lines.append((band, line) if task in banded else line)
    dots = {
        "tried": Line2D([], [], markersize=2.5, **dot),
        "chosen": Line2D([], [], markersize=5.5, **dot),
        "alpha 0 kept": Line2D([], [], markersize=5.5, markerfacecolor="none", **dot),
    }
    return [*lines, *dots.values()], [*(f"{task}, 95 % interval" if task in banded else task for task in tasks), *dots]
