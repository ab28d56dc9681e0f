"""Numbers as people write them: Python would also take `1_0` (ten), `nan`, `True`, and the digits of every script."""

from __future__ import annotations

import math
import re

from lm_eval_clas.base.errors import ClasError

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_BATCH_SIZE = re.compile(r"0*[1-9]\d*|auto(:0*[1-9]\d*(\.\d+)?)?", re.ASCII)


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


def require_batch_size(value: object, name: str) -> None:
    """Refuses what is no batch size of the harness's models, for which they would fail late, or take all requests at once.

    Args:
        value: a number, or a text.
        name: of the option, for the sentence.

    Raises:
        ClasError: it is neither a whole number from 1 on, nor `auto`, nor `auto:N` with a number from 1 on.
    """
    if isinstance(value, bool) or not _BATCH_SIZE.fullmatch(str(value)):
        raise ClasError(f"{name} must be a whole number from 1 on, auto, or auto:N like auto:4; not '{value}'.")
