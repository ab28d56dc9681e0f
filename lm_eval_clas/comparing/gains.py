"""What one row of a comparison holds: scores, gains on the same items, tests by language, and the average's interval."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm_eval_clas.comparing.rows import LanguageCell, Row
from lm_eval_clas.comparing.runs import TaskScores
from lm_eval_clas.evidence.clusters import Clusters, within_correlation
from lm_eval_clas.evidence.paired_tests import SIGNIFICANT, average_interval, holm, mcnemar, sign_flips
from lm_eval_clas.evidence.smallest_gain import mean_interval, measured_error, smallest_gain, smallest_of_interval

_EQUAL = 1e-9  # scores that differ by less are the same, added up in another order


@dataclass(frozen=True)
class LanguageScores:
    """One run, or several seeds of one, in one language; in the metric's own unit.

    Attributes:
        score: mean over the seeds.
        items: how many, if the files say so.
        values: a Series by `doc_id`, each item's mean over the seeds; None where samples are missing or the metric is no
            mean of theirs.
    """

    score: float
    items: int | None
    values: Any | None

    @property
    def binary(self) -> bool:
        """Whether every item is right or wrong."""
        return self.values is not None and bool(self.values.isin((0, 1)).all())


@dataclass(frozen=True)
class RowRules:
    """How rows are made.

    Attributes:
        averaged: the languages of the average.
        scale: 100 where the metric is a share of 1, else 1.
        higher_is_better: else a score above the baseline's is a loss.
        clusters: of the items of each language, in the order of their scores.
        resamples: of permutations and of the bootstrap; `seed` is theirs.
    """

    averaged: Sequence[str]
    scale: float
    higher_is_better: bool
    clusters: Mapping[str, Clusters]
    resamples: int
    seed: int


def average_of_seeds(seeds: Sequence[TaskScores], key: str) -> LanguageScores:
    """A task's score for a metric and filter (`acc,none`), over seeds that answered the same items."""
    import pandas as pd

    values = [one.item_scores(key) for one in seeds]
    complete = all(one is not None for one in values)
    together = pd.concat(values, axis=1).mean(axis=1) if complete else None
    items = seeds[0].items if together is None else len(together)
    return LanguageScores(float(np.mean([one.metrics[key] for one in seeds])), items, together)


def baseline_row(label: str, measured: Mapping[str, LanguageScores], steering: dict[str, Any], settings: RowRules) -> Row:
    """The row that the others are compared with."""
    cells = {language: LanguageCell(score=settings.scale * one.score, items=one.items) for language, one in measured.items()}
    average = float(np.mean([cells[language].score for language in settings.averaged]))
    return Row(label=label, kind="baseline", cells=cells, average=average, steering=steering)


def compared_row(
    row: Row,
    measured: Mapping[str, LanguageScores],
    baseline: Mapping[str, LanguageScores],
    settings: RowRules,
    in_question: Collection[str],
) -> Row:
    """A row with what it gains over the baseline.

    Args:
        row: as `baseline_row` makes it, with its own kind.
        measured: of the row, by language.
        baseline: of the baseline, by language, on the same items. Each may lack languages outside `settings.averaged`.
        settings: how rows are made.
        in_question: the languages over which p-values are adjusted. It is known before any item is scored: those that nothing
            steers have no difference to find, and would only make those look worse that something does.
    """
    tests: dict[str, float] = {}
    correlations: dict[str, float | None] = {}
    intervals: dict[str, tuple[float, float]] = {}
    smallest: dict[str, float | None] = {}
    both = {language: one for language, one in measured.items() if language in baseline}
    for language, one in both.items():
        other = baseline[language]
        if one.values is None or other.values is None:
            continue
        ours, theirs = one.values.to_numpy(), other.values.loc[one.values.index].to_numpy()
        clusters = settings.clusters[language]
        correlations[language] = within_correlation(ours - theirs, clusters)
        smallest[language] = smallest_gain(settings.scale * measured_error(ours - theirs, clusters), clusters)
        if (ends := mean_interval(ours - theirs, clusters)) is not None:
            intervals[language] = (settings.scale * ends[0], settings.scale * ends[1])
        if one.binary and other.binary and clusters.alone:
            p_value = mcnemar(ours, theirs)
        else:
            p_value = sign_flips(ours, theirs, clusters, resamples=settings.resamples - 1, seed=settings.seed)
        if not math.isnan(p_value):
            tests[language] = p_value
    asked = [language for language in tests if language in in_question]
    adjusted = dict(zip(asked, holm([tests[language] for language in asked]), strict=True))
    gains = {language: settings.scale * (one.score - baseline[language].score) for language, one in both.items()}
    worse = -1.0 if settings.higher_is_better else 1.0
    losses = [language for language, gain in gains.items() if worse * gain > _EQUAL * settings.scale]
    found = [language for language, p in adjusted.items() if p < SIGNIFICANT]
    before = settings.scale * float(np.mean([baseline[language].score for language in settings.averaged]))
    gain = float(np.mean([gains[language] for language in settings.averaged]))
    low, high = _interval(measured, baseline, settings)
    known = [one for one in correlations.values() if one is not None]
    return row.model_copy(
        update={
            "cells": {
                language: cell.model_copy(
                    update={
                        "gain": gains.get(language),
                        "p_value": tests.get(language),
                        "p_holm": adjusted.get(language),
                        "clusters": settings.clusters[language].count if language in correlations else None,
                        "correlation": correlations.get(language),
                        "low": intervals.get(language, (None, None))[0],
                        "high": intervals.get(language, (None, None))[1],
                        "smallest": smallest.get(language),
                    }
                )
                for language, cell in row.cells.items()
            },
            "gain": gain,
            "low": low,
            "high": high,
            "percent": 100 * gain / before if before > 0 else None,
            "losses": len(losses),
            "significant_losses": len(set(found) & set(losses)) if tests else None,
            "significant_gains": len(set(found) - set(losses)) if tests else None,
            "correlation": float(np.mean(known)) if known else None,
            "smallest": None if low is None or high is None else smallest_of_interval(low, high),
        }
    )


def _interval(
    measured: Mapping[str, LanguageScores], baseline: Mapping[str, LanguageScores], settings: RowRules
) -> tuple[float | None, float | None]:
    """Of the average gain; nothing where a language has no item scores."""
    differences = []
    for language in settings.averaged:
        ours, theirs = measured[language].values, baseline[language].values
        if ours is None or theirs is None:
            return None, None
        differences.append(ours - theirs.loc[ours.index])
    # Languages whose items have the same numbers may be translations of each other; see `average_interval`.
    low, high = average_interval(
        [one.to_numpy() for one in differences],
        [settings.clusters[language] for language in settings.averaged],
        parallel=[tuple(one.index) for one in differences],
        resamples=settings.resamples,
        seed=settings.seed,
    )
    return (None, None) if math.isnan(low) else (settings.scale * low, settings.scale * high)
