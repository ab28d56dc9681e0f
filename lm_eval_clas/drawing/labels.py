"""Names at the points and lines that they belong to, in place of a legend of many colours. Where they would meet, they part.

A picture of fifteen languages needs fifteen names, and no print and no eye tells fifteen colours apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lm_eval_clas.drawing.figures import LINE, SMALL

_THIN = {"arrowstyle": "-", "color": LINE, "linewidth": 0.5, "shrinkA": 0}
_LETTER = 0.62  # width of a letter, as a share of its size
_DIRECTIONS = [(np.cos(angle), np.sin(angle)) for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False)]
_DISTANCES = (7, 12, 18, 26, 36, 48)  # of a name's middle from its point, in points of print


def label_points(axes: Any, points: Any, names: Sequence[str], size: float = SMALL) -> None:
    """Writes a name beside each point [points, 2], with a thin line to it where there is no room beside it.

    Call it when the limits of the axes are set and the figure is laid out (`draw_without_rendering`). Names take the nearest
    place where they lie on no point and on no other name.

    Args:
        axes: of the points.
        points: in the units of the axes.
        names: one for each.
        size: of letters, in points of print.
    """
    scale = 72 / axes.figure.dpi
    placed = axes.transData.transform(np.asarray(points, dtype=float)) * scale
    frame = axes.get_window_extent()
    left, bottom, right, top = (edge * scale for edge in (frame.x0, frame.y0, frame.x1, frame.y1))
    boxes: list[tuple[float, float, float, float]] = []
    paper = {"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 0.4}  # names are read over lines and dots
    for number, (name, (x, y)) in enumerate(zip(names, placed, strict=True)):
        half = (0.5 * size * _LETTER * len(name) + 1, 0.5 * size + 1)
        tries = [
            (x + distance * across + np.sign(across) * half[0] * abs(across), y + distance * up)
            for distance in _DISTANCES
            for across, up in _DIRECTIONS
        ]

        def cost(middle: tuple[float, float], half: tuple[float, float] = half) -> float:
            box = (middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1])
            met = sum(_overlap(box, other) for other in boxes)
            hidden = sum(box[0] - 3 < px < box[2] + 3 and box[1] - 3 < py < box[3] + 3 for px, py in placed)
            outside = max(left - box[0], box[2] - right, bottom - box[1], box[3] - top, 0)
            return float(20 * met + 40 * hidden + 50 * outside)

        costs = [cost(one) + 0.5 * (position // len(_DIRECTIONS)) ** 2 for position, one in enumerate(tries)]
        best = int(np.argmin(costs))
        at = tries[best]
        boxes.append((at[0] - half[0], at[1] - half[1], at[0] + half[0], at[1] + half[1]))
        line = {**_THIN, "shrinkB": 2} if best >= len(_DIRECTIONS) else None
        axes.annotate(
            name, points[number], xytext=(at[0] - x, at[1] - y), textcoords="offset points", ha="center", va="center",
            fontsize=size, arrowprops=line, zorder=30, bbox=paper,
        )  # fmt: skip


def label_ends(axes: Any, x: float, heights: Sequence[float], names: Sequence[str], size: float = SMALL) -> None:
    """Writes names to the right of lines that end at `x`, one below the other, with a thin line to the end of each.

    Call it when the limits of the axes are set and the figure is laid out (`draw_without_rendering`). Where there is no room
    for all, the outermost are written, and as many between them as fit.
    """
    low, high = axes.get_ylim()
    inches = axes.get_window_extent().height / axes.figure.dpi
    gap = 1.15 * size / 72 / inches * (high - low)
    order = sorted(range(len(names)), key=lambda one: heights[one])
    room = max(2, int((high - low) / gap) + 1)
    if len(order) > room:
        order = [order[round(place)] for place in np.linspace(0, len(order) - 1, room)]
    places = parted([heights[one] for one in order], gap, low, high)
    for one, place in zip(order, places, strict=True):
        axes.annotate(
            names[one], (x, heights[one]), xytext=(14, place), textcoords=("offset points", "data"), va="center",
            fontsize=size, annotation_clip=False,
            arrowprops={**_THIN, "shrinkB": 1},
        )  # fmt: skip


def parted(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending values, moved as little as it takes to be a gap apart and within limits; the limits give way if need be."""

    def start(run: Sequence[float]) -> float:
        """Where a run of touching values begins, so that they are moved least on the whole."""
        wanted = float(np.mean([value - gap * order for order, value in enumerate(run)]))
        return max(low, min(wanted, high - gap * (len(run) - 1)))

    runs: list[list[float]] = []
    for value in values:
        runs.append([value])
        while len(runs) > 1 and start(runs[-1]) < start(runs[-2]) + gap * len(runs[-2]):
            last = runs.pop()
            runs[-1] += last
    return [start(run) + gap * order for run in runs for order in range(len(run))]


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """The smaller side of what two boxes share; 0 if nothing."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, min(across, up))
