"""Names at points and lines: none lies on another, none is lost, and none moves further than it must."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from lm_eval_clas.drawing.figures import new_figure
from lm_eval_clas.drawing.labels import label_ends, label_points, parted


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([5.0], [5.0]),
        ([1.0, 5.0], [1.0, 5.0]),
        ([5.0, 5.0], [4.5, 5.5]),
        ([5.0, 5.0, 5.0, 9.0], [4.0, 5.0, 6.0, 9.0]),
        ([0.0, 0.0], [0.0, 1.0]),  # pushed up from the edge
        ([10.0, 10.0], [9.0, 10.0]),
        ([3.0, 3.4, 4.0, 4.2], [2.15, 3.15, 4.15, 5.15]),
    ],
)
def test_values_are_parted_and_moved_least(values: list[float], expected: list[float]) -> None:
    assert parted(values, 1.0, 0.0, 10.0) == pytest.approx(expected)


def test_parted_values_are_a_gap_apart_whatever_they_are() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = sorted(rng.uniform(0, 10, size=rng.integers(1, 10)))
        places = parted(values, 1.0, 0.0, 10.0)
        assert all(after - before >= 1 - 1e-9 for before, after in pairwise(places))
        assert min(places) >= -1e-9
        assert max(places) <= 10 + 1e-9


@pytest.mark.parametrize("count", [1, 15])
def test_names_at_points_do_not_meet(count: int) -> None:
    rng = np.random.default_rng(1)
    figure = new_figure(2.4, 2.4)
    axes = figure.add_subplot()
    points = rng.normal(size=(count, 2))
    axes.set(xlim=(-3, 3), ylim=(-3, 3))
    figure.draw_without_rendering()
    names = [f"l{number}" for number in range(count)]
    label_points(axes, points, names, 7)
    figure.draw_without_rendering()
    assert [one.get_text() for one in axes.texts] == names
    boxes = [one.get_tightbbox() if one.arrow_patch is None else one.get_window_extent() for one in axes.texts]
    frame = axes.get_window_extent()
    assert all(frame.contains(box.x0 + 2, box.y0 + 2) and frame.contains(box.x1 - 2, box.y1 - 2) for box in boxes)
    met = [pair for pair in combinations([one.shrunk(0.6, 0.6) for one in boxes], 2) if pair[0].overlaps(pair[1])]
    assert len(met) <= count // 10


def test_names_at_the_ends_of_lines_are_in_order_and_as_many_as_fit() -> None:
    figure = new_figure(3, 2)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    figure.draw_without_rendering()
    label_ends(axes, 1, [0.5, 0.51, 0.49], ["b", "c", "a"], 7)
    assert [one.get_text() for one in axes.texts] == ["a", "b", "c"]
    assert all(before.xyann[1] < after.xyann[1] for before, after in pairwise(axes.texts))
    many = figure.add_axes((0, 0, 1, 1))
    label_ends(many, 1, list(np.linspace(0, 1, 80)), [f"n{number}" for number in range(80)], 7)
    told = [one.get_text() for one in many.texts]
    assert (told[0], told[-1]) == ("n0", "n79")
    assert 5 < len(told) < 30
