"""Scores of a short answer against gold answers: SQuAD's, and one that knows the language.

`exact_match` and `f1` are those of the official SQuAD v1.1 script (Rajpurkar et al. 2016, arXiv 1606.05250): English
articles and ASCII punctuation go, tokens are split at white space. On Chinese or Thai that makes a whole answer one
token, and on any other language it leaves the articles in. `f1_lang` is the same F1 over tokens that suit the
language, in the manner of the MLQA evaluation (Lewis et al. 2020, arXiv 1910.07475).

All scores are between 0 and 1, and with several gold answers the best one counts.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

from lm_eval_clas.languages.language_names import parse_language

# What a task is tuned for and compared by if nobody says: the measures of the paper, where the task has them, and those of our
# other tasks.
PREFERRED_METRICS = ("f1_lang", "f1", "acc", "nats_per_byte", "in_language")


def preferred_metric(known: Sequence[str]) -> str:
    """The one of a task's metrics to take if nobody says: a preferred one, or else the first."""
    return next((metric for metric in PREFERRED_METRICS if metric in known), known[0])


# What stands before a noun and adds nothing to an answer. en, es, de and vi (which has no articles: these are its
# most frequent classifiers and particles) are the lists of MLQA's evaluation script. el, fr and ro follow the same
# idea: definite and indefinite articles in every form, fr with the contracted `du` and `des`. Suffixed articles (bg,
# ro) stay, as they cannot be told from the noun without a dictionary. Arabic's is a prefix, see `_without_articles`.
# Hindi, Urdu, Russian, Turkish, Swahili, Thai and Chinese have none.
_ARTICLES = {
    "de": "ein eine einen einem eines einer der die das den dem des",
    "el": "ο η το οι τα του της των τον την τη τους τις ένας μια μία ένα ενός μιας μίας έναν",
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "fr": "le la les l un une des du",
    "ro": "un o unui unei unor niște",
    "vi": "của là cái chiếc những",
}
_ARABIC_ARTICLE = "ال"

# Languages whose words are not separated, and how Unicode calls the characters of their scripts. Such a character is
# a token of its own; all others (Latin, digits) form one token up to the next space, as in MLQA's mixed segmentation.
_UNSPACED_LANGUAGES = frozenset({"bo", "dz", "ja", "km", "lo", "lzh", "my", "nan", "shn", "th", "wuu", "yue", "zh"})
_UNSPACED_SCRIPTS = (
    "BOPOMOFO ",
    "CJK ",
    "HIRAGANA ",
    "IDEOGRAPHIC ",
    "KATAKANA",
    "KHMER ",
    "LAO ",
    "MYANMAR ",
    "THAI ",
    "TIBETAN ",
)


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """SQuAD v1.1 exact match.

    Args:
        prediction: The answer to score.
        golds: All accepted answers.

    Returns:
        1.0 if the normalised prediction equals any normalised gold answer, else 0.0.

    Raises:
        ValueError: If there is no gold answer.
    """
    return _best(lambda gold: float(_squad_tokens(prediction) == _squad_tokens(gold)), golds)


def f1(prediction: str, golds: Sequence[str]) -> float:
    """SQuAD v1.1 token F1: English articles, ASCII punctuation, tokens split at white space.

    Args:
        prediction: The answer to score.
        golds: All accepted answers.

    Returns:
        The best F1 over the gold answers, 0.0 to 1.0. As in the official script it is 0.0 when nothing is left of
        either side, even if both are the same.

    Raises:
        ValueError: If there is no gold answer.
    """
    return _best(lambda gold: _token_f1(_squad_tokens(prediction), _squad_tokens(gold)), golds)


