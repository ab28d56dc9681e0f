"""Where sentences lie before and after steering: the two main directions of some layers, drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.drawing.figures import (
    BLACK,
    COLORS,
    COLUMN,
    FRAME,
    GREY,
    LEAST,
    LINE,
    MIDDLE,
    SMALL,
    new_figure,
    print_width,
    save,
)
from lm_eval_clas.drawing.labels import label_points

_COLORS = (GREY, COLORS[0])  # not steered, steered
_LEAST, _LARGEST = 1.2, 2.4  # inches of a panel's side
_BESIDE = 0.35  # inches, for the words at the left of all panels


def layers_to_draw(bridge: Sequence[int], layers: int) -> list[int]:
    """Layers of representations: entering the bridge, leaving it, halfway from there to the end, and the last."""
    entering, leaving = min(bridge), max(bridge) + 1
    return sorted({entering, leaving, (leaving + layers + 1) // 2, layers})


def plot_geometry(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    languages: Sequence[str],
    anchor: str,
    bridge: Sequence[int],
    path: str | Path,
    title: str = "",
    width: float | None = None,
) -> Path:
    """Draws representations of one pooling before and after steering as PNG, PDF or SVG.

    A column for each of `layers_to_draw`, before above after; where that is too narrow, a row for each, before beside after.
    Names stand at the means of languages; after steering, a line leads from where each mean was to where it is. The directions
    are the principal components of a layer's unsteered and steered points together, so that both pictures of a layer have the
    same axes.

    Args:
        before: unsteered, float32 [languages, layers + 1, items, hidden].
        after: steered, the same shape.
        languages: their codes, in that order.
        anchor: the language that is not steered.
        bridge: the steered layers, zero-based.
        path: where to write; its ending says the format.
        title: what it is a picture of; not written in a column, where a caption says it.
        width: in inches; default: a paper's page.

    Raises:
        ClasError: such a width cannot be drawn, matplotlib is not installed, or the file cannot be written.
    """
    layers, last = layers_to_draw(bridge, before.shape[1] - 1), before.shape[1] - 1
    width = print_width(width)
    across = (width - _BESIDE) / len(layers) >= _LEAST  # layers beside each other
    rows, columns = (2, len(layers)) if across else (len(layers), 2)
    side = min(_LARGEST, (width - _BESIDE) / columns)
    heads = 1.3 if across else 0.7 + 0.2 * rows  # inches, of words above and below panels
    figure = new_figure(width, rows * side + heads)
    grid = figure.subplots(rows, columns, squeeze=False)
    panels = grid if across else grid.T  # [before and after, layers]
    centres = []
    for place, layer in enumerate(layers):
        planes, shares = _principal(np.stack([before[:, layer], after[:, layer]]).astype(np.float64))
        means = planes.mean(axis=2)
        centres.append(means)
        for steered, plane in enumerate(planes):
            _draw(panels[steered, place], plane, means[: steered + 1], [one == anchor for one in languages], side)
        low, high = planes.min(axis=(0, 1, 2)), planes.max(axis=(0, 1, 2))
        room = 0.06 * (high - low) + 1e-9
        for axes in panels[:, place]:
            axes.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))
        for axes in panels[1:, place] if across else panels[:, place]:
            axes.set_xlabel(f"PC1 {100 * shares[0]:.0f} %, PC2 {100 * shares[1]:.0f} %", fontsize=LEAST)
        if across:
            panels[0, place].set_title(_place(layer, bridge, last), loc="left", fontsize=SMALL)
        else:
            panels[0, place].set_ylabel(_place(layer, bridge, last), fontsize=SMALL)
    for axes, label in zip(panels[:, 0], ("not steered", "steered"), strict=True):
        (axes.set_ylabel if across else axes.set_title)(label, fontsize=MIDDLE)
    if width > COLUMN:
        letters = int(width / 0.075)
        told = "\n".join(textwrap.fill(line, letters) for line in title.splitlines())
        figure.suptitle(told, x=0.01, ha="left", fontsize=MIDDLE)
    each = 4 if width > COLUMN else 2
    figure.legend(handles=_legend(anchor), loc="outside lower center", ncols=each, frameon=False, fontsize=LEAST)
    figure.draw_without_rendering()  # names need to know how large the panels are
    for place, means in enumerate(centres):
        for axes, at in zip(panels[:, place], means, strict=True):
            label_points(axes, at, languages, LEAST)
    return save(figure, path)


def _principal(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points [..., hidden] in their first two principal components, [..., 2], and both components' share of the variance."""
    from sklearn.decomposition import PCA

    components = PCA(2, random_state=0)
    plane = components.fit_transform(points.reshape(-1, points.shape[-1]))
    return plane.reshape(*points.shape[:-1], 2), np.nan_to_num(components.explained_variance_ratio_)


def _draw(axes: Any, plane: NDArray[np.float64], means: NDArray[np.float64], anchors: Sequence[bool], side: float) -> None:
    """One panel from [languages, items, 2]: small dots for items, a larger mark for each language's mean.

    Args:
        axes: to draw on.
        plane: the panel's points.
        means: of each language, [1 or 2, languages, 2]: not steered, and steered, if this is the panel of what is steered.
        anchors: whether a language is the anchor.
        side: of the panel, in inches.
    """
    steered = len(means) > 1
    size = side**2 * float(np.clip(520 / plane[..., 0].size, 0.5, 2.4))
    large = 6 + 3.5 * side**2
    axes.scatter(*plane.reshape(-1, 2).T, s=size, color=_COLORS[steered], alpha=0.25, linewidths=0, zorder=2)
    for number, anchor in enumerate(anchors):
        if steered:
            axes.plot(*means[:, number].T, color=LINE, linewidth=1, zorder=3)
            axes.scatter(*means[0, number], zorder=3, **_mark(False, anchor, large / 2))
        axes.scatter(*means[-1, number], zorder=5 if anchor else 4, **_mark(steered, anchor, large))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(FRAME)


def _mark(steered: bool, anchor: bool, size: float) -> dict[str, Any]:
    """What a mean looks like: a star for the anchor; else a ring without steering, a filled dot with it."""
    if anchor:
        return {"s": 3.5 * size, "marker": "*", "color": BLACK, "linewidths": 0}
    face = _COLORS[1] if steered else "white"
    return {"s": size, "marker": "o", "facecolor": face, "edgecolor": _COLORS[steered], "linewidths": 1}


def _legend(anchor: str) -> list[Any]:
    from matplotlib.lines import Line2D

    none: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 5}
    return [
        Line2D([], [], color=BLACK, linestyle="none", marker="*", markersize=9, label=f"{anchor}, the anchor"),
        Line2D([], [], color=_COLORS[0], markerfacecolor="white", label="mean, not steered", **none),
        Line2D([], [], color=_COLORS[1], label="mean, steered", **none),
        Line2D([], [], color=LINE, linewidth=1, label="how steering moved it"),
    ]


def _place(layer: int, bridge: Sequence[int], layers: int) -> str:
    if layer == min(bridge):
        return f"entering layer {layer}:\nthe bridge begins"
    ends = {max(bridge) + 1: "the bridge ends", layers: "the last"}
    return f"leaving layer {layer - 1}" + (f":\n{ends[layer]}" if layer in ends else "")
