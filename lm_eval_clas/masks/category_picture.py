"""Neurons by category and layer, drawn as one would put them into a paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lm_eval_clas.drawing.figures import (
    BLACK,
    COLORS,
    COLUMN,
    FAINT,
    GREY,
    LARGE,
    MIDDLE,
    PALE,
    SMALL,
    new_figure,
    open_axes,
    print_width,
    save,
)
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.neurons.bridge import layers_text
from lm_eval_clas.neurons.categories import NO_NEURON, UNMEASURED, category_shares

# Categories of neurons run from unshared to shared; dead ones are grey. Neighbours differ in print without colour, too.
_LABELS = ("dead (0 languages)", "language-specific (1)", "partial-shared", "all-shared")
_CATEGORY_COLORS = (FAINT, COLORS[5], COLORS[0], PALE)


def plot_categories(masks: MaskSet, path: str | Path, width: float | None = None) -> Path:
    """Draws the share of each neuron category by layer, with the bridge layers marked, as PNG, PDF or SVG.

    Args:
        masks: the masks.
        path: of the picture.
        width: in inches; default: a paper's page. In a column there is no title, and the legend is below.

    Raises:
        ClasError: such a width cannot be drawn, matplotlib is not installed, or the file cannot be written.
    """
    there = np.maximum((masks.categories != NO_NEURON).sum(axis=1), 1)
    measured = masks.steerable.sum(axis=1) / there
    share = category_shares(masks.categories) * measured[:, None]
    layers = np.arange(len(share))
    width = print_width(width)
    narrow = width <= COLUMN
    figure = new_figure(width, 3.2)
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes = figure.add_subplot()
    bottom = np.zeros(len(layers))
    for category in (0, 1, 2, 3):
        axes.bar(
            layers, share[:, category], 0.86, bottom, color=_CATEGORY_COLORS[category], label=_LABELS[category], linewidth=0
        )
        bottom += share[:, category]
    if masks.measured is not None:
        rest = (masks.categories == UNMEASURED).sum(axis=1) / there
        axes.bar(layers, rest, 0.86, bottom, color="white", edgecolor=GREY, label="unmeasured", linewidth=0.5)
    first, last = masks.bridge_layers[0], masks.bridge_layers[-1]
    axes.plot([first - 0.45, last + 0.45], [1.03, 1.03], color=BLACK, linewidth=2.5, clip_on=False, solid_capstyle="butt")
    span = layers_text(masks.bridge_layers).replace("-", "\u2013")
    axes.text((first + last) / 2, 1.05, f"bridge {span}", ha="center", va="bottom", fontsize=MIDDLE)
    axes.set(xlim=(-0.6, len(layers) - 0.4), ylim=(0, 1))
    axes.set_xlabel("layer", fontsize=MIDDLE)
    axes.set_ylabel("share of neurons", fontsize=MIDDLE)
    axes.tick_params(labelsize=SMALL)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    open_axes(axes, grid=False)
    name = masks.config.model.short_name
    if not narrow:
        axes.set_title(f"{name}, {len(masks.counted)} languages", loc="left", fontsize=LARGE, pad=20)
    handles, labels = axes.get_legend_handles_labels()
    place = {"loc": "outside lower center", "ncols": 2} if narrow else {"loc": "outside right center"}
    figure.legend(handles[::-1], labels[::-1], frameon=False, fontsize=SMALL if narrow else MIDDLE, **place)
    return save(figure, path)
