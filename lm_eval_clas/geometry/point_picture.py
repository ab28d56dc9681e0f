"""Where sentences lie before and after steering: the two main directions of some layers, drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.drawing.figures import BLACK, COLORS, FRAME, GREY, LARGE, MARKS, MIDDLE, SMALL, new_figure, save

_COLORS = (*COLORS, GREY)  # more languages than colours get other marks
_IN_A_COLUMN = 20  # of the legend


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
) -> Path:
    """Draws representations of one pooling before and after steering as PNG, PDF or SVG.

    A column for each of `layers_to_draw`, before above after. The directions are the principal components of a layer's
    unsteered and steered points together, so that both pictures of a layer have the same axes.

    Args:
        before: unsteered, float32 [languages, layers + 1, items, hidden].
        after: steered, the same shape.
        languages: their codes, in that order.
        anchor: the language that is not steered.
        bridge: the steered layers, zero-based.
        path: where to write; its ending says the format.
        title: what it is a picture of.

    Raises:
        ClasError: matplotlib is not installed, or the file cannot be written.
    """
    layers = layers_to_draw(bridge, before.shape[1] - 1)
    columns = math.ceil(len(languages) / _IN_A_COLUMN)
    figure = new_figure(0.9 + 2.3 * len(layers) + 0.55 * columns, 5.2)
    grid = figure.subplots(2, len(layers), squeeze=False)
    for column, layer in enumerate(layers):
        planes, shares = _principal(np.stack([before[:, layer], after[:, layer]]).astype(np.float64))
        for row, plane in enumerate(planes):
            _draw(grid[row, column], plane, languages, anchor)
        low, high = planes.min(axis=(0, 1, 2)), planes.max(axis=(0, 1, 2))
        room = 0.06 * (high - low) + 1e-9
        for axes in grid[:, column]:
            axes.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))
        grid[0, column].set_title(_place(layer, bridge, before.shape[1] - 1), loc="left", fontsize=MIDDLE)
        grid[1, column].set_xlabel(f"PC1 {100 * shares[0]:.0f} %, PC2 {100 * shares[1]:.0f} %", fontsize=SMALL)
    for axes, label in zip(grid[:, 0], ("not steered", "steered"), strict=True):
        axes.set_ylabel(label, fontsize=LARGE)
    figure.suptitle(title, x=0.01, ha="left", fontsize=LARGE)
    figure.legend(
        handles=_legend(languages, anchor), loc="outside right center", ncols=columns, frameon=False, fontsize=SMALL,
        handletextpad=0.2, columnspacing=0.8,
    )  # fmt: skip
    return save(figure, path)


def _principal(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points [..., hidden] in their first two principal components, [..., 2], and both components' share of the variance."""
    from sklearn.decomposition import PCA

    components = PCA(2, random_state=0)
    plane = components.fit_transform(points.reshape(-1, points.shape[-1]))
    return plane.reshape(*points.shape[:-1], 2), np.nan_to_num(components.explained_variance_ratio_)


def _draw(axes: Any, plane: NDArray[np.float64], languages: Sequence[str], anchor: str) -> None:
    """One panel from [languages, items, 2]: dots for items, and a larger one for each language's mean."""
    size = float(np.clip(3000 / plane[..., 0].size, 3, 14))
    for number, language in enumerate(languages):
        color, shape = _look(language, languages, anchor)
        dots = {"color": color, "marker": shape, "linewidths": 0}
        axes.scatter(*plane[number].T, s=size, alpha=0.35, zorder=2, **dots)
        mean = plane[number].mean(axis=0)
        axes.scatter(*mean, s=130 if language == anchor else 42, color=color, marker=shape, edgecolors="white", linewidths=0.8,
                     zorder=4 if language == anchor else 3)  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(FRAME)


def _look(language: str, languages: Sequence[str], anchor: str) -> tuple[str, str]:
    """A language's colour and shape: a black star for the anchor, and no two others alike."""
    if language == anchor:
        return BLACK, "*"
    order = [one for one in languages if one != anchor].index(language)
    return _COLORS[order % len(_COLORS)], MARKS[order // len(_COLORS) % len(MARKS)]


def _legend(languages: Sequence[str], anchor: str) -> list[Any]:
    from matplotlib.lines import Line2D

    handles = []
    for language in sorted(languages, key=lambda one: one != anchor):
        color, shape = _look(language, languages, anchor)
        size = 10 if language == anchor else 6
        handles.append(Line2D([], [], color=color, marker=shape, markersize=size, linestyle="none", label=language))
    return handles


def _place(layer: int, bridge: Sequence[int], layers: int) -> str:
    if layer == min(bridge):
        return f"entering layer {layer}:\nthe bridge begins"
    ends = {max(bridge) + 1: "the bridge ends", layers: "the last"}
    return f"leaving layer {layer - 1}" + (f":\n{ends[layer]}" if layer in ends else "")
