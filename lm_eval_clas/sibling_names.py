"""What other tasks have where a task's name has something: whether a place in a name is a place for languages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from lm_eval_clas.language_codes import bare_code, in_use
from lm_eval_clas.language_names import word_names
from lm_eval_clas.name_words import DOUBTFUL, PROGRAMMING

Verdict = Literal["languages", "something else", "unknown"]

_WORD = re.compile("[A-Za-z0-9]+")


class Siblings:
    """Names of tasks, and what stands where in them.

    Args:
        names: of the tasks at hand.
        further: called once, and only if those do not tell, for the names of all others.
    """

    def __init__(self, names: Iterable[str] = (), further: Callable[[], Iterable[str]] | None = None) -> None:
        self._further = further
        self._names: set[str] = set()
        self._values: dict[tuple[str, str], set[str]] = {}
        self._add(names)

    def _add(self, names: Iterable[str]) -> None:
        for name in names:
            self._names.add(name)
            for start, end in _places(name):
                self._values.setdefault((name[:start], name[end:]), set()).add(name[start:end])

    def has(self, name: str) -> bool:
        """Whether a name is that of a task or group."""
        return name in self._names

    def verdict(self, name: str, start: int, end: int) -> Verdict:
        """What stands there in names that are otherwise the same: languages, something else, or too few to tell."""
        found = self._verdict(name, start, end)
        if found != "languages" and self._further is not None:
            names, self._further = self._further(), None
            self._add(names)
            found = self._verdict(name, start, end)
        return found

    def _verdict(self, name: str, start: int, end: int) -> Verdict:
        others = self._values.get((name[:start], name[end:]), set()) - {name[start:end]}
        if others & PROGRAMMING:
            return "something else"
        languages = [other for other in others if bare_code(other) or word_names(other)]
        if len(others) > 2 * len(languages) or (len(others) == 1 and not languages):
            return "something else"
        clear = [one for one in languages if word_names(one) or (in_use(one) and one not in DOUBTFUL)]
        return "languages" if len(clear) >= 2 else "unknown"


def _places(name: str) -> Iterator[tuple[int, int]]:
    for match in _WORD.finditer(name):
        yield match.span()
