"""Numbers as people write them: Python would also take `1_0` (ten), `nan`, `True`, and the digits of every script."""

from __future__ import annotations

import math
import re

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def real_number(value: object) -> float:
    """A finite number that is one already: no text, no truth value.

    Raises:
        ValueError: it is something else.
    """
    try:
        if isinstance(value, bool | str | bytes):
            raise ValueError
        number = float(value)  # type: ignore[arg-type]
        if not math.isfinite(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("it is no finite number") from error
    return number


def plain_number(value: object) -> float:
    """A finite number, or a text that is one in plain digits, like `-2`, `0.4` or `1e-3`.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, str):
        return real_number(value)
    if not _PLAIN.fullmatch(value.strip()):
        raise ValueError("it is no number in plain digits")
    return real_number(float(value))
