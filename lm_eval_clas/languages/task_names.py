"""The language that the name of a task gives. docs/own-task.md states the rule, with examples."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Literal, get_args

from lm_eval_clas.languages.codes import bare_code, in_use, is_region, is_script, likely_script, mostly_in, normalize
from lm_eval_clas.languages.language_names import word_names
from lm_eval_clas.languages.name_words import COMMON, DOUBTFUL, ENGLISH, LOWER_SCRIPTS, MEANS, NO_LANGUAGE, SUBJECTS
from lm_eval_clas.languages.sibling_names import Siblings, installed_siblings

Pair = Literal["target", "source", "off"]
PAIRS: tuple[Pair, ...] = get_args(Pair)

# Splits of one task: what is tuned on one of them holds for the others.
_SPLITS = ("tune", "dev", "test", "val", "validation")
_PART = re.compile("[A-Za-z0-9]+")
_CAMEL = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_JOINT = re.compile("[_-]|_to_|-to-|2")
# What may follow a language without being a word of English text: numbers of prompts, splits, kinds of task.
_VARIANT = re.compile(
    r"(prompt|p|v|mc|qa)?\d+\w?|prompt|tasks?|gen|generative|test|dev|val|validation|train|tune|light|mini|small|full|easy|hard|"
    r"challenge|native|direct|cot|fewshot|zeroshot|\d*shots?|instruct|chat|perplexity"
)
# `code_mixed` and `multiple_choice` are none.
_CODE_TASK = re.compile(
    r"(^|[_-])(code(?![-_]?(mix|switch))\w*|human_?eval\w*|mbpp\w*|multipl[-_]?e(?![-_](choice|answer|option|question))|programs?|"
    r"programming)([_-]|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class NameElement:
    """A language in a name.

    Attributes:
        language: its code.
        start, end: where it is written in the name.
        strength: 4 with script or region, 3 a full name, 2 a code, 1 a code that may well be something else.
    """

    language: str
    start: int
    end: int
    strength: int


@dataclass(frozen=True)
class NamedLanguage:
    """What a task's name says.

    Attributes:
        language: the code of its language.
        span: where in the name it is written, from a place to a place; with a pair, the target.
        certain: whether it can hardly mean anything else.
        pair: source and target, where the name has two languages side by side.
        may_be_region: whether the target's code is also a region's, and other tasks do not say that it is a language: `gl_es`
            is Galician as it is written in Spain, or Galician and Spanish.
    """

    language: str
    span: tuple[int, int]
    certain: bool
    pair: tuple[str, str] | None = None
    may_be_region: bool = False


def from_task_name(name: str, known: Iterable[str] = (), pair: Pair = "target") -> str | None:
    """The language that a task's name gives, or None.

    It does not depend on the languages of the masks, `known`: a name in a language that they lack is not in another one.
    """
    found = read_task_name(name)
    return None if found is None else of_pair(found, pair)


def of_pair(found: NamedLanguage, pair: Pair) -> str | None:
    """The language that counts where a name has two; None with `off`."""
    if found.pair is None:
        return found.language
    return None if pair == "off" else found.pair[pair == "target"]


def without_language(name: str, known: Iterable[str] = ()) -> str:
    """A task's name without what `from_task_name` reads, which is the same for all its languages."""
    found = read_task_name(name)
    if found is None:
        return name
    start, end = found.span
    return "_".join(part for part in (name[:start].strip("_-"), name[end:].strip("_-")) if part)


def task_family(name: str, languages: Iterable[str] = ()) -> str:
    """What the languages and splits of a task have in common: `clas_xquad_tune_hi` and `clas_xquad_hi` are `clas_xquad`."""
    words = without_language(name, languages).split("_")
    while len(words) > 1 and words[-1] in _SPLITS:
        words.pop()
    return "_".join(words)


def read_task_name(name: str, siblings: Siblings | None = None) -> NamedLanguage | None:
    """What a task's name says of its language.

    Args:
        name: the task's.
        siblings: other tasks' names; by default those of the installed harness, which are read if a name is doubtful.
    """
    if siblings is None:
        return _read(name)
    return _weigh(name, _elements(name, siblings), siblings)


