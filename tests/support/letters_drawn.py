"""What is written on a picture, as it is drawn: sizes of letters, words that meet, words that leave the picture."""

from __future__ import annotations

from itertools import combinations
from typing import Any
from unittest.mock import patch

from matplotlib.text import Text

LEAST = 6  # points, of letters that can be read in print


def words_of(figure: Any) -> list[Any]:
    """Every text that drawing the figure writes."""
    written: list[Any] = []
    draw = Text.draw

    def recorded(text: Any, renderer: Any, *more: Any, **options: Any) -> Any:
        if text.get_visible() and text.get_text().strip():
            written.append(text)
        return draw(text, renderer, *more, **options)

    with patch.object(Text, "draw", recorded):
        figure.canvas.draw()
    return list(dict.fromkeys(written))


def hard_to_read(figure: Any) -> list[str]:
    """What a reader of the printed picture would complain about."""
    written = words_of(figure)
    width, height = figure.canvas.get_width_height()
    boxes = [(one.get_text(), Text.get_window_extent(one)) for one in written]
    found = [f"{one.get_text()!r} is small" for one in written if one.get_fontsize() < LEAST]
    found += [
        f"{text!r} is cut off" for text, box in boxes if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]
    for (text, one), (other_text, other) in combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        up = min(one.y1, other.y1) - max(one.y0, other.y0)
        if across > 2 and up > 5:  # the room above and below letters may be shared
            found.append(f"{text!r} and {other_text!r} meet")
    return found
