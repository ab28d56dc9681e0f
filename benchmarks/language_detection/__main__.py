"""Compare language identification libraries on short, medium and long prompts.

Every library guesses the language of XNLI and XQuAD texts, with the guess restricted to a set of candidate
languages: the 16 languages of the two datasets together, or the 12 of XQuAD. The script prints Markdown tables: the
environment, what each library costs to install and to start, accuracy by condition and by language, a paired
comparison, the usual confusions, accuracy by length and by script, how far the confidence of a guess can be trusted,
what the libraries answer without the restriction, and, for py3langid, how well that tells texts in other languages.

    python benchmarks/language_detection [--rows 500] [--libraries py3langid,lingua,...] [--seed 0]

Needs `datasets` and any of the libraries (py3langid from 0.4); a library that is not installed is skipped. No network
access other than that of `load_dataset` (set HF_HUB_OFFLINE=1 to read the local cache only).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence

from costs import cold_start
from libraries import CANDIDATE_SETS, LIBRARIES, UNRESTRICTED, Detector, Library, is_installed
from report import (
    print_accuracy,
    print_accuracy_by_language,
    print_accuracy_by_length,
    print_accuracy_by_script,
    print_candidate_share,
    print_confidence,
    print_confusions,
    print_costs,
    print_environment,
    print_paired,
    print_sample_sizes,
    print_unrestricted,
    print_unsure,
)
from samples import CONDITIONS, PLAIN_SHORT, SPEED_CONDITIONS, Sample, load_samples
from scoring import LibraryResults, Result, Results


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