@lru_cache(maxsize=32768)
def _read(name: str) -> NamedLanguage | None:
    return read_task_name(name, Siblings(others=installed_siblings))


def is_code_task(name: str) -> bool:
    """Whether a name says that a task is about code, where `cs` and `lua` are languages of computers."""
    return _CODE_TASK.search(name) is not None


def _weigh(name: str, found: list[NameElement], siblings: Siblings) -> NamedLanguage | None:
    pairs = [(one, other) for one, other in pairwise(found) if _side_by_side(name, one, other)]
    if pairs:
        source, target = max(pairs, key=lambda pair: min(pair[0].strength, pair[1].strength))
        locale = _may_be_locale(name, source, target, siblings)
        return NamedLanguage(target.language, (target.start, target.end), True, (source.language, target.language), locale)
    if not found:
        return None
    # English beside another language is the language of instructions, unless it comes last; of equals, the last.
    others = [one for one in found if one.language != "en"] or found
    strongest = max(one.strength for one in found)
    best = others if max(one.strength for one in others) >= min(strongest, 2) else found
    last = max(best, key=lambda one: (one.strength, one.start))
    if found[-1].language == "en" and found[-1].strength >= last.strength and found[-1].end == len(name):
        last = found[-1]
    return NamedLanguage(last.language, (last.start, last.end), last.strength > 1)


def _may_be_locale(name: str, source: NameElement, target: NameElement, siblings: Siblings) -> bool:
    """Whether two codes side by side may be a language and a region in small letters."""
    if not re.fullmatch("[a-z]{2,3}[_-][a-z]{2}", name[source.start : target.end]):
        return False
    return is_region(name[target.start : target.end]) and siblings.verdict(name, target.start, target.end) != "languages"


def _side_by_side(name: str, one: NameElement, other: NameElement) -> bool:
    if one.language == other.language or not _JOINT.fullmatch(name[one.end : other.start]):
        return False
    if 3 in (one.strength, other.strength):  # a full name beside a code says it twice, or is the name of a suite
        return one.strength == other.strength
    return one.strength > 1 and (other.strength > 1 or other.end == len(name))


def _elements(name: str, siblings: Siblings) -> list[NameElement]:
    """The languages in a name, from left to right."""
    if NO_LANGUAGE.search(name):
        return []
    parts = [part for match in _PART.finditer(name) for part in _halves(name, match)]
    found: list[NameElement] = []
    position = 0
    while position < len(parts):
        one = _tag(name, parts, position, siblings) or _full_name(parts, position) or _code(name, parts, position, siblings)
        if one is None:
            position += 1
            continue
        while position < len(parts) and parts[position].start() < one.end:
            position += 1
        following = parts[position][0].casefold() if position < len(parts) else ""
        if not (following in MEANS and found and found[-1].strength == one.strength == 3):
            found.append(one)
    return found


def _halves(name: str, part: re.Match[str]) -> list[re.Match[str]]:
    """The two languages of `en2de`; the part itself otherwise."""
    both = re.fullmatch("([a-z]{2,3})2([a-z]{2,3})", part[0])
    if both is None or not all(bare_code(code) and in_use(code) for code in both.groups()):
        return [part]
    middle = part.start() + both.end(1)
    halves = (_PART.match(name, part.start(), middle), _PART.match(name, middle + 1, part.end()))
    return [half for half in halves if half]


def _tag(name: str, parts: list[re.Match[str]], position: int, siblings: Siblings) -> NameElement | None:
    """A code with a script, a region, or both: `hin_Deva`, `pt_BR`, `zh-Hant_TW`, `hi_in`."""
    part = parts[position]
    code = part[0]
    language = normalize(code) if len(code) in (2, 3) and code.isascii() and code.islower() and code.isalpha() else None
    if language is None:
        return None
    end = position
    if (script := _next(name, parts, end)) and (
        is_script(script) or (script.islower() and (script in LOWER_SCRIPTS or script.title() == likely_script(language)))
    ):
        end += 1
    if (region := _next(name, parts, end)) and _is_region(
        name, parts, end, language, region, siblings, after_script=end > position
    ):
        end += 1
    return None if end == position else NameElement(language, part.start(), parts[end].end(), 4)


