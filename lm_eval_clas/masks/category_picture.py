"""Pictures of masks, as one would put them into a paper, and what all our pictures share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.files import writing
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.neurons.categories import shares

# Okabe and Ito's palette, told apart with any colour vision, without its yellow, which is lost on white.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
# What has more to tell apart than there are colours goes through them again with the next of these.
DASHES = ("-", "--", ":")
MARKS = ("o", "s", "^", "D", "v", "P")
# What is no data: words beside a picture, lines at 0 and of controls, the grid, and areas that are pointed out.
INK, SOFT, LINE, GRID, GREY = "#333333", "#555555", "#666666", "#e4e4e4", "#9a9a9a"
LARGE, MIDDLE, SMALL = 10, 9, 8  # sizes of letters, in points
# Categories of neurons run from unshared to shared; dead ones are grey.
_LABELS = ("dead (0 languages)", "language-specific (1)", "partial-shared", "all-shared")
_CATEGORY_COLORS = (GREY, COLORS[5], COLORS[0], "#8fcbe8")


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of that size in inches, apart from pyplot's state and from any display.

    Raises:
        ClasError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ClasError("Plots need matplotlib: pip install 'lm-eval-clas[plots]'.") from error
    figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: str | Path) -> Path:
    """Writes a figure as PNG, PDF or SVG, whatever the name ends in, and returns the path.

    Raises:
        ClasError: another ending, or the file cannot be written.
    """
    from matplotlib import rc_context

    path = Path(path)
    # Identifiers in an SVG are random without a salt, and the same picture must be the same file.
    with writing(path) as temporary, rc_context({"svg.hashsalt": "lm-eval-clas"}):
        try:
            figure.savefig(temporary, format=path.suffix.lstrip(".").lower() or "png")
        except ValueError as error:
            raise ClasError(f"Cannot draw '{path}': use a name that ends in .png, .pdf or .svg.") from error
    return path


def plot_categories(masks: MaskSet, path: str | Path, width: float | None = None) -> Path:
    """Draws the share of each neuron category by layer, with the bridge layers marked, as PNG, PDF or SVG.

    Args:
        masks: the masks.
        path: of the picture.
        width: in inches, for a narrow page, without title and with the legend below; default: as the layers need.

    Raises:
        ClasError: matplotlib is not installed, or the file cannot be written.
    """
    share = shares(masks.categories)
    layers = np.arange(len(share))
    figure = new_figure(width or min(12, 3.2 + 0.18 * len(layers)), 3.6)
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes = figure.add_subplot()
    bottom = np.zeros(len(layers))
    for category in (0, 1, 2, 3):
        axes.bar(
            layers, share[:, category], 0.86, bottom, color=_CATEGORY_COLORS[category], label=_LABELS[category], linewidth=0
        )
        bottom += share[:, category]
    first, last = masks.bridge_layers[0], masks.bridge_layers[-1]
    axes.plot([first - 0.45, last + 0.45], [1.03, 1.03], color="black", linewidth=2.5, clip_on=False, solid_capstyle="butt")
    span = f"{first}–{last}" if last > first else str(first)
    axes.text((first + last) / 2, 1.05, f"bridge {span}", ha="center", va="bottom", fontsize=MIDDLE)
    axes.set(xlim=(-0.6, len(layers) - 0.4), ylim=(0, 1), xlabel="layer", ylabel="share of neurons")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    name = masks.config.model.name.rstrip("/").rpartition("/")[2]
    if width is None:
        axes.set_title(f"{name}, {len(masks.counted)} languages", loc="left", fontsize=LARGE, pad=20)
    handles, labels = axes.get_legend_handles_labels()
    place = {"loc": "outside right center"} if width is None else {"loc": "outside lower center", "ncols": 2}
    figure.legend(handles[::-1], labels[::-1], frameon=False, fontsize=MIDDLE, **place)
    return save(figure, path)
