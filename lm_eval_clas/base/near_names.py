"""Names that were mistyped: which of the known ones was meant, and what is said of it.

Every refusal of a name asks here, so that a slip is told with the nearest name wherever it is made.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from lm_eval_clas.base.errors import ClasError

# Shares of letters in common (`difflib`). A name that is refused anyway may be compared loosely; one that could be right is
# taken for a slip only where little but the order of letters differs.
_LIKE = 0.6
_SLIP = 0.77


def nearest(name: str, known: Iterable[str], most: int = 1, like: float = _LIKE) -> list[str]:
    """The known names that are most like one that is none of them, the nearest first; none where nothing is like it."""
    by_folded: dict[str, str] = {}
    for one in known:
        by_folded.setdefault(one.casefold(), one)
    return [by_folded[one] for one in difflib.get_close_matches(name.casefold(), by_folded, most, like)]


def slip_of(name: str, known: Iterable[str]) -> str | None:
    """The known name that one is a slip of; None where it may be a name of its own."""
    return next(iter(nearest(name, known, like=_SLIP)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'alpha'?)`, for a sentence that refuses a name; empty where nothing is like it."""
    return next((f" (did you mean '{one}'?)" for one in nearest(name, known)), "")


def require_known(what: str, name: object, known: Collection[str]) -> None:
    """Refuses a name that is none of the few that an option takes.

    Raises:
        ClasError: it is none of them; the sentence lists them, and says which is nearest.
    """
    if name not in known:
        raise ClasError(f"{what} must be one of {', '.join(known)}, not '{name}'{did_you_mean(str(name), known)}.")