def _next(name: str, parts: list[re.Match[str]], position: int) -> str | None:
    if position + 1 == len(parts) or name[parts[position].end() : parts[position + 1].start()] not in ("_", "-"):
        return None
    return parts[position + 1][0]


def _is_region(
    name: str, parts: list[re.Match[str]], position: int, language: str, region: str, siblings: Siblings, after_script: bool
) -> bool:
    if not re.fullmatch("[A-Za-z]{2}|[0-9]{3}", region) or not is_region(region):
        return False
    code = parts[position][0]
    if region.isupper() or region.isdigit():
        return after_script or (bare_code(code) is not None and code not in ENGLISH) or mostly_in(language, region)
    other = bare_code(region)
    if other and siblings.verdict(name, *parts[position + 1].span()) == "languages":
        return False
    if code == region and other:  # it_it
        return True
    if other and (
        mostly_in(other, region)  # es, fr and de are at home in ES, FR and DE: `ca-es` is Catalan and Spanish
        or _followed_by_region(name, parts, position + 1)
    ):
        return False
    if mostly_in(language, region):
        return True
    if code in DOUBTFUL and (code not in COMMON or region in ENGLISH):
        return False  # `prove_it_in_steps` is not from India
    return in_use(code) and (other is None or region in DOUBTFUL - COMMON - ENGLISH)


def _followed_by_region(name: str, parts: list[re.Match[str]], position: int) -> bool:
    following = _next(name, parts, position)
    return following is not None and following.isupper() and is_region(following)


def _full_name(parts: list[re.Match[str]], position: int) -> NameElement | None:
    """A language's English name, also inside a part written like `ArabicMMLU`."""
    part = parts[position]
    following = parts[position + 1][0].casefold() if position + 1 < len(parts) else ""
    for match in _CAMEL.finditer(part[0]):
        if (language := word_names(match[0])) and (following not in SUBJECTS or match[0] != part[0]):
            start = part.start() + match.start()
            return NameElement(language, start, start + len(match[0]), 3)
    return None


def _code(name: str, parts: list[re.Match[str]], position: int, siblings: Siblings) -> NameElement | None:
    part = parts[position]
    language = bare_code(part[0])
    if language is None:
        return None
    found = NameElement(language, *part.span(), 2)
    usual, code_task = in_use(part[0]), is_code_task(name)
    before, after = name[max(part.start() - 1, 0) : part.start()], name[part.end() : part.end() + 1]
    joined = "-" in (before, after)
    if joined and position > 0 and _in_pair(name, parts, position, siblings):
        return found
    if before == after == "-":
        return None  # within a compound, such as `self-training-nn-architecture`
    if language == "en" and part.end() < len(name) and siblings.verdict(name, *part.span()) == "something else":
        return None  # the language of instructions: `en_direct` beside `native_direct`
    if usual and part[0] not in DOUBTFUL and not code_task:
        return found
    if position == 0:
        return None
    verdict = siblings.verdict(name, *part.span())
    if verdict != "unknown":
        return found if verdict == "languages" else None
    if joined or code_task or part[0] not in COMMON:
        return None  # joined: a part of a compound, such as `no-goal-change`
    beside = {parts[position - 1][0].casefold(), *(one[0].casefold() for one in parts[position + 1 : position + 2])}
    at_end = all(_VARIANT.fullmatch(one[0].casefold()) for one in parts[position + 1 :]) or siblings.has(name[: part.end()])
    if beside & ENGLISH or not at_end:
        return None
    return replace(found, strength=1)


def _in_pair(name: str, parts: list[re.Match[str]], position: int, siblings: Siblings) -> bool:
    """Whether a code and what a hyphen joins to it are two languages, one of them in common use."""
    part = parts[position][0]
    for other in (position - 1, position + 1):
        if 0 <= other < len(parts):
            low, high = sorted((position, other))
            between = name[parts[low].end() : parts[high].start()]
            word = parts[other][0]
            if between != "-" or bare_code(word) is None:
                continue
            usual = [one for one in (word, part) if in_use(one) and one not in ENGLISH]
            if len(usual) == 2 or not set(usual) <= DOUBTFUL or siblings.verdict(name, *parts[other].span()) == "languages":
                return True
    return False
