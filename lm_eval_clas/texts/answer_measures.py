"""What a free answer is like, whatever it says: whether it is in the asked language, and how much it repeats itself."""

from __future__ import annotations

import unicodedata
from functools import cache

from lm_eval_clas.languages.codes import likely_script, normalize
from lm_eval_clas.languages.detection import Detector, can_be_detected
from lm_eval_clas.texts.corpora import BENCH_LANGUAGES, MINI_LANGUAGES
from lm_eval_clas.texts.metrics import unicode_words

# How Unicode's names of letters begin, by the code of the script. Chinese is written in Han, whichever form is likelier.
_SCRIPTS: dict[str, tuple[str, ...]] = {
    "Arab": ("ARABIC",),
    "Cyrl": ("CYRILLIC",),
    "Deva": ("DEVANAGARI",),
    "Geor": ("GEORGIAN",),
    "Grek": ("GREEK",),
    "Hans": ("CJK", "IDEOGRAPHIC"),
    "Jpan": ("CJK", "HIRAGANA", "IDEOGRAPHIC", "KATAKANA", "KATAKANA-HIRAGANA"),
    "Kore": ("CJK", "HANGUL"),
    "Latn": ("LATIN",),
    "Thai": ("THAI",),
    "Tibt": ("TIBETAN",),
}
_GRAM = 4  # words in a row
_LONGEST = 40  # characters of a word; a longer one is none of any language, but something that was repeated without spaces


def in_language(answer: str, language: str) -> float:
    """Whether an answer is in a language, by its script and by detection.

    Both must hold: more than half of its letters are of the script that the language is mostly written in, and detection, among
    the languages of all our tasks, names that language. A language that detection does not know (Tibetan, of ours) is told by
    its script alone, and one of a script that is not known here by detection alone.

    Args:
        answer: in any form.
        language: code of the language that was asked for.

    Returns:
        1.0 or 0.0; 0.0 for an answer without letters.

    Raises:
        ValueError: neither script nor detection knows the language.
    """
    asked = normalize(language) or language
    names, detected = _SCRIPTS.get(likely_script(asked)), can_be_detected(asked)
    if names is None and not detected:
        raise ValueError(f"neither its script nor detection can tell that a text is in '{language}'")
    letters = [char for char in unicodedata.normalize("NFKC", answer) if unicodedata.category(char).startswith("L")]
    own = sum(names is None or _script_word(letter) in names for letter in letters)
    return float(2 * own > len(letters) and (not detected or _detector(asked).detect(answer) == asked))


def repetition(answer: str) -> float:
    """The share of an answer's runs of four words that stood in it before.

    Words are without case, punctuation and symbols. In scripts without spaces (Chinese, Thai and the like), each character is
    a word, whatever language was asked for, and so it is in a word of more than 40 characters.

    Returns:
        0.0 to below 1; 0.0 for an answer of fewer than four words.
    """
    words = [part for word in unicode_words(answer) for part in (word if len(word) > _LONGEST else [word])]
    grams = [tuple(words[start : start + _GRAM]) for start in range(len(words) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@cache
def _script_word(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


@cache
def _detector(language: str) -> Detector:
    return Detector(tuple(dict.fromkeys((*MINI_LANGUAGES, *BENCH_LANGUAGES, language))))
