"""Language detection on text, among given candidates."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from lm_eval_clas.languages.codes import UNDETERMINED, normalize

# What py3langid calls a language that `normalize` calls otherwise.
_LABELS = {"nb": "no", "fil": "tl", "bik": "bcl", "gn": "gug", "ki": "kik"}
# Below this probability, texts have no words ("42", "A"), and the answer is the library's order of languages.
_CERTAIN = 0.5
# Below this probability of all candidates together, the text is in another language.
_OUTSIDE = 0.2


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
