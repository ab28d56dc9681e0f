"""Pictures for a web page: SVG inside the page, in its colours, with a text alternative that says what is to be seen.

Words stay words, so that the page's font draws them; ink, grid and background are the page's variables `--ink`, `--soft`,
`--line` and `--blue`, so that one picture serves light, dark and print. All are drawn as wide as a phone.
"""

from __future__ import annotations

import base64
import io
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from markupsafe import Markup

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.drawing.figures import BLACK, COLORS, GRID, LINE, SOFT, new_figure

WIDTH = 3.6  # inches, as wide as a phone
_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_INKS = {BLACK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--soft)", GRID: "var(--line)"}
_STROKES = {f"stroke: {COLORS[0]}": "stroke: var(--blue)"}  # of lines alone: bars have a second blue beside the first
_WIDEST = 1300  # pixels of a picture: a page's at 200 an inch
_SHADES = 128  # more than our pictures' colours, with those between them at edges


@contextmanager
def web_style() -> Iterator[None]:
    """In this block figures are drawn for `inline`: words as words, nothing behind them, dollars are no formulas."""
    new_figure(1, 1)  # a missing matplotlib is told in our words
    from matplotlib import rc_context

    settings = {"svg.fonttype": "none", "text.parse_math": False, "axes.unicode_minus": True}
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
    """A PNG as an `img` that needs no file, in few colours if that makes it smaller, in a frame that scrolls.

    Raises:
        ClasError: it is no picture.
    """
    from PIL import Image

    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            width, height = image.size
            image.thumbnail((_WIDEST, 10 * _WIDEST))
            smaller = io.BytesIO()
            few = image.convert("RGB").quantize(_SHADES, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            few.save(smaller, "PNG", optimize=True)
            if smaller.tell() < len(content):
                content, (width, height) = smaller.getvalue(), image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ClasError(f"'{path}' is damaged: it is no PNG picture ({error}); run the stage that draws it again.") from error
    data = base64.b64encode(content).decode("ascii")
    source = f"data:image/png;base64,{data}"
    shown = Markup('<img src="{}" width="{}" height="{}" alt="{}">').format(source, width, height, alternative)
    # Its letters would be too small on a phone: there it scrolls.
    return Markup('<div class="scroll" role="region" tabindex="0" aria-label="{}">{}</div>').format(path.name, shown)
