"""Language codes and their English names."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import langcodes
from langcodes.tag_parser import LanguageTagError
from pydantic import AfterValidator

UNDETERMINED = "und"  # BCP-47 for a language that nobody can tell
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