def f1_lang(prediction: str, golds: Sequence[str], language: str) -> float:
    """Token F1 with the language's own normalisation and tokens.

    Differs from MLQA's script (mlqa_evaluation_v1.py) in this: NFKC and case folding in place of lower case (with Turkish
    dotted and dotless i); symbols, spacing accents and invisible format characters (Unicode's Cf, such as zero-width joiners,
    soft hyphens and direction marks) go as well as punctuation in every script; Arabic's article goes only at the start of a
    word and cuts none in two; more languages have articles, and any language is taken; characters are tokens in all scripts
    without spaces, not in U+4E00 to U+9FA5 alone, and combining marks stay with their base; and an answer of nothing but
    articles or punctuation keeps them. A table is in docs/tasks-and-data.md.

    Args:
        prediction: The answer to score.
        golds: All accepted answers.
        language: BCP-47 code or a name; of a code only the primary subtag counts (`zh` of `zh-Hant`). A language that is not
            known here is split at white space and has no articles.

    Returns:
        The best F1 over the gold answers, 0.0 to 1.0; 1.0 whenever prediction and gold are the same and not blank.

    Raises:
        ValueError: If there is no gold answer.
    """
    return _best(lambda gold: _token_f1(lang_tokens(prediction, language), lang_tokens(gold, language)), golds)


def lang_tokens(text: str, language: str) -> list[str]:
    """The tokens that `f1_lang` compares.

    Args:
        text: An answer.
        language: as `f1_lang` takes it.

    Returns:
        Words without punctuation and articles, or for languages without spaces single characters with their
        combining marks and runs of other scripts. Empty only if `text` is blank.
    """
    language = parse_language(language) or re.split("[-_]", language, maxsplit=1)[0].lower()
    words = _bare(text, language).split()
    kept = _without_articles(words, language) or words or text.split()
    if language not in _UNSPACED_LANGUAGES:
        return kept
    return [token for word in kept for token in _segment(word)]


def unicode_words(text: str) -> list[str]:
    """The words of a text in any language: as `lang_tokens` has them, with articles, and cut by script alone."""
    return [token for word in _bare(text, "").split() for token in _segment(word)]


def _squad_tokens(text: str) -> list[str]:
    bare = "".join(char for char in text.lower() if char not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def _bare(text: str, language: str) -> str:
    """Folds compatibility forms and case, and takes out punctuation, symbols and invisible format characters."""
    if language == "fr":
        text = re.sub("['\u2019]", " ", text)  # l'eau, d'eau: the elided word is a word
    # Spacing accents go first, for NFKC makes a space and a combining mark of them.
    text = unicodedata.normalize("NFKC", "".join(char for char in text if unicodedata.category(char) != "Sk"))
    if language in ("az", "tr"):
        text = text.replace("İ", "i").replace("I", "ı")
    text = unicodedata.normalize("NFKC", text.casefold())
    return "".join(char for char in text if not unicodedata.category(char).startswith(("P", "S", "Cf")))


def _without_articles(words: list[str], language: str) -> list[str]:
    if language == "ar":
        # Two letters must be left, so that a short word that only begins with these letters keeps them.
        cut = len(_ARABIC_ARTICLE)
        return [word[cut:] if word.startswith(_ARABIC_ARTICLE) and len(word) >= cut + 2 else word for word in words]
    articles = _articles(language)
    return [word for word in words if word not in articles]


@cache
def _articles(language: str) -> frozenset[str]:
    """The articles in the form that `_bare` gives words (Greek final sigma, for one, does not survive it)."""
    return frozenset(_bare(_ARTICLES.get(language, ""), language).split())


def _segment(word: str) -> list[str]:
    """Cuts before and after every character of a script without spaces; marks (Unicode M*) stay with their base."""
    tokens: list[str] = []
    in_run = False
    for char in word:
        if tokens and unicodedata.category(char)[0] == "M":
            tokens[-1] += char
            continue
        unspaced = unicodedata.category(char) != "Nd" and unicodedata.name(char, "").startswith(_UNSPACED_SCRIPTS)
        if in_run and not unspaced:
            tokens[-1] += char
        else:
            tokens.append(char)
        in_run = not unspaced
    return tokens


def _token_f1(prediction: list[str], gold: list[str]) -> float:
    common = sum((Counter(prediction) & Counter(gold)).values())
    return 2 * common / (len(prediction) + len(gold)) if common else 0.0


def _best(score: Callable[[str], float], golds: Sequence[str]) -> float:
    if isinstance(golds, str) or not golds:
        raise ValueError(f"expected a list of at least one gold answer, got {golds!r}")
    return max(score(gold) for gold in golds)
