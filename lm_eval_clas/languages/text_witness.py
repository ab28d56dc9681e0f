"""What a sample of a task's texts says of its language: plainly one, mostly the named one, or nothing that is sure.

The thresholds, and what they were measured on, are in docs/language-detection.md.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from lm_eval_clas.languages.codes import UNDETERMINED
from lm_eval_clas.languages.detection import Detector, can_be_detected, probabilities
from lm_eval_clas.languages.macrolanguages import as_known

DOCUMENTS = 20  # of a task, that are looked at
_CHARACTERS = 600  # of a document
# Pieces of a few words: a sentence that changes its language falls into pieces of both, and is in neither plainly.
_LONGEST, _SHORTEST = 40, 15
_PIECES = 10  # fewer say nothing
_PLAIN = 0.85  # share of the pieces that are in one language, where texts are plainly in it
_MOSTLY = 0.5  # share that is in the named language, where texts agree with a name that may mean something else
_IMPOSSIBLE, _FEW = 0.01, 0.05  # a piece can hardly be in a language; few pieces can be


def all_over(documents: int, most: int) -> list[int]:
    """Positions of at most so many of a task's documents, in order: one somewhere in each of equal parts of the task.

    A task may be of one language after the other, or of languages in turn. So the place within a part is drawn, by the number
    of documents and always the same: equal steps could fall on the same language every time.
    """
    if documents <= most:
        return list(range(documents))
    chance = random.Random(documents)
    starts = [part * documents // most for part in range(most + 1)]
    return [start + int(chance.random() * (end - start)) for start, end in pairwise(starts)]


@dataclass(frozen=True)
class Testimony:
    """What texts say.

    Attributes:
        plainly: the language that they are all in, or None. Never one that is the named one under another code.
        agrees: whether they are mostly in the named language.
    """

    plainly: str | None = None
    agrees: bool = False


class TextWitness:
    """Looks at texts of a task.

    Args:
        known: the languages of the masks, among which detection is best.
    """

    def __init__(self, known: Sequence[str]) -> None:
        self._known = tuple(known)
        self._detector = lru_cache(maxsize=None)(Detector)

    def hear(self, texts: Iterable[str], named: str | None) -> Testimony:
        """What texts of one task say, where its name says `named`."""
        pieces = [piece for text in texts for piece in _pieces(text)]
        if len(pieces) < _PIECES:
            return Testimony()
        if named is not None and not can_be_detected(as_known(named, _labels())):
            return Testimony()  # they would be called by the most similar language's name
        detector = self._among(*([named] if named else []))
        found = Counter(detector.detect(piece) for piece in pieces)
        if named is None:
            language, count = found.most_common(1)[0]
            plain = count >= _PLAIN * len(pieces) and language != UNDETERMINED
            return Testimony(plainly=language if plain else None)
        if sum(count for language, count in found.items() if _same(language, named)) >= _MOSTLY * len(pieces):
            return Testimony(agrees=True)
        language, count = found.most_common(1)[0]
        possible = sum(1 for piece in pieces if probabilities(piece).get(as_known(named, _labels()), 0.0) >= _IMPOSSIBLE)
        plain = count >= _PLAIN * len(pieces) and possible <= _FEW * len(pieces) and language != UNDETERMINED
        return Testimony(plainly=language if plain else None)

    def only_first(self, documents: Iterable[DocumentTexts], first: str, second: str) -> bool:
        """Whether texts of one task, whose name has two codes side by side, are plainly in the first language alone.

        Each string of a document counts as one, as an article may be long and its summary, in another language, short. They are
        not if there are few strings.
        """
        strings = {" ".join(text.split())[:_CHARACTERS] for one in documents for text in one.own}
        long = [text for text in strings if len(text) >= _SHORTEST]
        if len(long) < _PIECES or not can_be_detected(as_known(first, _labels())):
            return False
        detector = self._among(first, second)
        found = [detector.detect(text) for text in long]
        in_second = sum(1 for one in found if _same(one, second))
        return sum(1 for one in found if _same(one, first)) >= _PLAIN * len(found) and in_second <= _FEW * len(found)

    def contradicts(self, text: str, language: str) -> str | None:
        """The language that one document is plainly in, where that is another than the task's, `language`; None otherwise.

        The whole text can hardly be in the task's language, and none of its pieces is.
        """
        detector = self._among(language)
        found = detector.detect(text)
        # By bytes, as detection reads texts: a Chinese character says as much as three letters.
        if len(text.encode()) < _SHORTEST or found == UNDETERMINED or _same(found, language):
            return None
        possible = probabilities(text).get(as_known(language, _labels()), 0.0) >= _IMPOSSIBLE
        return None if possible or any(_same(detector.detect(piece), language) for piece in _pieces(text)) else found

    def _among(self, *named: str) -> Detector:
        return self._detector(tuple(dict.fromkeys((*self._known, "en", *named))))


def _labels() -> tuple[str, ...]:
    return tuple(probabilities(""))


def _same(language: str, named: str) -> bool:
    return as_known(language, (named,)) == named


def _pieces(text: str) -> Iterator[str]:
    """Pieces of a text that are long enough to tell anything, cut between words where there are any."""
    rest = " ".join(text.split())[:_CHARACTERS]
    while rest:
        cut = len(rest) if len(rest) <= _LONGEST else rest.rfind(" ", _LONGEST // 2, _LONGEST + 1)
        piece, rest = (rest[:cut], rest[cut:].strip()) if cut > 0 else (rest[:_LONGEST], rest[_LONGEST:])
        if len(piece) >= _SHORTEST:
            yield piece


@dataclass(frozen=True)
class DocumentTexts:
    """What is looked at of a document.

    Attributes:
        own: its strings; those of one word in ASCII (subjects, identifiers, addresses, answers' letters) are no text.
        otherwise: its prompt where it has none, and else nothing.
    """

    own: tuple[str, ...]
    otherwise: str = ""

    @classmethod
    def of(cls, document: Any, prompt: str) -> DocumentTexts:
        own = tuple(_strings(document)) if isinstance(document, Mapping) else ()
        return cls(own, "" if own else prompt)

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(self.own) or self.otherwise

    def asked_in(self, prompt: str) -> str:
        """Those of its own texts that its prompt has, without what else is there; all of them where it has none.

        A document may have its question in several languages, of which one is asked.
        """
        return " ".join([text for text in self.own if text.strip() in prompt] or self.own)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if " " in value.strip() or not value.isascii():
            yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _strings(one)
