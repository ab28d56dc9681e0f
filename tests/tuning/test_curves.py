"""Curves of gain over alpha: a file comes out, and what cannot be drawn is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from letters_drawn import hard_to_read
from matplotlib.colors import to_hex

from lm_eval_clas import ClasError
from lm_eval_clas.drawing.figures import COLORS, told_apart
from lm_eval_clas.tuning import curves as curves_module
from lm_eval_clas.tuning.curves import Curve, by_unit, choice, plot_curves

CURVE = Curve(
    task="clas_xnli",
    language="hi",
    alphas=[-1, 0, 1],
    gains=[-0.4, 0, 0.02],
    low=[-0.5, 0, 0.01],
    high=[-0.3, 0, 0.03],
    chosen=1,
    items=200,
    unit="points",
)


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("deep/a.svg", b"<?xml")])
def test_the_ending_decides_the_format(tmp_path: Path, name: str, start: bytes) -> None:
    assert plot_curves([CURVE], tmp_path / name) == tmp_path / name
    content = (tmp_path / name).read_bytes()
    assert content.startswith(start)
    assert b"/Type3" not in content  # letters that publishers refuse


def test_a_picture_says_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # words, not outlines of letters
    curves = [
        CURVE,
        replace(CURVE, task="clas_xquad", chosen=0, items=150),
        replace(CURVE, language="zh-Hant"),
        replace(CURVE, language="not a code", items=1),
    ]
    picture = plot_curves(curves, tmp_path / "a.svg").read_text(encoding="utf-8")
    for text in (
        *("Hindi", "hi, 200 / 150 items", "Chinese (Traditional)", "not a code, 1 item<"),
        *("clas_xnli, 95 % interval", "clas_xquad, 95 % interval", "tried", "chosen", "alpha 0 kept"),
        *("gain over alpha 0 (points)", "alpha (tried from −1 to 1; cut off: losses down to −50 points)"),
        *("chosen 1: +2<", "0 kept; 1: +2<"),
    ):
        assert text in picture
    picture = plot_curves([replace(CURVE, unit="nats")], tmp_path / "b.svg").read_text(encoding="utf-8")
    assert "alpha (tried from −1 to 1; cut off" in picture  # in two lines
    assert "−0.5 nats)<" in picture


LONG = replace(
    CURVE,
    alphas=[-8, -4, -1, 0, 1, 2],
    gains=[-9.0, -0.5, -0.1, 0.0, 0.02, 0.1],
    low=[-9.5, -0.6, -0.2, 0.0, 0.0, 0.0],
    high=[-8.0, -0.4, 0.0, 0.0, 0.1, 0.2],
    unit="nats",
    chosen=2,
)


def drawn(curves: list[Curve], monkeypatch: pytest.MonkeyPatch, folder: Path, width: float | None = None) -> Any:
    """The first panel of the figure that `plot_curves` saves."""
    kept: list[Any] = []
    monkeypatch.setattr(curves_module, "save", lambda figure, path: kept.append(figure) or path)
    plot_curves(curves, folder / "a.png", width)
    return kept[0].axes[0]


@pytest.mark.parametrize("tasks", [("clas_xnli",), ("clas_xnli", "clas_xquad")])
@pytest.mark.parametrize(("width", "inches"), [(None, 6.3), (3.25, 3.25)])
def test_fifteen_languages_can_be_read_as_they_are_printed(
    width: float | None, inches: float, tasks: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = ["ar", "bg", "de", "el", "es", "fr", "hi", "ro", "ru", "sw", "th", "tr", "ur", "vi", "zh-Hant"]
    curves = [
        replace(LONG, task=task, language=code, chosen=LONG.alphas[order % 6])
        for order, code in enumerate(codes)
        for task in tasks
    ]
    figure = drawn(curves, monkeypatch, tmp_path, width).figure
    assert figure.get_figwidth() == inches
    assert figure.get_figheight() < 12
    assert not hard_to_read(figure)


def test_a_width_that_no_page_has_is_refused(tmp_path: Path) -> None:
    for width in (0.5, 30, float("nan")):
        with pytest.raises(ClasError, match=f"cannot be {width:g} inches wide; give a --width from 2 to 20"):
            plot_curves([CURVE], tmp_path / "a.png", width)


def test_lines_are_told_apart_without_colour() -> None:
    lines = [told_apart(order) for order in range(18)]
    assert len(set(lines)) == 18
    assert all(one[1] != other[1] for one, other in pairwise(lines))


def test_the_axis_ends_where_curves_leave_it_and_has_a_number_at_each_strength(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = drawn([LONG], monkeypatch, tmp_path)
    left, right = panel.get_xlim()
    # Losses are drawn down to -0.4, twice the highest end of an interval: between -4 (-0.5) and -1 (-0.1), that is at -3.25.
    assert left == pytest.approx(-3.25 - 0.05 * 5.25)
    assert right == pytest.approx(2 + 0.05 * 5.25)
    assert [one.get_text() for one in panel.get_xticklabels()] == ["0", "−1", "1", "2"]


def test_numbers_at_the_axis_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alphas = [round(-2 + 0.1 * step, 1) for step in range(41)]
    flat = [0.0] * 41
    many = replace(LONG, alphas=alphas, gains=flat, low=flat, high=[0.1] * 41, chosen=0)
    panels = [replace(many, language=code) for code in ("hi", "de", "es")]
    panel = drawn(panels, monkeypatch, tmp_path)
    panel.figure.draw_without_rendering()
    boxes = sorted((one.get_window_extent() for one in panel.get_xticklabels()), key=lambda box: box.x0)
    boxes = boxes or sorted((one.get_window_extent() for one in panel.figure.axes[2].get_xticklabels()), key=lambda box: box.x0)
    assert len(boxes) >= 3
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))


def test_a_bands_colour_is_in_the_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = drawn([LONG, replace(LONG, task="clas_xquad")], monkeypatch, tmp_path)
    (legend,) = panel.figure.legends
    patches = [one for one in legend.get_patches() if one.get_alpha() == 0.15]
    assert [to_hex(one.get_facecolor()) for one in patches] == list(COLORS[:2])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "chosen 2: +0.1"),
        ({"chosen": 1}, "chosen 1: +0.02; 2: +0.1"),
        ({"chosen": 0}, "0 kept; 2: +0.1"),
        ({"chosen": 0, "gains": [-9.0, -0.5, -0.1, 0.0, -0.02, -0.1]}, "0 kept: none gains"),
        ({"chosen": -1, "gains": [-9.0, -0.5, 0.003, 0.0, -0.02, -0.1]}, "chosen −1: +0.003"),
    ],
)
def test_a_choice_is_told_with_its_gain(change: dict[str, Any], words: str) -> None:
    assert choice(replace(LONG, **change)) == words


def test_each_unit_has_a_figure_of_its_own() -> None:
    others = [replace(CURVE, unit=unit) for unit in ("nats per byte", "points", "own/metric")]
    found = by_unit([CURVE, *others])
    assert {name: [curve.unit for curve in curves] for name, curves in found.items()} == {
        "curves": ["points", "points"],
        "curves-nats-per-byte": ["nats per byte"],
        "curves-own-metric": ["own/metric"],
    }


def test_gains_without_intervals_are_drawn_without_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none: list[float | None] = [None] * 6
    panel = drawn([LONG, replace(LONG, task="clas_xquad", low=none, high=none)], monkeypatch, tmp_path)
    (legend,) = panel.figure.legends
    assert [one.get_text() for one in legend.get_texts()][:2] == ["clas_xnli, 95 % interval", "clas_xquad"]
    bare = drawn([replace(LONG, low=none, high=none)], monkeypatch, tmp_path)
    assert not [path for band in bare.collections for path in band.get_paths() if len(path.vertices)]
    left, right = bare.get_xlim()  # losses are drawn down to -0.2, twice the highest gain: from -1.75 on
    assert left == pytest.approx(-1.75 - 0.05 * 3.75)
    assert right == pytest.approx(2 + 0.05 * 3.75)


def test_nothing_gained_and_nothing_lost(tmp_path: Path) -> None:
    flat = replace(CURVE, alphas=[0], gains=[0], low=[0], high=[0], chosen=0)
    assert plot_curves([flat], tmp_path / "a.png").is_file()
    worse = replace(CURVE, high=[-0.3, 0, -0.01], chosen=0)
    assert plot_curves([worse], tmp_path / "b.png").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": [0, 0]}, "clas_xnli in hi needs one gain"),
        ({"alphas": [], "gains": [], "low": [], "high": []}, "at least one alpha"),
        ({"alphas": [1, 0, -1]}, "ascending"),
        ({"chosen": 0.5}, "no point at the chosen alpha 0.5"),
        ({"gains": [0, 0, float("nan")]}, "not finite"),
    ],
)
def test_bad_curves_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ClasError, match=message):
        replace(CURVE, **change)  # type: ignore[arg-type]


def test_bad_figures_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClasError, match="no curves"):
        plot_curves([], tmp_path / "a.png")
    with pytest.raises(ClasError, match="one figure"):
        plot_curves([CURVE, replace(CURVE, unit="nats per byte")], tmp_path / "a.png")
    with pytest.raises(ClasError, match=r"\.png, \.pdf or \.svg"):
        plot_curves([CURVE], tmp_path / "a.docx")
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ClasError, match=r"lm-eval-clas\[plots\]"):
        plot_curves([CURVE], tmp_path / "a.png")
