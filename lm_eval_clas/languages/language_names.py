"""Languages by their names, in the forms that people use: `Hindi`, `Chinese (Simplified)`, `Kiswahili`, `Deutsch`."""

from __future__ import annotations

import re
from functools import cache, lru_cache

import langcodes

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.near_names import did_you_mean
from lm_eval_clas.languages.codes import languages_in_use, normalize

# Names that the CLDR, which has one English name and the own one for each language, does not have.
_OTHER = {
    "bahasa indonesia": "id", "bahasa melayu": "ms", "bambara": "bm", "bengali": "bn", "bokmal": "nb", "bokmål": "nb",
    "bokmaal": "nb", "burmese": "my", "cantonese": "yue", "castellano": "es", "castilian": "es", "chewa": "ny",
    "chichewa": "ny", "dari": "fa", "darija": "ary", "farsi": "fa", "flemish": "nl", "gaelic": "gd", "haitian": "ht",
    "isixhosa": "xh", "isizulu": "zu", "khalkha": "mn", "kikuyu": "ki", "kinyarwanda": "rw", "kirghiz": "ky", "kirundi": "rn",
    "kiswahili": "sw", "kurmanji": "ku", "kyrgyz": "ky", "lingala": "ln", "luganda": "lg", "luxembourgish": "lb",
    "malagasy": "mg", "mandarin": "zh", "moldovan": "ro", "myanmar": "my", "nynorsk": "nn", "oriya": "or", "pidgin": "pcm",
    "panjabi": "pa", "persian": "fa", "putonghua": "zh", "santali": "sat", "sepedi": "nso", "sesotho": "st", "setswana": "tn",
    "shona": "sn", "sinhalese": "si", "sorani": "ckb", "tagalog": "fil", "tigrigna": "ti", "twi": "ak", "uighur": "ug",
    "valencian": "ca", "xitsonga": "ts", "tshivenda": "ve",
}  # fmt: skip
# Names that are English words or parts of other names: nothing but a whole text of them names the language.
_WORDS = frozenset(("afar", "akan", "ganda", "latin", "male", "manx", "pali", "tonga", "venda"))


@cache
def _table() -> dict[str, str]:
    found: dict[str, str] = {}
    for code in languages_in_use():
        language = langcodes.Language.get(code)
        for name in (language.autonym(), language.display_name("en")):
            found.setdefault(name.casefold(), code)
    return {**found, **_OTHER}


@lru_cache(maxsize=32768)
def word_names(word: str) -> str | None:
    """The language that an English word names, such as `Hindi`; exactly, as `hindsight` is not Hindi."""
    word = word.casefold()
    return None if len(word) < 4 or word in _WORDS or not word.isascii() else _table().get(word)


@lru_cache(maxsize=4096)
def from_name(text: str) -> str | None:
    """The language of a name in any common form, or None: in English or in the language itself, with a region or a script.

    `Chinese (Simplified)`, `Brazilian Portuguese`, `Kiswahili`, `Farsi` and `Deutsch` are names; `Java`, which is Javanese's
    name in another language, is not.
    """
    text = re.sub(r"\s*[(\[].*$", "", text.replace("_", " ")).strip().casefold()
    if not text or re.search("[,;/&]", text):  # several languages are none
        return None
    for name in (text, text.split()[-1], text.split()[0]):  # a region or a script comes before the language, or after it
        if code := _table().get(name):
            return code
        try:
            found = langcodes.find(name)
        except LookupError:
            continue
        if found.display_name("en").casefold() == name:
            return normalize(found.to_tag())
    return None


def require_language(text: str, option: str = "") -> str:
    """The normalised code of a language, as `parse_language` gives it.

    Args:
        text: as a user wrote it.
        option: what stands before it in the sentence, such as `--languages: `.

    Raises:
        ClasError: it is no language; the sentence says which name is nearest.
    """
    code = parse_language(text)
    if code is None:
        given = f"{option}{text[:80]}" if option.endswith("=") else f"{option}'{text[:80]}'"
        raise ClasError(f"{given} is not a language{did_you_mean_language(text)}; give a code or a name, e.g. hi or Hindi.")
    return code


def did_you_mean_language(text: str) -> str:
    """As `did_you_mean`, of names of languages; nothing for what is as short as a code, which is like any other."""
    return did_you_mean(text, (name.title() for name in _table())) if 3 < len(text) <= 80 else ""


def parse_language(text: str) -> str | None:
    """The normalised code of a language given by code or by name, as everything that takes a language understands it."""
    return normalize(text) or from_name(text)
