"""The language of a request, and language codes."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

import langcodes
from langcodes.tag_parser import LanguageTagError
from pydantic import AfterValidator

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

Source = Literal["forced", "doc", "task name", "detected"]

UNDETERMINED = "und"  # BCP-47 for a language that nobody can tell

# What py3langid calls a language that `normalize` calls otherwise.
_LABELS = {"nb": "no", "fil": "tl", "bik": "bcl", "gn": "gug", "ki": "kik"}
# Below this probability, texts have no words ("42", "A"), and the answer is the library's order of languages.
_CERTAIN = 0.5
# Below this probability of all candidates together, the text is in another language.
_OUTSIDE = 0.2

_WORDS = re.compile(r"[A-Za-z0-9]+")
# Codes of scripts as FLORES writes them, and in lower case those that are no English words.
_SCRIPTS = "latn|arab|deva|hans|hant|cyrl|beng|ethi|hebr|grek|geor|armn|guru|gujr|taml|telu|knda|mlym|orya|sinh|mymr|khmr|laoo"
_WITH_SCRIPT = re.compile(rf"(?<![A-Za-z])([a-z]{{2,3}})[_-]((?:[A-Z][a-z]{{3}})|{_SCRIPTS})(?![A-Za-z])")
# Three-letter codes of libraries (ISO 639-2/B) that no task uses and that are words or abbreviations: GRE, PER, MAY, ...
_LIBRARY_CODES = frozenset(("alb", "arm", "bur", "chi", "fre", "geo", "ger", "gre", "ice", "mac", "may", "per", "rum", "slo"))
# English tasks whose names hold a language or end like a code: analytical reasoning, the Chinese remainder theorem.
_NO_LANGUAGE = re.compile("lsat[_-]ar$|chinese_remainder")
_OTHER_NAMES = {"farsi": "fa", "mandarin": "zh"}


@lru_cache(maxsize=4096)
def normalize(code: str) -> str | None:
    """The language subtag of a BCP-47 or ISO 639 code, as short as it can be; None if it is not a language.

    Region and script are dropped and members of a macrolanguage join it, since a model's neurons are profiled by language:
    `zh-CN`, `zho_Hans` and `cmn` give `zh`, `hin_Deva` gives `hi`, `arb` gives `ar`, `swh` gives `sw`.
    """
    try:
        language = langcodes.Language.get(code.strip())
        if not language.is_valid() or not language.language:
            return None
        return language.prefer_macrolanguage().language
    except (LanguageTagError, ValueError):
        return None


def _as_normalized(code: str) -> str:
    if (normalized := normalize(code)) != code:
        given = ascii(code[:80])
        raise ValueError(f"language {given} is written '{normalized}'" if normalized else f"{given} is no language code")
    return code


# A code as configurations have it: as `normalize` gives it, since requests are compared with it. It is also the name of files
# and folders, and has lower-case letters only.
LanguageCode = Annotated[str, AfterValidator(_as_normalized)]


@lru_cache(maxsize=4096)
def english_name(code: str) -> str:
    """A language's English name, which any font can draw, such as `Chinese (Traditional)`; the code itself if it is none."""
    try:
        language = langcodes.Language.get(code)
        return language.display_name("en") if language.is_valid() else code
    except (LanguageTagError, ValueError):
        return code


@lru_cache(maxsize=4096)
def code_of_name(word: str) -> str | None:
    """The code of a language given by its English name, such as `Hindi`; exactly, as `hindsight` is not Hindi."""
    word = word.casefold()
    if word in _OTHER_NAMES:
        return _OTHER_NAMES[word]
    try:
        found = langcodes.find(word)
    except LookupError:
        return None
    return found.prefer_macrolanguage().language if found.display_name("en").casefold() == word else None


def from_task_name(name: str, known: Iterable[str]) -> str | None:
    """The language that a task's name gives, or None.

    In this order: a code with a script anywhere (`belebele_hin_Deva`); a two-letter code at the end (`xnli_hi`,
    `mgsm_direct_th`), known or not; a known language anywhere, the last one first, as a code (`global_mmlu_full_sw_virology`)
    or an English name (`include_base_44_hindi`). "Known" are the languages of the masks, since many short codes are also
    ordinary parts of names.
    """
    found = _in_name(name, known)
    return found[0] if found else None


