"""Curves of gain over alpha: a file comes out, and what cannot be drawn is refused."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest

from lm_eval_clas import ClasError
from lm_eval_clas.tuning.curves import Curve, by_unit, plot_curves

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
    assert (tmp_path / name).read_bytes().startswith(start)


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
        *("clas_xnli", "clas_xquad", "95 % interval", "chosen alpha", "alpha 0 kept"),
        *("gain over alpha 0 (points)", "alpha (cut off: losses down to −50 points)"),
    ):
        assert text in picture
    picture = plot_curves([replace(CURVE, unit="nats")], tmp_path / "b.svg").read_text(encoding="utf-8")
    assert "alpha (cut off: losses down to −0.5 nats)" in picture


def test_each_unit_has_a_figure_of_its_own() -> None:
    others = [replace(CURVE, unit=unit) for unit in ("nats per byte", "points", "own/metric")]
    found = by_unit([CURVE, *others])
    assert {name: [curve.unit for curve in curves] for name, curves in found.items()} == {
        "curves": ["points", "points"],
        "curves-nats-per-byte": ["nats per byte"],
        "curves-own-metric": ["own/metric"],
    }


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
