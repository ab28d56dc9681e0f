"""Pictures of a single dot, for tests of what happens around pictures: to draw them takes a third of a small study's time.

Files have the same names and are valid, so that all that is made of them goes on as ever. What pictures show, and that they are
the same twice, is for tests that draw: those of `drawing/`, `geometry/`, `tuning/test_curves.py`, `study/test_report.py` and
`whole/test_determinism.py`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def sketch(patch: pytest.MonkeyPatch) -> None:
    """From now on every picture is a dot."""
    from matplotlib.figure import Figure

    patch.setattr(Figure, "savefig", _dot)
    patch.setattr(Figure, "draw_without_rendering", lambda figure: None)


def _dot(figure: Any, path: Path, *, format: str) -> None:
    png = io.BytesIO()
    Image.new("RGB", (1, 1)).save(png, "PNG")
    dots = {"png": png.getvalue(), "pdf": b"%PDF-1.4\n", "svg": b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>'}
    if format not in dots:
        raise ValueError(format)
    path.write_bytes(dots[format])
