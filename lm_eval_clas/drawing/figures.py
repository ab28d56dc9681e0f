"""Drawing: empty figures, how they are saved, and the colours, marks and dashes that all pictures share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.escaping import visible
from lm_eval_clas.disk.files import writing

# Okabe and Ito's palette, told apart with any colour vision, without its yellow, which is lost on white.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
PALE = "#8fcbe8"  # a second blue, for areas beside the first
# What has more to tell apart than there are colours goes through them again with the next of these.
DASHES = ("-", "--", ":")
# What is no data: words beside a picture, lines at 0 and of controls, the grid, areas that are pointed out, and frames.
INK, SOFT, LINE, GRID, GREY, FRAME = "#333333", "#555555", "#666666", "#e4e4e4", "#9a9a9a", "#bbbbbb"
BLACK = "#000000"  # what stands out among all colours
LARGE, MIDDLE, SMALL = 10, 9, 8  # sizes of letters, in points


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


def open_axes(axes: Any, grid: bool = True) -> None:
    """Takes the frame off the axes' top and right; small letters and a faint grid behind the data, unless without."""
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.tick_params(labelsize=SMALL)
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)


def save(figure: Any, path: str | Path) -> Path:
    """Writes a figure as PNG, PDF or SVG, whatever the name ends in, and returns the path.

    Raises:
        ClasError: another ending, or the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text

    path = Path(path)
    for text in figure.findobj(Text):  # titles and labels come from files: they do nothing, and are no formulas
        text.set(text=visible(text.get_text(), keep="\n"), parse_math=False)
    # Identifiers in an SVG are random without a salt, and the same picture must be the same file.
    with writing(path) as temporary, rc_context({"svg.hashsalt": "lm-eval-clas"}):
        try:
            figure.savefig(temporary, format=path.suffix.lstrip(".").lower() or "png")
        except ValueError as error:
            raise ClasError(f"Cannot draw '{path}': use a name that ends in .png, .pdf or .svg.") from error
    return path
