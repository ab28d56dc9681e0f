"""Pictures for a web page: SVG inside the page, in its colours, with a text alternative that says what is to be seen.

Words stay words, so that the page's font draws them; ink, grid and background are the page's variables `--ink`, `--soft`,
`--line` and `--blue`, so that one picture serves light, dark and print. All are drawn as wide as a phone.
"""

from __future__ import annotations

import base64
import io
import math
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.comparing.rows import Comparison, Row
from lm_eval_clas.drawing.figures import COLORS, GREY, GRID, LINE, MIDDLE, SMALL, SOFT, new_figure, save
from lm_eval_clas.geometry.measurements import Geometry, Measure, Pooling
from lm_eval_clas.study.report.wording import drawable, language_text

WIDTH = 3.6  # inches, as wide as a phone
_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_INKS = {"#000000": "var(--ink)", SOFT: "var(--soft)", LINE: "var(--soft)", GRID: "var(--line)"}
_STROKES = {f"stroke: {COLORS[0]}": "stroke: var(--blue)"}  # of lines alone: bars have a second blue beside the first
_LARGEST = (1200, 400_000)  # pixels of width, bytes


@contextmanager
def web_style() -> Iterator[None]:
    """In this block figures are drawn for `inline`: words as words, nothing behind them, dollars are no formulas."""
    new_figure(1, 1)  # a missing matplotlib is told in our words
    from matplotlib import rc_context

    settings = {"svg.fonttype": "none", "svg.hashsalt": "clas", "text.parse_math": False, "axes.unicode_minus": True}
    with rc_context({**settings, "figure.facecolor": "none", "axes.facecolor": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser has it
        yield


def picture(draw: Callable[[Path], object], name: str, alternative: str) -> Markup:
    """What `draw` draws into the SVG file that it is given, as markup; `name` keeps its ids apart from other pictures'."""
    with tempfile.TemporaryDirectory() as folder, web_style():
        path = Path(folder) / "picture.svg"
        draw(path)
        return inline(path.read_text(encoding="utf-8"), name, alternative)


def inline(svg: str, name: str, alternative: str) -> Markup:
    """An SVG file of matplotlib's as an element of a page."""
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    for element in root.iter():
        if (own := element.attrib.pop("id", None)) in used:
            element.set("id", f"{name}-{own}")
        if link := element.attrib.pop(_LINK, None):
            element.set("href", f"#{name}-{link.removeprefix('#')}")
        for key in ("style", "clip-path", "d", "transform", "points", "x", "y", "width", "height"):
            if key in element.attrib:
                element.set(key, _own(element.attrib[key], name, 1 if key in ("d", "points") else 2))
    width = float(root.attrib["viewBox"].split()[2])
    for key in ("height", "version"):
        root.attrib.pop(key, None)
    # A point is 4/3 of CSS's pixels.
    root.attrib |= {"width": f"{width * 4 / 3:.0f}", "role": "img", "aria-label": alternative}
    for element in root.iter():  # its indentation
        element.tail = None
        element.text = (element.text or "").strip() or None
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # an SVG tree, serialised: all text in it is escaped


def _own(value: str, name: str, digits: int) -> str:
    """A style or path in the page's colours and fonts, with so many digits after the point."""
    value = re.sub(r"url\(#", f"url(#{name}-", value)
    value = re.sub(r"(font: [^;']*|font-family: )'[^;]*", r"\1system-ui, sans-serif", value)
    value = re.sub(r"\s+", " ", value).strip()
    value = re.sub(rf"-?\d+\.\d{{{digits + 1},}}", lambda found: f"{float(found[0]):.{digits}f}".rstrip("0").rstrip("."), value)
    for ink, own in (_INKS | _STROKES).items():
        value = value.replace(ink, own)
    return value


def in_the_page(color: str) -> str:
    """The colour of a line as the page draws it."""
    return _STROKES.get(f"stroke: {color}", color).removeprefix("stroke: ")


def embedded(path: Path, alternative: str) -> Markup:
    """A PNG as an `img` that needs no file, made smaller if it is large, in a frame that scrolls.

    Raises:
        ClasError: it is no picture.
    """
    from PIL import Image

    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            width, height = image.size
            if len(content) > _LARGEST[1]:
                image.thumbnail((_LARGEST[0], 10 * _LARGEST[0]))
                smaller = io.BytesIO()
                image.convert("RGB").quantize(128).save(smaller, "PNG", optimize=True)
                content, (width, height) = smaller.getvalue(), image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ClasError(f"'{path}' is damaged: it is no PNG picture ({error}); run the stage that draws it again.") from error
    data = base64.b64encode(content).decode("ascii")
    source = f"data:image/png;base64,{data}"
    shown = Markup('<img src="{}" width="{}" height="{}" alt="{}">').format(source, width, height, alternative)
    # Its letters would be too small on a phone: there it scrolls.
    return Markup('<div class="scroll" role="region" tabindex="0" aria-label="{}">{}</div>').format(path.name, shown)


def _axes(height: float) -> tuple[Any, Any]:
    figure = new_figure(WIDTH, height)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def plot_averages(comparison: Comparison, rows: Sequence[Row], path: Path) -> Path:
    """The average gain of each row with its interval, one below the other."""
    figure, axes = _axes(0.75 + 0.24 * len(rows))
    axes.axvline(0, color=LINE, linewidth=1)
    for position, row in enumerate(rows):
        color = COLORS[0] if row.kind == "method" else COLORS[1]
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [position, position], color=color, linewidth=2)
        axes.plot([row.gain], [position], "o" if row.kind == "method" else "s", color=color, markersize=6)
    axes.set_yticks(range(len(rows)), [drawable(row.label, 24) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    figure.supxlabel(f"average gain ({drawable(comparison.unit)}), 95\u00a0% interval", fontsize=MIDDLE)
    return save(figure, path)


def plot_gains(comparison: Comparison, rows: Sequence[Row], codes: Sequence[str], path: Path) -> Path:
    """Each row's gain by language, one language below the other; the first row's marks are filled."""
    widest = 0.45 + 0.07 * max(len(drawable(row.label, 24)) for row in rows)  # inches, of an entry of the legend
    fitting = max(1, min(len(rows), int(WIDTH / widest)))
    figure, axes = _axes(0.7 + 0.19 * len(codes) + 0.2 * math.ceil(len(rows) / fitting))
    axes.axvline(0, color=LINE, linewidth=1)
    for order, row in enumerate(rows):
        known = [(row.cells[code].gain, position) for position, code in enumerate(codes) if code in row.cells]
        points = [(gain, position) for gain, position in known if gain is not None]
        axes.plot(
            [gain for gain, _ in points],
            [position for _, position in points],
            ("o", "s", "D", "^", "v")[order % 5],
            color=COLORS[order % len(COLORS)],
            markerfacecolor=COLORS[0] if order == 0 else "none",
            markersize=6 if order == 0 else 5,
            zorder=20 - order,
            label=drawable(row.label, 24),
        )
    axes.set_yticks(range(len(codes)), [drawable(language_text(code), 22) for code in codes])
    axes.set_ylim(len(codes) - 0.4, -0.6)
    figure.supxlabel(f"gain over {drawable(comparison.baseline, 16)} ({drawable(comparison.unit, 10)})", fontsize=MIDDLE)
    figure.legend(loc="outside upper center", ncols=fitting, frameon=False, fontsize=SMALL)
    return save(figure, path)


def plot_layers(geometry: Geometry, measure: Measure, pooling: Pooling, path: Path) -> Path:
    """A measure by layer, a thin line for each language, without steering and with it; the bridge is shaded."""
    figure, axes = _axes(2.5)
    from matplotlib.ticker import MaxNLocator

    chosen = [one for one in geometry.measurements if (one.measure, one.pooling) == (measure, pooling)]
    codes = list(dict.fromkeys(one.language for one in chosen))
    if bridge := geometry.bridge_layers:  # what decoder layer l puts out is representation l + 1
        axes.axvspan(bridge[0] + 0.5, bridge[-1] + 1.5, color=GREY, alpha=0.25, linewidth=0, label="bridge layers")
    faint = 0.9 if len(codes) <= 3 else 0.6 if len(codes) <= 15 else 0.35
    for steered, color, dashes in ((False, LINE, "-"), (True, COLORS[0], "--")):
        for order, code in enumerate(codes):
            points = sorted((one.layer, one.value) for one in chosen if one.language == code and one.steered == steered)
            label = ("steered" if steered else "not steered") if order == 0 else None
            line = {"color": color, "linestyle": dashes, "linewidth": 1.3, "alpha": faint, "label": label}
            axes.plot([layer for layer, _ in points], [value for _, value in points], **line)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("layer of the representation (0: embeddings)", fontsize=MIDDLE)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=SMALL)
    return save(figure, path)
