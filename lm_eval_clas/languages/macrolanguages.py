"""Members of macrolanguages: requests in Egyptian Arabic where the masks have Arabic, and the reverse."""

from __future__ import annotations

from collections.abc import Collection

from langcodes.data_dicts import MACROLANGUAGES

from lm_eval_clas.languages.codes import normalize
from lm_eval_clas.languages.language_names import parse_language


def as_known(language: str, known: Collection[str]) -> str:
    """The known language that a language is, or belongs to, or has in it, if only one is; the language itself otherwise.

    `quy` for `qu` and `qu` for `quy`, `ar` for `arz`, by ISO 639-3. Two members of one macrolanguage are two languages:
    masks with `ary` say nothing of `arz`.
    """
    if language in known:
        return language
    fitting = {one for one in known if _macro(one) == language or _macro(language) == one}
    return fitting.pop() if len(fitting) == 1 else language


def known_language(text: str, known: Collection[str]) -> str:
    """The known language that a user means by a code or a name, as `as_known` finds it.

    Where none is meant: the code, or the text itself if it names no language. Everything that takes a language beside a list of
    those that there are asks this.
    """
    return text if text in known else as_known(parse_language(text) or text, known)


def _macro(language: str) -> str | None:
    """The macrolanguage of a language, or None; Serbo-Croatian is none here, as its code is Serbian's since long ago."""
    macro = MACROLANGUAGES.get(language)
    return None if macro is None or macro == "sh" else normalize(macro)
