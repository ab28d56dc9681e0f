"""The picture of neurons by category: readable in a column, and its areas told apart without colour."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from letters_drawn import hard_to_read, words_of
from matplotlib.colors import to_rgb

from lm_eval_clas import MaskSet
from lm_eval_clas.masks import category_picture
from lm_eval_clas.masks.category_picture import plot_categories


def drawn(masks: MaskSet, width: float | None, monkeypatch: pytest.MonkeyPatch) -> Any:
    kept: list[Any] = []
    monkeypatch.setattr(category_picture, "save", lambda figure, path: kept.append(figure) or path)
    plot_categories(masks, Path("a.png"), width)
    return kept[0]


@pytest.mark.parametrize("width", [None, 3.25])
def test_it_can_be_read_as_it_is_printed(width: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(MaskSet.load("gemma-3-270m"), width, monkeypatch)
    assert figure.get_figwidth() == (width or 6.3)
    assert not hard_to_read(figure)
    told = {one.get_text() for one in words_of(figure)}
    assert ("gemma-3-270m, 12 languages" in told) == (width is None)  # in a column the caption says it
    assert {"all-shared", "partial-shared", "language-specific (1)", "dead (0 languages)"} <= told


def test_neighbours_differ_in_print_without_colour(masks: MaskSet, monkeypatch: pytest.MonkeyPatch) -> None:
    areas = [bars[0].get_facecolor() for bars in drawn(masks, None, monkeypatch).axes[0].containers]
    greys = [0.299 * red + 0.587 * green + 0.114 * blue for red, green, blue in (to_rgb(one) for one in areas)]
    assert all(abs(one - other) > 0.15 for one, other in pairwise([*greys, 1.0]))
