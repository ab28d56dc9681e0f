"""What other tasks have where a task's name has something: whether a place in a name is a place for languages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Literal

from lm_eval_clas.languages.codes import bare_code, in_use
from lm_eval_clas.languages.language_names import word_names
from lm_eval_clas.languages.name_words import DOUBTFUL, PROGRAMMING
from lm_eval_clas.languages.task_index import installed

Verdict = Literal["languages", "something else", "unknown"]

_WORD = re.compile("[A-Za-z0-9]+")


class Siblings:
    """Names of tasks, and what stands where in them.

    Args:
        names: of the tasks at hand.
        others: called, and only if those do not tell, for further ones.
    """

    def __init__(self, names: Iterable[str] = (), others: Callable[[], Siblings] | None = None) -> None:
        self._others = others
        self._names = set(names)
        self._values: dict[tuple[str, str], set[str]] = {}
        for name in self._names:
            for start, end in _places(name):
                self._values.setdefault((name[:start], name[end:]), set()).add(name[start:end])

    def has(self, name: str) -> bool:
        """Whether a name is that of a task or group."""
        return name in self._names or (self._others is not None and self._others().has(name))

    def verdict(self, name: str, start: int, end: int) -> Verdict:
        """What stands there in names that are otherwise the same: languages, something else, or too few to tell."""
        place, own = (name[:start], name[end:]), {name[start:end]}
        found = _judge(self._at(place) - own)
        if found != "languages" and self._others is not None:
            found = _judge((self._at(place) | self._others()._at(place)) - own)
        return found

    def _at(self, place: tuple[str, str]) -> set[str]:
        return self._values.get(place, set())


def _judge(others: set[str]) -> Verdict:
    if others & PROGRAMMING:
        return "something else"
    languages = [other for other in others if bare_code(other) or word_names(other)]
    if len(others) > 2 * len(languages) or (len(others) == 1 and not languages):
        return "something else"
    clear = [one for one in languages if word_names(one) or (in_use(one) and one not in DOUBTFUL)]
    return "languages" if len(clear) >= 2 else "unknown"


@cache
def installed_siblings() -> Siblings:
    """All names of the installed harness, which are read once, when they are first needed."""
    return Siblings(installed().members)


def _places(name: str) -> Iterator[tuple[int, int]]:
    for match in _WORD.finditer(name):
        yield match.span()
