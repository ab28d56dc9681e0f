"""Language codes: one short form for each, whichever way they are written."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Annotated

import langcodes
from langcodes import data_dicts
from langcodes.tag_parser import LanguageTagError
from pydantic import AfterValidator

from lm_eval_clas.languages.name_words import COUNTRIES, IN_USE, LIBRARY, SOMETHING_ELSE, TERMS, WITHDRAWN

_NEW = {"cls": "sa", "vsn": "sa"}  # codes younger than the data of langcodes: Classical and Vedic Sanskrit
UNDETERMINED = "und"  # BCP-47 for a language that nobody can tell


@lru_cache(maxsize=32768)
def normalize(code: str) -> str | None:
    """The language subtag of a BCP-47 or ISO 639 code, as short as it can be; None if it is not a language.

    Region and script are dropped and members of a macrolanguage join it, since a model's neurons are profiled by language:
    `zh-CN`, `zho_Hans` and `cmn` give `zh`, `hin_Deva` gives `hi`, `arb` gives `ar`, `swh` gives `sw`.
    """
    try:
        language = langcodes.Language.get(code.strip())
        if language.language in _NEW:
            return _NEW[language.language]
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


@lru_cache(maxsize=32768)
def bare_code(word: str) -> str | None:
    """The language that two or three lower-case letters in a name can stand for, with nothing beside them."""
    if word in COUNTRIES:
        return COUNTRIES[word]
    if len(word) not in (2, 3) or not (word.isascii() and word.islower() and word.isalpha()):
        return None
    if word in LIBRARY | SOMETHING_ELSE | TERMS | WITHDRAWN:
        return None
    return normalize(word)


@cache
def _two_letters() -> frozenset[str]:
    """Three-letter codes (ISO 639-2/T) of languages that have a two-letter one."""
    return frozenset(data_dicts.LANGUAGE_ALPHA3.values())


def in_use(code: str) -> bool:
    """Whether a code is one that data of many languages use, rather than one of the thousands that hardly any does."""
    return len(code) == 2 or code in IN_USE or code in _two_letters() or code in COUNTRIES


def languages_in_use() -> list[str]:
    """All codes for which `in_use` holds, as short as they can be."""
    return sorted({code for code in map(normalize, {*data_dicts.LANGUAGE_ALPHA3, *IN_USE}) if code})


@cache
def _likely(language: str) -> str:
    """`hi-Deva-IN` for `hi`: where and in which script a language is mostly written."""
    try:
        return langcodes.Language.get(language).maximize().to_tag()
    except (LanguageTagError, ValueError):
        return ""


def mostly_in(language: str, region: str) -> bool:
    """Whether a language is mostly used in a region: Hindi in IN, Portuguese in BR, Chinese in TW, in its other script."""
    return (language, region.upper()) == ("zh", "TW") or region.upper() in _likely(language).split("-")[1:]


@cache
def is_region(code: str) -> bool:
    """Whether two letters or three digits are a region's code, in capitals or not; XA to XZ are free for everybody's use."""
    return (len(code) == 2 and code[0] in "xX") or langcodes.Language.make(territory=code.upper()).is_valid()


@cache
def is_script(code: str) -> bool:
    """Whether four letters are the code of a script, such as `Deva`."""
    return code in data_dicts.ALL_SCRIPTS


def likely_script(language: str) -> str:
    """The script that a language is mostly written in, such as `Deva`; empty if nobody has told."""
    return next((part for part in _likely(language).split("-")[1:] if len(part) == 4), "")