def without_language(name: str, known: Iterable[str]) -> str:
    """A task's name without the part that `from_task_name` reads, which is the same for all its languages."""
    found = _in_name(name, known)
    if found is None:
        return name
    _, start, end = found
    return "_".join(part.strip("_-") for part in (name[:start], name[end:]) if part.strip("_-"))


def _in_name(name: str, known: Iterable[str]) -> tuple[str, int, int] | None:
    """A language in a task's name: its code, and where it starts and ends."""
    if _NO_LANGUAGE.search(name):
        return None
    for match in reversed(list(_WITH_SCRIPT.finditer(name))):
        if code := normalize(match[1]):
            return code, *match.span()
    words = [match for match in _WORDS.finditer(name) if match[0].isalpha() and len(match[0]) > 1]
    if words and len(words[-1][0]) == 2 and words[-1].end() == len(name) and (code := normalize(words[-1][0])):
        return code, *words[-1].span()
    for match in reversed(words):
        word, code = match[0], None
        if len(word) > 3:
            code = code_of_name(word)
        elif word.islower() and word not in _LIBRARY_CODES:  # ES in a name stands for something else
            code = normalize(word)
        if code and code in known:
            return code, *match.span()
    return None


def from_doc(doc: object) -> str | None:
    """The language in a document's `language` field, a code or an English name, or None."""
    value = doc.get("language") if isinstance(doc, dict) else None
    if not isinstance(value, str) or not value.strip():
        return None
    return normalize(value) or code_of_name(value)


class Detector:
    """Language detection on text, among given candidates.

    See docs/language-detection.md for the libraries compared, the accuracy by language, and the two thresholds.
    """

    def __init__(self, candidates: Sequence[str]) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        # Identifiers of our own: restricting the library's shared one would change it for everybody in the process.
        self._every = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        labels = {language: _LABELS.get(language, language) for language in candidates}
        self._language = {label: language for language, label in labels.items() if label in set(self._every.labels)}
        self._restricted = copy.copy(self._every)
        if self._language:
            self._restricted.set_languages(list(self._language))

    def detect(self, text: str) -> str:
        """The most likely candidate; another language if the text is clearly in none of them; `und` if it has no words."""
        best = self._every.rank(text)
        if sum(probability for label, probability in best if label in self._language) < _OUTSIDE:
            label, probability = best[0]
            return (normalize(label) or UNDETERMINED) if probability >= _CERTAIN else UNDETERMINED
        label, probability = self._restricted.classify(text)
        return self._language[label] if probability >= _CERTAIN else UNDETERMINED


@dataclass(frozen=True)
class Recognized:
    """A request's language and how it was recognised."""

    language: str
    source: Source


class LanguageRouter:
    """Tells the language of each request: the first that answers of forced, doc, task name, detection on the text.

    Args:
        known: the languages of the masks. Detection chooses among them; the other sources may give any language.
        forced: one language for every request.
    """

    def __init__(self, known: Sequence[str], forced: str | None = None) -> None:
        self.known = tuple(known)
        self.forced = forced
        self._detector: Detector | None = None
        self._by_task: dict[str, str | None] = {}

    def recognize(self, requests: Sequence[Instance]) -> list[Recognized]:
        """The language of each request. All choices of one document get one language."""
        texts: dict[tuple[str | None, object], str] = {}
        found: dict[tuple[str | None, object], Recognized] = {}
        for position, request in enumerate(requests):
            key = self._item(request, position)
            # The choices of an item share its context; where that is empty, they are the only text there is.
            context = str(request.args[0])
            texts[key] = context if context.strip() else f"{texts.get(key, '')}\n{' '.join(map(str, request.args))}"
        recognized = []
        for position, request in enumerate(requests):
            key = self._item(request, position)
            if key not in found:
                found[key] = self._told(request) or Recognized(self._detect(texts[key]), "detected")
            recognized.append(found[key])
        return recognized

    @staticmethod
    def _item(request: Instance, position: int) -> tuple[str | None, object]:
        return request.task_name, position if request.doc_id is None else request.doc_id

    def _told(self, request: Instance) -> Recognized | None:
        if self.forced is not None:
            return Recognized(self.forced, "forced")
        if language := from_doc(request.doc):
            return Recognized(language, "doc")
        name = request.task_name or ""
        if name not in self._by_task:
            self._by_task[name] = from_task_name(name, self.known)
        if language := self._by_task[name]:
            return Recognized(language, "task name")
        return None

    def _detect(self, text: str) -> str:
        if self._detector is None:
            self._detector = Detector(self.known)
        return self._detector.detect(text)
