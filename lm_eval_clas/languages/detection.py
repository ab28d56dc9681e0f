"""Detection of the language of a text, among given candidates.

See docs/language-detection.md for the libraries compared, the accuracy by language, and the thresholds.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from lm_eval_clas.languages.codes import UNDETERMINED, normalize

# What py3langid calls a language that `normalize` calls otherwise.
_LABELS = {"nb": "no", "fil": "tl", "bik": "bcl", "gn": "gug", "ki": "kik"}
_BACK = {label: language for language, label in _LABELS.items()}
# Below this probability, texts have no words ("42", "A"), and the answer is the library's order of languages.
_CERTAIN = 0.5
# Below this probability of all candidates together, the text is in another language.
_OUTSIDE = 0.2


@cache
def _every() -> LanguageIdentifier:
    # An identifier of our own: restricting the library's shared one would change it for everybody in the process.
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def can_be_detected(language: str) -> bool:
    """Whether the library knows a language."""
    return _LABELS.get(language, language) in _every().labels


def probabilities(text: str) -> dict[str, float]:
    """The probability of each language that the library knows, by its normalised code."""
    found: dict[str, float] = {}
    for label, probability in _every().rank(text):
        language = _BACK.get(label) or normalize(label) or UNDETERMINED
        found[language] = found.get(language, 0.0) + float(probability)
    return found


class Detector:
    """Detection among candidates."""

    def __init__(self, candidates: Sequence[str]) -> None:
        labels = {language: _LABELS.get(language, language) for language in candidates}
        self._language = {label: language for language, label in labels.items() if label in set(_every().labels)}
        self._restricted = copy.copy(_every())
        if self._language:
            self._restricted.set_languages(list(self._language))

    def detect(self, text: str) -> str:
        """The most likely candidate; another language if the text is clearly in none of them; `und` if it has no words."""
        best = _every().rank(text)
        if sum(probability for label, probability in best if label in self._language) < _OUTSIDE:
            label, probability = best[0]
            return (_BACK.get(label) or normalize(label) or UNDETERMINED) if probability >= _CERTAIN else UNDETERMINED
        label, probability = self._restricted.classify(text)
        return self._language[label] if probability >= _CERTAIN else UNDETERMINED
