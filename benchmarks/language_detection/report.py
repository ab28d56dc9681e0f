"""The tables that are printed."""

from __future__ import annotations

import os
import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata

from costs import closure, compiled_parts, measure_cold_start, megabytes
from libraries import CANDIDATE_SETS, UNRESTRICTED, Library, make_py3langid_share
from samples import CONDITIONS, PLAIN_SHORT, SPEED_CONDITIONS, Sample
from scoring import Result, Results, accuracy, by_language, in_set, macro_accuracy, percent, table


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
