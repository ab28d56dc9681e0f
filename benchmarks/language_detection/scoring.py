"""Guesses and their accuracy, and Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from libraries import CANDIDATE_SETS
from samples import Sample


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
