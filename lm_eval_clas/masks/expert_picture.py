"""Which experts the tokens of each language reach, drawn: by expert in one layer, and how far languages differ by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lm_eval_clas.drawing.figures import (
    COLORS,
    COLUMN,
    GREY,
    LARGE,
    MIDDLE,
    SMALL,
    new_figure,
    open_axes,
    print_width,
    save,
)
from lm_eval_clas.masks.expert_choice import expert_choices
from lm_eval_clas.masks.mask_set import MaskSet


def plot_experts(masks: MaskSet, path: str | Path, width: float | None = None) -> Path:
    """Draws two panels as PNG, PDF or SVG.

    Above, languages by experts in the layer where languages differ most: how often a language's tokens reach an expert,
    as a multiple of an even choice. Below, by layer, how far each language's choice is from the anchor's.

    Args:
        masks: the masks.
        path: of the picture.
        width: in inches; default: a paper's page. In a column there is no title.

    Raises:
        ClasError: such a width cannot be drawn, the masks are of no mixture of experts, matplotlib is not installed, or the
            file cannot be written.
    """
    choices = expert_choices(masks)
    widest = max(choices, key=lambda one: float(one.distances.mean()))
    experts = widest.shares.shape[1]
    others = [place for place, language in enumerate(masks.languages) if language != masks.anchor]
    width = print_width(width)
    figure = new_figure(width, 3.2 + 0.17 * len(masks.languages))
    from matplotlib.ticker import MaxNLocator

    above, below = figure.subplots(2, 1, height_ratios=[0.5 + 0.17 * len(masks.languages), 1.6])
    shown = above.imshow(np.minimum(widest.shares * experts, 4), aspect="auto", cmap="Blues", vmin=0, vmax=4)
    above.set_yticks(range(len(masks.languages)), masks.languages)
    above.set_xlabel(f"expert of layer {widest.layer}", fontsize=MIDDLE)
    above.tick_params(labelsize=SMALL)
    bar = figure.colorbar(shown, ax=above, ticks=[0, 1, 2, 3, 4])
    bar.ax.set_yticklabels(["0", "even", "2", "3", "\u2265 4"], fontsize=SMALL)
    bar.set_label("times an even share", fontsize=SMALL)
    layers = [one.layer for one in choices]
    for place in others:
        below.plot(layers, [one.distances[place] for one in choices], color=GREY, linewidth=0.8)
    mean = [float(one.distances[others].mean()) for one in choices]
    below.plot(layers, mean, color=COLORS[0], linewidth=2, label="mean of languages")
    last = masks.languages[others[-1]]
    below.plot([], [], color=GREY, linewidth=0.8, label=f"one language ({masks.languages[others[0]]} to {last})")
    below.set_xlabel("layer", fontsize=MIDDLE)
    below.set_ylabel(f"bits from {masks.anchor}", fontsize=MIDDLE)
    below.set_ylim(0, None)
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    open_axes(below)
    figure.legend(loc="outside lower center", ncols=2 if width > COLUMN else 1, frameon=False, fontsize=SMALL)
    if width > COLUMN:
        above.set_title(f"{masks.config.model.short_name}: choice of experts by language", loc="left", fontsize=LARGE)
    return save(figure, path)
