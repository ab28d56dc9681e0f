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
DASHES = ("-", "--", ":")
# What is no data: words beside a picture, lines at 0 and of controls, the grid, areas that are pointed out, and frames.
INK, SOFT, LINE, GRID, GREY, FRAME = "#333333", "#555555", "#666666", "#e4e4e4", "#9a9a9a", "#bbbbbb"
FAINT = "#d2d2d2"  # of areas: printed without colour, GREY is as dark as orange
BLACK = "#000000"  # what stands out among all colours
# Pictures are drawn as large as they are printed, as letters that a paper makes smaller are lost.
LARGE, MIDDLE, SMALL, LEAST = 10, 9, 8, 7  # sizes of letters, in points
PAGE = 6.3  # inches, the width of a paper's page: that of ACL's, between those of NeurIPS (5.5) and IEEE (7.2)
COLUMN = 4.5  # a picture up to here stands in a column: its title is the paper's caption, and its legend is below or above
_WIDTHS = (2.0, 20.0)


def told_apart(order: int) -> tuple[str, str]:
    """Colour and dashes of one of several lines, counted from 0; both differ from the next one's, for print without colour."""
    return COLORS[order % len(COLORS)], DASHES[(order + order // len(COLORS)) % len(DASHES)]


def print_width(asked: float | None, otherwise: float = PAGE) -> float:
    """How wide a picture is drawn, in inches: as asked, if anything was.

    Raises:
        ClasError: nothing could be read at that width, or it fits no page.
    """
    if asked is not None and not _WIDTHS[0] <= asked <= _WIDTHS[1]:
        raise ClasError(
            f"A picture cannot be {asked:g} inches wide; give a --width from {_WIDTHS[0]:g} to {_WIDTHS[1]:g}, such as 3.25 "
            "for a column."
        )
    return otherwise if asked is None else asked


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
    # Identifiers in an SVG are random without a salt, and the same picture must be the same file. Letters in a PDF are
    # TrueType's, as publishers refuse matplotlib's own (type 3).
    with writing(path) as temporary, rc_context({"svg.hashsalt": "lm-eval-clas", "pdf.fonttype": 42}):
        try:
            figure.savefig(temporary, format=path.suffix.lstrip(".").lower() or "png")
        except ValueError as error:
            raise ClasError(f"Cannot draw '{path}': use a name that ends in .png, .pdf or .svg.") from error
    return path
