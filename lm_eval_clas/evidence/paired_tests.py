"""Does a run differ from the baseline, language by language? Two-sided paired tests. Pure functions of numbers.

Beside `best_of_many.py`, which asks whether the best of many settings is better than the baseline (one-sided, adjusted for
having picked it), this asks about one run that was decided on before: in each language, better or worse?

Items of one cluster, such as the questions of one passage, are flipped and drawn together: taken one by one, they find what
is not there (`benchmarks/clusters.py`; figures in docs/comparing.md).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.evidence.clusters import FEWEST, Clusters, agreeing

SIGNIFICANT = 0.05  # the p-value below which a difference is called one
# Rounding must not tell two equal sums apart when resamples are compared with what was measured.
TIE = 1e-9
_BATCH = 4_000_000  # numbers in memory at once


def mcnemar(score: ArrayLike, baseline: ArrayLike) -> float:
    """Two-sided p of the exact McNemar test: the binomial test of the items that only one of both got right.

    McNemar 1947, Psychometrika 12; exact as in Agresti 2013, Categorical Data Analysis, section 11.1.1.

    Args:
        score: [items], 0 or 1.
        baseline: [items], 0 or 1, of the same items.

    Returns:
        1 if no answer changed.

    Raises:
        ClasError: a score is neither 0 nor 1, or the numbers of items differ.
    """
    from scipy.stats import binomtest

    ours, theirs = _pair(score, baseline)
    if not (np.isin(ours, (0, 1)).all() and np.isin(theirs, (0, 1)).all()):
        raise ClasError("McNemar's test needs scores of 0 and 1; use sign_flips for graded ones.")
    won, lost = int((ours > theirs).sum()), int((ours < theirs).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def sign_flips(
    score: ArrayLike, baseline: ArrayLike, clusters: Clusters | None = None, *, resamples: int = 9999, seed: int = 0
) -> float:
    """Two-sided p of Fisher's paired randomisation test: run and baseline are swapped in a random half of the clusters.

    Fisher 1935, The Design of Experiments, section 21. The statistic is the sum of the differences; p is the share of
    flips whose sum is at least as far from 0. Where there are no more flips than `resamples`, all of them are tried;
    else what was measured counts among the random ones (Phipson & Smyth 2010, Statistical Applications in Genetics and
    Molecular Biology 9:39), so that p is never below 1 / (1 + resamples). For scores of 0 and 1 it is McNemar's test, if all
    items are alone. With k clusters p is never below 2 / 2**k, so that fewer than 6 cannot show anything at 0.05.

    Args:
        score: [items], any unit.
        baseline: [items], of the same items.
        clusters: of the same items; None takes every item by itself.
        resamples: how many random flips.
        seed: of the random flips.

    Returns:
        NaN where all of several items are in one cluster, which leaves nothing to compare.

    Raises:
        ClasError: a score is not a finite number, or the numbers of items differ.
    """
    ours, theirs = _pair(score, baseline)
    clusters = clusters or Clusters.single(ours.size)
    if clusters.count == 1 < clusters.items:
        return float("nan")
    sums = clusters.sums(ours - theirs)
    differences = np.abs(sums)
    measured = abs(float(sums.sum())) - TIE * max(1.0, float(np.abs(ours - theirs).sum()))
    differences = differences[differences > TIE]  # flipping a difference of 0 changes nothing
    if 2 ** len(differences) <= resamples:
        signs = 1.0 - 2.0 * (np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences)) & 1)
        return float(np.mean(np.abs(signs @ differences) >= measured))
    # m equal differences have a sum of (2 k - m) times one of them, k binomial: the same distribution, sooner.
    sizes, counts = np.unique(differences, return_counts=True)
    rng = np.random.default_rng(seed)
    beyond = 0
    for count in _batches(resamples, len(sizes)):
        flipped = (2.0 * rng.binomial(counts, 0.5, size=(count, len(sizes))) - counts) @ sizes
        beyond += int(np.sum(np.abs(flipped) >= measured))
    return (1 + beyond) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for all of them having been looked at, by Holm's step-down method, in the order given.

    Holm 1979, Scandinavian Journal of Statistics 6(2). It bounds the chance of any false find, whatever the correlation
    between the tests.
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(order) - np.arange(len(order))
    stepped = np.minimum(1, np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors))
    adjusted = np.empty(len(order))
    adjusted[order] = stepped
    return [float(one) for one in adjusted]


def average_interval(
    differences: Sequence[ArrayLike],
    clusters: Sequence[Clusters] | None = None,
    *,
    parallel: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """The bootstrap interval of the mean over languages of each language's mean difference.

    Stratified: every resample draws each language's clusters anew from that language (Efron & Tibshirani 1993, An
    Introduction to the Bootstrap, chapter 13; Davison & Hinkley 1997, Bootstrap Methods and their Application, sections
    3.2 and 3.8), and languages, which are no sample of anything, stay. So it is about other items, not other languages.
    Percentiles are those of Student's t with as many degrees of freedom as the fewest clusters leave: of few, plain
    ones make an interval too narrow (Hesterberg 2015, The American Statistician 69(4), section 5.3).

    Args:
        differences: [languages][items], score minus the baseline's, in any unit.
        clusters: of each language's items; None takes every item by itself.
        parallel: a mark for each language; those with the same mark have the same items, such as translations of one
            question, in one order: those whose clusters agree, as `agreeing` has it, draw the same clusters, in which items
            are together that are so in any of them. A question that gains in one language may gain in others, and
            independent draws would make the interval too narrow then. Where items are unrelated and all single, drawing
            them together changes nothing; unrelated clusters do not agree. None draws each language apart.
        resamples: how many.
        seed: of the draws.
        level: of the interval.

    Returns:
        NaN twice where fewer than 6 clusters in a language leave nothing that could be told.

    Raises:
        ClasError: no languages or items, a difference that is not a finite number, or parallel languages with different
            numbers of items.
    """
    rows = [np.asarray(one, dtype=float) for one in differences]
    if not rows or not all(row.size for row in rows):
        raise ClasError("An interval needs at least one language and one item in each; nothing was measured.")
    if not all(np.isfinite(row).all() for row in rows):
        raise ClasError("An interval needs finite scores; leave out what has others.")
    of_rows = [Clusters.single(row.size) for row in rows] if clusters is None else list(clusters)
    strata: dict[Hashable, list[int]] = {}
    for language, mark in enumerate(range(len(rows)) if parallel is None else parallel):
        strata.setdefault(mark, []).append(language)
    rng = np.random.default_rng(seed)
    drawn, fewest = np.zeros(resamples), np.inf
    for languages in strata.values():
        if len({rows[one].size for one in languages}) > 1:
            raise ClasError("Languages with different numbers of items are not parallel; draw them independently.")
        for group in agreeing([of_rows[one] for one in languages]):
            fewest = min(fewest, group.clusters.count)
            means = np.mean([rows[languages[one]] for one in group.languages], axis=0)
            drawn += len(group.languages) / len(rows) * _resampled_means(means, group.clusters, rng, resamples)
    if fewest < FEWEST:
        return float("nan"), float("nan")
    tail = student_tail((1 - level) / 2, int(fewest))
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return float(low), float(high)


def student_tail(share: float, clusters: int) -> float:
    """The percentile of a bootstrap in the place of `share`: Student's t has it further out as the clusters are fewer."""
    from scipy.special import ndtr, stdtrit  # of scipy.stats, which takes a second to import

    return float(ndtr(np.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, share)))


def _resampled_means(
    values: NDArray[np.float64], clusters: Clusters, rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """[resamples]: a resample of clusters is a multinomial draw of their sums and sizes, of which most are equal."""
    parts = np.stack([clusters.sums(values), clusters.sizes], axis=1)
    kinds, counts = np.unique(parts, axis=0, return_counts=True)
    drawn = [rng.multinomial(clusters.count, counts / clusters.count, size=n) @ kinds for n in _batches(resamples, len(kinds))]
    sums, sizes = np.concatenate(drawn).T
    means: NDArray[np.float64] = sums / sizes
    return means


def _batches(total: int, width: int) -> list[int]:
    size = max(1, _BATCH // max(1, width))
    return [min(size, total - start) for start in range(0, total, size)]


def _pair(score: ArrayLike, baseline: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ours, theirs = np.asarray(score, dtype=float), np.asarray(baseline, dtype=float)
    if ours.shape != theirs.shape or ours.ndim != 1:
        raise ClasError(f"A paired test needs the same items twice, but there are {ours.size} and {theirs.size}.")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ClasError("A paired test needs finite scores; leave out what has others.")
    return ours, theirs
