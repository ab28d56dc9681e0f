"""The language in a task's name, and the name without it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lm_eval_clas.languages.codes import code_of_name, normalize

# Splits of one task: what is tuned on one of them holds for the others.
_SPLITS = ("tune", "dev", "test", "val", "validation")

_WORDS = re.compile(r"[A-Za-z0-9]+")
# Codes of scripts as FLORES writes them, and in lower case those that are no English words.
_SCRIPTS = "latn|arab|deva|hans|hant|cyrl|beng|ethi|hebr|grek|geor|armn|guru|gujr|taml|telu|knda|mlym|orya|sinh|mymr|khmr|laoo"
_WITH_SCRIPT = re.compile(rf"(?<![A-Za-z])([a-z]{{2,3}})[_-]((?:[A-Z][a-z]{{3}})|{_SCRIPTS})(?![A-Za-z])")
# Three-letter codes of libraries (ISO 639-2/B) that no task uses and that are words or abbreviations: GRE, PER, MAY, ...
_LIBRARY_CODES = frozenset(("alb", "arm", "bur", "chi", "fre", "geo", "ger", "gre", "ice", "mac", "may", "per", "rum", "slo"))
# English tasks whose names hold a language or end like a code: analytical reasoning, the Chinese remainder theorem.
_NO_LANGUAGE = re.compile("lsat[_-]ar$|chinese_remainder")


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


def task_family(name: str, languages: Iterable[str]) -> str:
    """What the languages and splits of a task have in common: `clas_xquad_tune_hi` and `clas_xquad_hi` are `clas_xquad`."""
    words = without_language(name, languages).split("_")
    while len(words) > 1 and words[-1] in _SPLITS:
        words.pop()
    return "_".join(words)
