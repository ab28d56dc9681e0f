"""The clock that files are dated by: the machine's, or the moment in `SOURCE_DATE_EPOCH`.

With that variable (seconds since 1970; https://reproducible-builds.org/specs/source-date-epoch/) everything is dated to one
moment and takes no time, so that two runs of the same work write the same bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timezone

from lm_eval_clas.base.errors import ClasError


def fixed() -> datetime | None:
    """The moment in `SOURCE_DATE_EPOCH`, in UTC; None without it.

    Raises:
        ClasError: it holds no number of seconds.
    """
    value = os.environ.get("SOURCE_DATE_EPOCH")
    if not value:
        return None
    try:
        return datetime.fromtimestamp(int(value), timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise ClasError(
            f"SOURCE_DATE_EPOCH must be a number of seconds since 1970, not '{value}'; set it so or unset it."
        ) from error


def now() -> datetime:
    """The moment that files are dated to, in UTC."""
    return fixed() or datetime.now(timezone.utc)


def stopwatch() -> Callable[[], float]:
    """A function that tells the seconds since this call; 0 with a fixed clock."""
    if fixed():
        return lambda: 0.0
    start = time.monotonic()
    return lambda: time.monotonic() - start
